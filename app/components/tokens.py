"""How likely each token of an answer was: coloured in the text, and as a table with what the model would rather have said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import session
from app.components import words

if TYPE_CHECKING:
    from engine.playground import Playground, Token

_MOST = 400
# From which probability on, and how it is called and coloured.
_BANDS = (
    (0.9, "green", "90 % or more: sure"),
    (0.5, "blue", "50 to 90 %"),
    (0.1, "orange", "10 to 50 %: in doubt"),
    (0.0, "red", "below 10 %: unlikely"),
)


def switch(turn_id: int, side: int) -> None:
    """The button that opens and closes it."""
    is_open = (turn_id, side) in session.probabilities()
    label = "Hide probabilities" if is_open else "Probabilities"
    help_text = "How likely each token of this answer is to the model, and what it would rather have said."
    st.button(
        label,
        key=f"tokens-{turn_id}-{side}",
        icon=":material/analytics:",
        type="tertiary",
        help=help_text,
        on_click=_turn,
        args=(turn_id, side),
    )


def show(playground: Playground, turn_id: int, side: int, answer: dict[str, Any], messages: Sequence[dict[str, str]]) -> None:
    """Works it out once, then draws it. Raises EngineError."""
    opened = session.probabilities()
    if opened[turn_id, side] is None:
        with st.spinner("Reading the answer again…"):
            speaker = playground.speaker(answer["speaker"])
            found = playground.probabilities(speaker, list(messages), answer["text"])
        # Where the answer was cut off the model wrote no end mark, so how likely one was isn't asked.
        opened[turn_id, side] = found if answer["finish"] == "stop" else found[:-1]
    tokens = (opened[turn_id, side] or [])[:_MOST]
    st.markdown(" ".join(_coloured(token) for token in tokens))
    st.markdown(" ".join(f":small[:{color}-background[{meaning}]]" for _, color, meaning in _BANDS))
    rows = [_row(token) for token in tokens]
    st.dataframe(rows, hide_index=True, height=min(300, 38 + 36 * len(rows)), column_config=_columns(), alt="Each token's probability")
    if len(opened[turn_id, side] or []) > _MOST:
        st.caption(f"The first {_MOST} tokens.")


def _turn(turn_id: int, side: int) -> None:
    opened = session.probabilities()
    if (turn_id, side) in opened:
        del opened[turn_id, side]
    else:
        opened[turn_id, side] = None


def _coloured(token: Token) -> str:
    color = next(color for least, color, _ in _BANDS if token.probability >= least)
    return f":{color}-background[{words.literal(_visible(token.text))}]"


def _visible(text: str) -> str:
    """A token that is only blanks is to be seen too."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "∅"


def _row(token: Token) -> dict[str, Any]:
    rather = ", ".join(
        f"{_visible(text)} {words.percent(chance)}" for text, chance in token.best if text != token.text and chance >= 0.0005
    )
    return {"token": _visible(token.text), "probability": 100 * token.probability, "or rather": rather}


def _columns() -> dict[str, Any]:
    return {"probability": st.column_config.ProgressColumn("probability", format="%.1f %%", min_value=0, max_value=100)}
