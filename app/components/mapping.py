"""Which column is which: the form that reads a kept file by other columns. Knows the Engine's formats, not how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import services
from app.components import dataset_words, trouble
from engine import EngineError

if TYPE_CHECKING:
    from engine.store import LibrarySet

_NONE = "(none)"


@st.dialog("Which column is which?", width="large")
def dialog(dataset_id: str) -> None:
    """The same over the page."""
    with trouble.boundary():
        form(services.engine().datasets.get(dataset_id))


def form(found: LibrarySet) -> None:
    """Asks for the layout and the columns, and reads the file so."""
    known = services.engine().datasets.columns(found.id)
    columns, formats = known["columns"], list(dataset_words.FORMATS)
    st.caption("The first rows of the file, as they are:")
    st.dataframe(known["rows"], hide_index=True, alt=f"The first rows of {found.file}")
    picked = st.selectbox(
        "How is each row laid out?",
        formats,
        index=formats.index(found.format) if found.format in formats else 0,
        format_func=lambda name: f"{dataset_words.FORMATS[name]} ({dataset_words.TERMS[name]})",
        key=f"layout-{found.id}",
    )
    fields = known["fields"][picked]
    st.caption(f"{dataset_words.shape_title(fields['shape'])}: {dataset_words.shape_meaning(fields['shape'])}")
    chosen: dict[str, str] = {}
    with st.grid(2, min_column_width=240) as grid:
        for place, name in enumerate(fields["fields"]):
            needed = name in fields["required"]
            options = columns if needed else [_NONE, *columns]
            current = found.stats.get("columns", {}).get(name) if found.format == picked else None
            guess = current or next((column for column in columns if column.strip().lower() == name), None)
            start = options.index(guess) if guess in options else min(place, len(options) - 1) if needed else 0
            label = dataset_words.field(name) + ("" if needed else ", if there is one")
            with grid.cell():
                column = st.selectbox(label, options, index=start, key=f"column-{found.id}-{picked}-{name}")
            if column and column != _NONE:
                chosen[name] = column
    twice = sorted({column for column in chosen.values() if list(chosen.values()).count(column) > 1})
    if twice:
        st.warning(f"The column {twice[0]} is chosen twice: choose another for one of them.", icon=":material/info:")
    if st.button("Read it so", key=f"remap-{found.id}", type="primary", disabled=bool(twice)):
        try:
            services.engine().datasets.remap(found.id, picked, chosen)
        except EngineError as error:
            trouble.show_error(error.to_dict())
        else:
            st.rerun()
