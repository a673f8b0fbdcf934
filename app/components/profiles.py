"""Profiles on the screen: which one a run takes, what it does to the first row, keeping one's own. Knows the Engine's profiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import services, session
from app.components import trouble, words
from engine import EngineError, Recipe
from engine.profiles import Profile, name_of

_NONE = ""


def choose(recipe: Recipe, changed: Callable[[str, Any], None]) -> None:
    """The choice, and what comes of it; `changed` is told (field, value)."""
    profiles = services.engine().profiles
    known = {profile.name: profile for profile in profiles.list()}
    chosen = name_of(recipe.profile)
    key = f"profile-{session.form_generation()}"
    names = [_NONE, *known, *([chosen] if chosen and chosen not in known else [])]
    st.selectbox(
        "Profile: changes to the data, a system prompt and stop strings under one name",
        names,
        index=names.index(chosen),
        format_func=lambda name: name or "none: the data as it is",
        key=key,
        on_change=lambda: _take(st.session_state[key], changed),
    )
    if chosen in known:
        st.caption(words.literal(" ".join(filter(None, (known[chosen].meaning, _contents(known[chosen]))))))
    if recipe.data.transforms or chosen:
        _effect(recipe)
    _keep(recipe, known)


def _take(name: str, changed: Callable[[str, Any], None]) -> None:
    session.renew_forms()
    changed("profile", name or None)


def _contents(profile: Profile) -> str:
    kinds = services.engine().profiles.kinds()
    does = [kinds[change.kind]["title"].lower() for change in profile.transforms]
    told = [f"Changes: {', '.join(does)}."] if does else []
    if profile.system_prompt:
        told.append(f"It is told: {profile.system_prompt}")
    if profile.stop:
        told.append(f"Answers end at {', '.join(repr(mark) for mark in profile.stop)}.")
    return " ".join(told)


def _effect(recipe: Recipe) -> None:
    try:
        found = services.engine().profiles.effects(recipe)
    except EngineError as error:
        trouble.show_error(error.to_dict())
        return
    if found.left_out:
        st.warning(f"{found.left_out:,} of {found.total:,} rows are left out by these changes.", icon=":material/warning:")
    for row in found.rows:
        with st.container(border=True):
            st.caption(f"Row {row.row:,}, before and after")
            before, after = st.columns(2, gap="medium")
            _texts(before, row.before)
            if row.left_out:
                after.markdown(f":orange[left out: {words.literal(row.left_out)}]")
            else:
                _texts(after, row.after)


def _texts(place: Any, texts: list[tuple[str, str]]) -> None:
    for what, text in texts:
        shown = text if len(text) <= 600 else f"{text[:600]} …"
        place.caption(words.literal(what))
        place.code(shown, language=None, wrap_lines=True)


def _keep(recipe: Recipe, known: dict[str, Profile]) -> None:
    own = [profile for profile in known.values() if profile.own]
    if not (recipe.data.transforms or recipe.system_prompt or recipe.stop or own):
        return
    profiles = services.engine().profiles
    with st.popover("Your profiles", icon=":material/tune:"):
        key = f"profile-name-{session.form_generation()}"
        st.text_input("Keep these changes, system prompt and stop strings as", key=key, placeholder="A name")

        def save() -> None:
            profiles.save(st.session_state[key], transforms=recipe.data.transforms, system_prompt=recipe.system_prompt, stop=recipe.stop)

        st.button("Save profile", key="profile-save", on_click=lambda: trouble.attempt(save, "The profile is kept"))
        for number, profile in enumerate(own):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(words.literal(profile.name), width="content")
                st.button(
                    "Delete",
                    key=f"profile-delete-{number}",
                    on_click=trouble.attempt,
                    args=(lambda name=profile.name: profiles.delete(name), f"{profile.name} is deleted"),
                )
