"""The rows of a data set: a page of conversations, searched; and one row as a model sees it, token by token."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import streamlit as st

from app import address, session
from app.components import dataset_words, words
from app.components.conversation import example

if TYPE_CHECKING:
    from engine.data.lengths import Token
    from engine.data.shelf import Row
    from engine.library import Library
    from engine.store import LibrarySet

_PAGE = 10
_MOST_TOKENS = 1500
_SIDES = {"better": "The better answer: ", "worse": "The worse answer: "}
_PARTS = {
    "prompt": ("gray", "Given: the model reads it, and isn't trained to write it"),
    "answer": ("green", "Learned: the model is trained to write this"),
    "cut": ("red", "Cut off: the model never sees it"),
}


def browse(library: Library, found: LibrarySet) -> None:
    """A page of rows, all or those that hold a text."""
    wanted = st.text_input(
        "Search", key="find", placeholder="Search in every message", icon=":material/search:", label_visibility="collapsed"
    )
    places = _places(library, found, wanted.strip())
    total = found.examples if places is None else len(places)
    if wanted.strip():
        st.caption(f"{dataset_words.rows(total)} of {found.examples:,} hold “{words.literal(wanted.strip())}”.")
    pages = max(1, -(-total // _PAGE))
    # Ten more or fewer rows are another number of pages, and so another widget: it starts at the first.
    number = st.pagination(pages, key=f"page-{found.id}-{pages}-{wanted}") if pages > 1 else 1
    start = (number - 1) * _PAGE
    if places is None:
        rows = library.rows(found.id, start, _PAGE)
    else:
        rows = [row for place in places[start : start + _PAGE] for row in library.rows(found.id, place, 1)]
    for row in rows:
        _row(found, row)


def _places(library: Library, found: LibrarySet, wanted: str) -> list[int] | None:
    if not wanted:
        return None
    kept = session.found_rows()
    key = (found.id, found.bytes, f"{found.mapping}{wanted}")
    if key not in kept:
        kept.clear()
        with st.spinner("Searching…"):
            kept[key] = library.search(found.id, wanted)
    return kept[key]


def _row(found: LibrarySet, row: Row) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            kind = " · keeps an older skill (replay)" if row.kind == "replay" else ""
            st.caption(f"{dataset_words.row_name(row.shape).capitalize()} {row.position + 1:,}{kind}", width="content")
            st.button(
                "Its tokens",
                key=f"seen-{row.position}",
                type="tertiary",
                icon=":material/token:",
                help="What the model sees of it.",
                on_click=_look_at,
                args=(row.position + 1,),
            )
        example(row)


def _look_at(number: int) -> None:
    st.session_state["view"], st.session_state["row"] = "seen", number
    st.query_params.update(view="seen", row=str(number))


def seen(library: Library, found: LibrarySet, model: str) -> None:
    """One row in the model's tokens: given, learned, cut off."""
    limit = library.lengths(found.id, model)["limit"]
    with st.container(horizontal=True):
        asked = st.query_params.get("row", "1")
        # What a button has chosen goes before the address, and Streamlit warns where both are given.
        known = "row" in st.session_state or not asked.isdecimal()
        start = "min" if known else min(found.examples, max(1, int(asked)))
        number = st.number_input(
            "Example", 1, found.examples, start, key="row", on_change=address.keep, args=("row", "row", "1"), width=180
        )
        longest = st.number_input(
            "Cut after (max_length)",
            8,
            max(8, limit),
            max(8, limit),
            key=f"cut-{model}",
            width=220,
            help=f"In tokens. {model} can look at {limit:,} at most; a recipe may cut earlier, to save time and memory.",
        )
    row = library.rows(found.id, number - 1, 1)[0]
    sequences = library.seen(row, model, longest)
    _explain(row.shape, len(sequences))
    for place, shown in enumerate(sequences, 1):
        tokens = shown.tokens
        with st.container(border=True):
            counts = {part: sum(token.part == part for token in tokens) for part in _PARTS}
            which = _SIDES.get(shown.side) or (f"Part {place}: " if len(sequences) > 1 else "")
            st.caption(
                f"{which}{len(tokens):,} tokens: {counts['prompt']:,} given, {counts['answer']:,} learned"
                + (f", {counts['cut']:,} cut off" if counts["cut"] else "")
            )
            if not counts["answer"] and row.shape != "prompts":
                st.markdown(":orange[**Nothing of the answer is left to learn from.**] Cut later, or shorten what is asked.")
            _coloured(tokens[:_MOST_TOKENS])
            if len(tokens) > _MOST_TOKENS:
                st.caption(f"The first {_MOST_TOKENS:,} tokens.")


def _explain(shape: str, sequences: int) -> None:
    if shape == "pairs":
        st.caption("The model is shown both: it learns to find the first likelier than the second.")
    elif shape == "prompts":
        st.caption("The model reads this and tries an answer; what it tries is judged.")
    elif sequences > 1:
        st.caption(
            f"The model learns this conversation as {sequences} examples, one an answer: it shows past turns otherwise than new ones."
        )


def _coloured(tokens: list[Token]) -> None:
    for part, stretch in groupby(tokens, key=lambda token: token.part):
        color, meaning = _PARTS[part]
        st.markdown(f":small[:{color}[{words.literal(meaning)}]]  \n" + " ".join(_token(token.text, color) for token in stretch))


def _token(text: str, color: str) -> str:
    # A token that is only blanks is to be seen too.
    visible = text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "∅"
    return f":{color}-background[{words.literal(visible)}]"
