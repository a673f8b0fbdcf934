"""Thumbs up and down beside an answer in a chat, and the button that makes a data set of them all. What they mean is engine.ratings's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services, session
from app.components import dataset_words, trouble
from engine import ratings

if TYPE_CHECKING:
    from engine.store import LibrarySet, Rating, Turn


def beside(turn: Turn, side: int, given: Sequence[Rating]) -> None:
    """Two thumbs; the one that was pressed is filled, and pressed again it is taken back."""
    known = ratings.found(given, turn, side)
    key = f"thumbs-{turn.id}-{side}"
    chosen = None if known is None else int(known.good)
    st.feedback("thumbs", key=key, default=chosen, on_change=_rate, args=(turn.conversation_id, turn.id, side, key))


def collect() -> None:
    """The offer to make a data set of all thumbs; nothing where there are none."""
    good, bad = services.engine().ratings.count()
    if not good + bad:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{dataset_words.rows(good + bad, 'answer')} that you found good or bad** :gray[{good:,} up, {bad:,} down, in chats]")
        st.button(
            "Make a data set of your thumbs",
            key="thumbs-save",
            icon=":material/thumbs_up_down:",
            on_click=_save,
            help="Each prompt with the answer and your verdict, to learn from what was liked and what wasn't.",
        )


def _rate(conversation_id: str, turn_id: int, side: int, key: str) -> None:
    found: Any = st.session_state[key]

    def rate() -> None:
        all_of_them = services.engine().ratings
        if found is None:
            all_of_them.unrate(conversation_id, turn_id, side)
        else:
            all_of_them.rate(conversation_id, turn_id, side, bool(found))

    trouble.attempt(rate)


def _save() -> None:
    def save() -> None:
        made: LibrarySet = services.engine().ratings.save_as_dataset("Thumbs from chats")
        session.notices().append(session.Notice("done", f"{made.name} is in your library"))

    trouble.attempt(save)
