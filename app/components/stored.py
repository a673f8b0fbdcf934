"""What is stored at an endpoint elsewhere: a list with size and expiry, and for the one that is chosen what can be done with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import trouble, words
from engine import Engine
from engine.amounts import duration, size
from engine.stored import KINDS, summed

if TYPE_CHECKING:
    from engine.stored import Kept

_EXPIRIES = {"never": None, "in a day": 86400, "in a week": 7 * 86400, "in 30 days": 30 * 86400, "in a year": 365 * 86400}


def show() -> None:
    """One part for each place whose key is there; it is asked only once somebody looks."""
    engine = services.engine()
    for name in engine.stored.places():
        title = words.literal(engine.place(name))
        more = st.expander(f"What is stored at {title}", key=f"stored-{name}", on_change="rerun", icon=":material/cloud:")
        if more.open:
            with more, trouble.boundary():
                _place(engine, name, title)


def _place(engine: Engine, name: str, title: str) -> None:
    kept = session.stored(name)
    if kept is None:
        with st.spinner("Asking"):
            kept = engine.stored.listed(name)
        session.keep_stored(name, kept)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(summed(kept) if kept else "Nothing yet: each run that trains there leaves its checkpoints.", width="content")
        st.button("Look again", key=f"stored-again-{name}", icon=":material/refresh:", type="tertiary", on_click=_forget, args=(name,))
    if not kept:
        return
    st.dataframe(
        [_row(one) for one in kept],
        hide_index=True,
        height=38 + 36 * min(len(kept), 10),
        alt=f"Checkpoints stored at {title}, newest first",
    )
    chosen = st.selectbox(
        "Do something with", [one.path for one in kept], index=None, key=f"stored-one-{name}", placeholder="Choose a checkpoint",
        format_func=lambda path: _title(next((one for one in kept if one.path == path), None)),
    )  # fmt: skip
    if one := next((one for one in kept if one.path == chosen), None):
        _one(engine, name, title, one)


def _row(one: Kept) -> dict[str, Any]:
    return {
        "what": one.label or one.name,
        "kind": KINDS[one.kind],
        "step": one.step,
        "size": size(one.bytes) if one.bytes is not None else "",
        "saved": words.ago(time.time() - one.saved_at) if one.saved_at else "",
        "kept": _left(one),
        "public": "public" if one.public else "",
        "used by": ", ".join(one.used_by),
    }


def _left(one: Kept) -> str:
    return "for good" if one.expires_at is None else f"for {duration(max(0.0, one.expires_at - time.time()))} more"


def _title(one: Kept | None) -> str:
    if one is None:
        return ""
    step = f", step {one.step:,}" if one.step is not None else ""
    return f"{one.label or one.name}{step} ({KINDS[one.kind]})"


def _one(engine: Engine, name: str, title: str, one: Kept) -> None:
    stored, path = engine.stored, one.path
    st.code(path, language=None, wrap_lines=True)
    with st.container(horizontal=True):
        with st.popover("Label", icon=":material/label:"), st.form(f"label-{path}", border=False):
            label = st.text_input("What to call it here", one.label, key=f"label-text-{path}", max_chars=120)
            st.caption("A label of yours; the server isn't told.")
            if st.form_submit_button("Keep"):
                _do(name, lambda: stored.label(name, path, label), "Labelled")
        with st.popover("Take back" if one.public else "Publish", icon=":material/public:"):
            what = "Nobody else can use it any more?" if one.public else "Anybody who knows its path can use it then. Publish it?"
            st.markdown(what)
            if st.button("Take it back" if one.public else "Publish it", key=f"publish-{path}"):
                _do(name, lambda: stored.publish(name, path, not one.public), "Taken back" if one.public else "Published")
        with st.popover("Expiry", icon=":material/schedule:"):
            when = st.selectbox("Delete it there", list(_EXPIRIES), key=f"expiry-when-{path}")
            st.caption(f"Now it is kept {_left(one)}.")
            if st.button("Set", key=f"expiry-{path}"):
                _do(name, lambda: stored.expire(name, path, _EXPIRIES[when]), "The expiry is set")
        with st.popover("Download", icon=":material/download:"):
            st.markdown(f"The adapter as a folder that PEFT loads, in a zip. {title} packs it first, which may take minutes.")
            if st.button("Pack and fetch", key=f"fetch-{path}"):
                with st.status("Fetching") as status:
                    session.keep_fetched(path, stored.archive(name, path, lambda text: status.update(label=words.literal(text))))
            if found := session.fetched(path):
                st.download_button("Save the zip", found, f"{one.name}.zip", "application/zip", key=f"zip-{path}", on_click="ignore")
        with st.popover("Delete", icon=":material/delete:"):
            used = f" {words.literal(', '.join(one.used_by))} can't answer any more then." if one.used_by else ""
            st.markdown(f"Delete it at {title} for good?{used}")
            if st.button("Delete for good", key=f"delete-{path}"):
                _do(name, lambda: stored.delete(name, path), "Deleted")
        if one.job_id:
            navigation.link_to_run(one.job_id, "Its run")
        if one.page:
            st.link_button("In the console", one.page, icon=":material/open_in_new:", type="tertiary")


def _do(name: str, action: Callable[[], Any], done: str) -> None:
    trouble.attempt(action, done)
    _forget(name)
    st.rerun()


def _forget(name: str) -> None:
    session.keep_stored(name, None)
