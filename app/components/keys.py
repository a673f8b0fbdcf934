"""Keys for places to train: present or not, given, tried and taken back. A key that was typed is shown nowhere and kept in no field."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import services, session
from app.components import trouble, words

_FROM = {
    "memory": "Thinker holds it in memory until it is closed.",
    "file": "It is kept in Thinker's folder, in a file that only you can read.",
    "environment": "It is in the environment that Thinker was started from ({variable}).",
}


def show() -> None:
    """One after the other."""
    engine = services.engine()
    st.markdown("What trains elsewhere asks for a key. This machine needs none.")
    for known in engine.keys.all():
        _one(engine, known)


def _one(engine: Any, known: Any) -> None:
    need = known.need
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{need.title}**", width="content")
        if known.present:
            st.badge("there", icon=":material/check:", color="green")
        else:
            st.badge("none yet", icon=":material/key:", color="gray")
    if known.present:
        st.caption(_FROM[known.source].format(variable=need.variable))
        with st.container(horizontal=True):
            if st.button("Try it", key=f"key-try-{need.name}", icon=":material/network_check:", help="Asks whoever it is for."):
                _try(engine, need.name)
            if known.source != "environment":
                forget = {"key": f"key-forget-{need.name}", "icon": ":material/delete:", "on_click": _forget}
                st.button("Forget it", args=(need.name, need.title), **forget)
    else:
        st.markdown(f"You get one at {need.get_one}. It reads like {need.begins}…")
    with st.expander("Give another one" if known.present else "Give one", expanded=not known.present):
        with st.form(f"key-{need.name}-form", border=False):
            st.text_input("Key", key=_field(need.name), type="password", autocomplete="off", placeholder=f"{need.begins}…")
            if known.can_be_stored:
                told = "In a file of Thinker's folder that only you can read."
                st.checkbox("Remember it on this machine", key=f"key-store-{need.name}", help=told)
            st.form_submit_button("Use this key", icon=":material/key:", on_click=_give, args=(need.name, need.title))
        if not known.can_be_stored:
            st.caption("It is kept in memory only, for you alone, and gone when this server is restarted; runs that need it then wait.")


def _field(name: str) -> str:
    return f"key-{name}"


def _give(name: str, title: str) -> None:
    value, store = st.session_state[_field(name)], bool(st.session_state.get(f"key-store-{name}"))
    # The field holds it no longer than it takes to hand it over.
    st.session_state[_field(name)] = ""

    def give() -> None:
        woken = services.engine().keys.give(name, value, store=store)
        also = f"; {woken} run{'s' * (woken != 1)} that waited for it go{'es' * (woken == 1)} on" if woken else ""
        session.notices().append(session.Notice("done", f"The key for {title} is there{also}"))

    trouble.attempt(give)


def _forget(name: str, title: str) -> None:
    trouble.attempt(lambda: services.engine().keys.forget(name), f"The key for {title} is forgotten")


def _try(engine: Any, name: str) -> None:
    with trouble.boundary(), st.spinner("Asking"):
        told = engine.keys.check(name)
        st.success(words.literal(words.sentence(told)), icon=":material/check:")
