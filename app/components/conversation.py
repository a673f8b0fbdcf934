"""Rows of a data set, to be read: who says what, with its line ends, cut where it is long; pairs side by side, thumbs, what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app.components import dataset_words, words

if TYPE_CHECKING:
    from engine.data.shelf import Row

_THUMBS = {True: ("found good", ":material/thumb_up:", "green"), False: ("found bad", ":material/thumb_down:", "orange")}


def conversation(messages: Sequence[dict[str, str]], limit: int = 1200) -> None:
    """One line or more a message; answers stand out, since they are what is learned."""
    for message in messages:
        color = "green" if message["role"] == "assistant" else "gray"
        _said(f":{color}-badge[{dataset_words.role(message['role'])}]", message["content"], limit)


def example(row: Row, limit: int = 1200) -> None:
    """A row of any shape."""
    about = row.example
    if row.shape == "answers":
        conversation(row.messages, limit)
    else:
        conversation(about.prompt, limit)
    if row.rejected is not None:
        better, worse = st.columns(2, gap="medium")
        with better:
            _said(":green-badge[:material/check: Better (chosen)]", about.answer, limit)
        with worse:
            _said(":orange-badge[:material/close: Worse (rejected)]", row.rejected, limit)
    elif row.good is not None:
        what, icon, color = _THUMBS[row.good]
        _said(f":{color}-badge[{icon} Answer, {what}]", about.answer, limit)
    elif row.shape == "prompts":
        if about.answered:
            _said(":blue-badge[Expected]", about.answer, limit)
        else:
            st.caption("Nothing is expected in words: a reward judges what is tried.")
    if row.columns:
        shown = (f"**{words.literal(name)}** {words.literal(_short(value))}" for name, value in row.columns.items())
        st.caption(" · ".join(shown))


def _said(badge: str, text: str, limit: int) -> None:
    st.markdown(f"{badge}  \n{dataset_words.lines(text, limit)}")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:79] + "…"
