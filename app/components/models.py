"""All models: what was trained, newest first, and the base models that it stands on; what to see before there are any."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import streamlit as st

from app import navigation, services, session
from app.components import stored, words
from engine.amounts import size

if TYPE_CHECKING:
    from engine.registry import Base
    from engine.store import Model

_SEARCH_FROM = 5


def show() -> None:
    """The list, searched."""
    registry = services.engine().registry
    st.title("Models", anchor=False)
    everything = registry.find()
    if everything:
        wanted = ""
        if len(everything) >= _SEARCH_FROM:
            wanted = st.text_input("Search", key="search", placeholder="Part of a name, a base model or a note", icon=":material/search:")
        found = registry.find(wanted)
        shown = session.models_listed()
        for model in found[:shown]:
            _card(model)
        if not found:
            st.caption(f"None of {len(everything):,} models has “{words.literal(wanted)}” in its name, base model or notes.")
        if len(found) > shown:
            st.button(f"Show more of {len(found):,}", key="more-models", on_click=session.list_more_models)
    else:
        _lesson()
    stored.show()
    st.header("Base models", anchor=False)
    st.caption("What training starts from. You can talk to them as they are, to see what training changes.")
    for base in registry.bases():
        _base(base)


def _lesson() -> None:
    with st.container(border=True):
        st.markdown("## No tuned model yet", anchors=False)
        st.markdown(
            "Each finished run leaves a model here: what it was made from, what it can do now and could not before, a chat with it, "
            "and its files to take away. The demo makes one in about a minute."
        )
        if st.button("Train one", key="train", type="primary", icon=":material/play_arrow:"):
            st.switch_page(navigation.TRAINING.path)


def _card(model: Model) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            navigation.link_to_model(model.id, f"**{words.literal(model.name)}**")
            navigation.link_to_chat(model.id, "Chat")
        st.caption(f"On {words.literal(model.base_model)} · {words.ago(time.time() - model.created_at)}")
        if found := words.short_result(model.proof):
            st.markdown(words.literal(found))
        if model.notes:
            st.caption(words.literal(model.notes[:200]))


def _base(base: Base) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{words.literal(base.name)}**", width="content")
            navigation.link_to_chat(f"base:{base.name}", "Chat")
        facts = [base.kind]
        if base.bytes is not None:
            facts.append(size(base.bytes))
        if base.context is not None:
            facts.append(f"looks at up to {base.context:,} tokens (context)")
        facts.append(f"{base.tuned:,} tuned from it" if base.tuned else "nothing tuned from it yet")
        st.caption(words.literal(" · ".join(facts)))
