"""Errors and news on the screen: what happened, where, what to do; the rest of the page lives on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from app import session
from app.components.words import literal, sentence
from engine import EngineError, policy

_log = logging.getLogger("thinker.dashboard")


@contextmanager
def boundary() -> Iterator[None]:
    """Shows what goes wrong inside it, where it went wrong."""
    try:
        yield
    except EngineError as error:
        show_error(error.to_dict())
    except Exception as error:
        _log.exception("A page failed")
        said = policy.of(session.owner()).told(str(error))[:300]
        text = f"This part of the page failed ({literal(type(error).__name__)}: {literal(said)})."
        st.error(f"**{text}** \nNothing that runs is touched by it. Reload the page; the terminal that Thinker runs in has the details.")


def show_error(error: dict[str, Any], *, waits: bool = False) -> None:
    """An error as the engine wrote it down; `waits`: nothing is lost, somebody has to do something."""
    error = policy.of(session.owner()).told(error)
    lines = [f"**{literal(sentence(error['message']))}**"]
    if error.get("where"):
        lines.append(f"Where: {literal(error['where'])}")
    if error.get("next_step"):
        lines.append(f"What to do: {literal(error['next_step'])}")
    if waits:
        icon = "key" if error.get("kind") == "KeyNeeded" else "pause_circle"
        st.warning("  \n".join(lines), icon=f":material/{icon}:")
    else:
        st.error("  \n".join(lines), icon=":material/error:")


def attempt(action: Callable[[], Any], done: str = "") -> None:
    """Carries out what a button asks for; a refusal is told at the next rerun instead of ending the page."""
    try:
        action()
    except EngineError as error:
        session.notices().append(session.Notice("trouble", policy.of(session.owner()).told(str(error))))
    else:
        if done:
            session.notices().append(session.Notice("done", done))


def show_notices() -> None:
    """Tells what waited, once."""
    waiting = session.notices()
    while waiting:
        notice = waiting.pop(0)
        if notice.kind == "done":
            st.toast(literal(notice.text), icon=":material/check:")
        else:
            st.warning(literal(notice.text), icon=":material/info:")
