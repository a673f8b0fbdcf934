"""Servers that answer over OpenAI's API: a part of the settings, and fields to choose one and a model of it. Keys are shown nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from app import services, session
from app.components import trouble, words
from engine import EngineError

if TYPE_CHECKING:
    from engine.judges import JudgeServer

Put = Callable[[str], None]
_OWN = "one of my models, or a base model"


def show() -> None:
    """Those that were named, and a form for one more."""
    engine = services.engine()
    st.markdown(
        "A judge or a teacher may be a model elsewhere: at any server that speaks OpenAI's API, on your own machine (Ollama, vLLM, "
        "llama.cpp) or a company's. Name it here, and the editor of scores and the forms of distillation offer it. What is judged or asked "
        "is sent there."
    )
    for server in engine.judges.all():
        with st.container(border=True):
            _one(server)
    with st.expander("Name a server of judges or teachers"), st.form("judge-form", border=False):
        st.text_input("Name", key="judge-name", max_chars=60, placeholder="OpenAI")
        st.text_input("Address", key="judge-url", placeholder="https://api.openai.com/v1", help="What comes before /chat/completions.")
        st.text_input("Key, if it wants one", key="judge-key", type="password", autocomplete="off")
        st.checkbox("Remember the key on this machine", key="judge-store", help="In a file of Thinker's folder that only you can read.")
        st.form_submit_button("Use this server", icon=":material/add_link:", on_click=_add)


def url_field(label: str, value: str, key: str, put: Put) -> None:
    """Which server is asked: none, one of those in the settings, or an address that is typed."""
    named = {server.url: f"{server.name} ({server.url})" for server in services.engine().judges.all()}
    if value:
        named.setdefault(value, value)
    st.selectbox(
        label,
        ["", *named],
        index=["", *named].index(value),
        format_func=lambda url: named.get(url, url) if url else _OWN,
        key=key,
        accept_new_options=True,
        help="Servers are named in the settings; another address can be typed.",
        on_change=lambda: put((st.session_state[key] or "").strip().rstrip("/")),
    )


def model_field(label: str, value: str, url: str, key: str, put: Put, nobody: str = "") -> None:
    """Which model is asked: one that the server lists, or of the person's own, or any name that is typed. `nobody` is said of none."""
    engine = services.engine()
    if url:
        known = {name: name for name in engine.judges.models(url)}
    else:
        known = {model.id: model.name for model in engine.models()} | {"nano": "nano"}
    if value:
        known.setdefault(value, value)
    options = [*([""] if nobody else []), *known]
    st.selectbox(
        label,
        options,
        index=options.index(value) if value in options else None,
        format_func=lambda one: known.get(one, one) or nobody,
        key=key,
        accept_new_options=True,
        placeholder="Type its name, as the server calls it" if url else "Choose or type one",
        on_change=lambda: put((st.session_state[key] or "").strip()),
    )


def key_of(url: str, stem: str) -> None:
    """Whether the server's key is there, and a field to give it."""
    engine = services.engine()
    try:
        source = engine.judges.key_source(url)
    except EngineError as error:
        trouble.show_error(error.to_dict())
        return
    with st.popover("Its key is there" if source else "Give it a key", icon=":material/key:"):
        st.caption("It goes to that server alone and stands in no recipe. A server on your own machine may need none.")
        field = f"{stem}-key"
        st.text_input("Key", key=field, type="password", autocomplete="off")
        keep = st.checkbox("Remember it on this machine", key=f"{stem}-key-keep") if engine.policy.stores_keys else False
        st.button("Use this key", key=f"{stem}-key-give", on_click=_give, args=(url, field, keep))
        if source and source != "environment":
            st.button("Forget it", key=f"{stem}-key-forget", on_click=lambda: trouble.attempt(lambda: engine.judges.forget_key(url)))


def _one(server: JudgeServer) -> None:
    engine = services.engine()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{words.literal(server.name)}** {words.code(server.url)}", width="content")
        st.badge("key is there" if server.source else "no key", color="green" if server.source else "gray", icon=":material/key:")
    if server.source == "environment":
        st.caption(f"It is in the environment that Thinker was started from ({server.variable}).")
    if server.in_the_clear:
        st.caption(":orange[What is sent there, the key too, can be read on the way: use an https address, or a tunnel.]")
    if server.models:
        more = f" and {len(server.models) - 12:,} more" if len(server.models) > 12 else ""
        st.markdown(f"**Models:** {', '.join(map(words.code, server.models[:12]))}{more}")
    stem = f"judge-{server.url}"
    with st.container(horizontal=True):
        if st.button("Look at it", key=f"{stem}-look", icon=":material/network_check:", help="Asks it for its models. Costs nothing."):
            _look(server)
        key_of(server.url, stem)
        with st.popover("Forget", icon=":material/delete:"):
            st.markdown("Forget this server and its key? Recipes that name its address stay as they are.")
            st.button(
                "Forget it", key=f"{stem}-forget",
                on_click=lambda: trouble.attempt(lambda: engine.judges.forget(server.url), f"{server.name} is forgotten"),
            )  # fmt: skip


def _look(server: JudgeServer) -> None:
    try:
        with st.spinner("Asking"):
            found = services.engine().judges.look(server.url)
    except EngineError as error:
        trouble.show_error(error.to_dict())
        return
    told = f"offers {len(found.models):,} model{'s' * (len(found.models) != 1)}" if found.models else "answers, but lists no models"
    session.notices().append(session.Notice("done", f"{server.name} {told}"))
    st.rerun()


def _add() -> None:
    name, url, key = (st.session_state[f"judge-{field}"] for field in ("name", "url", "key"))
    store = bool(st.session_state["judge-store"])
    # The field holds it no longer than it takes to hand it over.
    st.session_state["judge-key"] = ""
    told = f"{name.strip()} is named; look at which models it has"
    trouble.attempt(lambda: services.engine().judges.add(name, url, key=key, store_key=store), told)


def _give(url: str, field: str, keep: bool) -> None:
    value = st.session_state[field]
    st.session_state[field] = ""
    trouble.attempt(lambda: services.engine().judges.give_key(url, value, store=keep), "The key is there")
