"""A conversation of a data set, to be read: who says what, with its line ends, cut where it is long."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.components import dataset_words


def conversation(messages: Sequence[dict[str, str]], limit: int = 1200) -> None:
    """One line or more a message; answers stand out, since they are what is learned."""
    for message in messages:
        color = "green" if message["role"] == "assistant" else "gray"
        badge = f":{color}-badge[{dataset_words.role(message['role'])}]"
        st.markdown(f"{badge}  \n{dataset_words.lines(message['content'], limit)}")
