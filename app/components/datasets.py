"""The library: files dropped and what became of them, all data sets at a glance, and what to see before there are any."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import dataset_words, mapping, thumbs, trouble, words
from app.components.conversation import example
from engine import EngineError

if TYPE_CHECKING:
    from engine.library import Library
    from engine.store import LibrarySet

_SEARCH_FROM = 6
_EXAMPLES = {
    "Question and answer": ('{"prompt": "Is the shop open on Sunday?", "completion": "Yes, from 10 to 4."}', "JSONL, one object a line"),
    "A table": ('question,answer\nIs the shop open on Sunday?,"Yes, from 10 to 4."', "CSV, the first line names the columns"),
    "Whole chats": (
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! What can I do for you?"}]}',
        "JSONL; any number of turns, every answer is learned from",
    ),
    "A better and a worse answer": (
        '{"prompt": "Is the shop open on Sunday?", "chosen": "Yes, from 10 to 4.", "rejected": "I don\'t know."}',
        "JSONL; to learn what is liked more (preferences)",
    ),
    "Thumbs up and down": (
        '{"prompt": "Is the shop open on Sunday?", "completion": "Of course!", "label": false}',
        "JSONL; each answer with what somebody thought of it",
    ),
    "Prompts to be tried": (
        '{"prompt": "What is 17 + 25?", "answer": "42", "level": 1}',
        "JSONL; with what is expected, and anything else to judge answers by",
    ),
}


def show() -> None:
    """The page."""
    library = services.engine().datasets
    st.title("Datasets", anchor=False)
    _drop(library)
    for number, arrival in enumerate(session.arrivals()):
        with trouble.boundary():
            _arrival(library, arrival, number)
    thumbs.collect()
    own = library.find()
    if own:
        _own(library, own)
    else:
        _lesson()
    st.header("Comes with Thinker", anchor=False)
    _cards(library.ships())


def _drop(library: Library) -> None:
    dropped = st.file_uploader(
        "Add your examples: drop files here. JSONL, JSON, CSV or Parquet, several at once, up to 50 MB each.",
        accept_multiple_files=True,
        key=f"drop-{session.upload_round()}",
        help="They stay on the machine that Thinker runs on, and are checked row by row.",
    )
    if not dropped:
        return
    with st.spinner("Reading every row…"):
        known = {found.id for found in library.find()}
        for file in dropped:
            try:
                found = library.add(file.name, file)
                arrived = session.Arrival(file.name, found.id, known=found.id in known)
                known.add(found.id)
            except EngineError as error:
                arrived = session.Arrival(file.name, error=error.to_dict())
            session.arrivals().insert(0, arrived)
    session.next_upload_round()
    st.rerun()


def _arrival(library: Library, arrival: session.Arrival, number: int) -> None:
    found = next((kept for kept in library.find() if kept.id == arrival.dataset_id), None)
    if found is None and arrival.error is None:
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{words.literal(arrival.file)}**", width="content")
            label, color = dataset_words.light(found) if found else ("● not kept", "red")
            st.badge(label, color=color)
            st.button("Hide", key=f"hide-{number}", type="tertiary", icon=":material/close:", on_click=_hide, args=(arrival,))
        if found is None:
            trouble.show_error(arrival.error or {})
            return
        if arrival.known:
            st.caption(f"These very rows were in your library already, as {words.literal(found.name)}.")
        if found.state == "unmapped":
            unclear(found)
            with st.container(horizontal=True):
                if st.button("Say which column is which", key=f"map-{number}", type="primary", icon=":material/view_column:"):
                    mapping.dialog(found.id)
                _remove(found, number)
            return
        st.markdown(
            f"Read as {dataset_words.layout(found.format)}: **{dataset_words.rows(found.examples, dataset_words.row_name(found.shape))}** "
            f"to learn from. :gray[{dataset_words.shape_meaning(found.shape)}]"
        )
        if found.state == "check":
            troubles(library, found, most=3)
        for row in library.rows(found.id, 0, 1):
            st.caption("The first one:")
            example(row, 300)
        with st.container(horizontal=True, vertical_alignment="center"):
            if found.state == "check":
                accept_button(found, f"accept-{number}")
            navigation.link_to_dataset(found.id, "Look inside")
            if found.state == "ready":
                navigation.link_to_training_on(found.id, "Train on this")
            _remove(found, number)


def unclear(found: LibrarySet) -> None:
    """Why the file's columns have to be told apart by hand."""
    error = found.error or {"message": "", "next_step": ""}
    st.markdown("Its rows can be read, but it isn't clear what in them is asked and what is answered.")
    st.caption(f"{words.literal(error['message'])} ({words.literal(error.get('where', ''))}).")


def accept_button(found: LibrarySet, key: str) -> None:
    """The person's consent to what is left out."""
    label = f"Use it without {'this row' if found.left_out == 1 else f'these {found.left_out:,} rows'}"
    done = f"{found.name} is ready: {dataset_words.rows(found.examples, 'example')}"
    accept = (lambda: services.engine().datasets.accept(found.id), done)
    st.button(label, key=key, type="primary", icon=":material/check:", on_click=trouble.attempt, args=accept)


def troubles(library: Library, found: LibrarySet, most: int) -> None:
    """What is wrong with the rows that can't be used, alike ones counted."""
    groups = library.problems(found.id)["groups"]
    for group in groups[:most]:
        where = f"first in {words.literal(group['first'])}" if group["count"] > 1 else words.literal(group["first"])
        st.markdown(
            f":orange[**{dataset_words.rows(group['count'])}**]: {words.literal(group['message'])} ({where}). {words.literal(group['fix'])}"
        )
    if len(groups) > most:
        st.caption(f"and {len(groups) - most:,} other kinds of trouble, all on its page")


def _remove(found: LibrarySet, number: int) -> None:
    remove = (lambda: services.engine().datasets.delete(found.id), f"{found.name} is deleted")
    st.button("Delete", key=f"remove-{number}", type="tertiary", icon=":material/delete:", on_click=trouble.attempt, args=remove)


def _hide(arrival: session.Arrival) -> None:
    session.arrivals().remove(arrival)


def _own(library: Library, own: list[LibrarySet]) -> None:
    st.header("Your library", anchor=False)
    wanted = ""
    if len(own) >= _SEARCH_FROM:
        wanted = st.text_input("Search", key="search", placeholder="Part of a name or a file's name", icon=":material/search:")
    found = library.find(wanted.strip()) if wanted.strip() else own
    shown = session.datasets_listed()
    _cards(found[:shown])
    if not found:
        st.caption(f"None of {len(own):,} data sets has “{words.literal(wanted)}” in its name.")
    if len(found) > shown:
        st.button(f"Show more of {len(found):,}", key="more-datasets", on_click=session.list_more_datasets)


def _cards(found: list[LibrarySet]) -> None:
    with st.grid("auto", min_column_width=300, gap="small") as grid:
        for one in found:
            with grid.cell(), st.container(border=True, height="stretch"):
                navigation.link_to_dataset(one.id, f"**{words.literal(title(one))}**")
                if one.ships:
                    st.markdown(words.literal(services.engine().demos()[one.name]["task"]))
                else:
                    label, color = dataset_words.light(one)
                    st.badge(label, color=color)
                st.caption(words.literal(dataset_words.facts(one)))


def title(found: LibrarySet) -> str:
    """What it is called on the screen."""
    return services.engine().demos()[found.name]["title"] if found.ships else found.name


def _lesson() -> None:
    with st.container(border=True):
        st.markdown("## Nothing of yours yet: this is what a file looks like", anchors=False)
        st.markdown(
            "Each row is one example of the behaviour you want: what is asked, and the answer you would have liked. "
            "Some goals learn from other rows: two answers of which one is better, thumbs, or prompts alone."
        )
        with st.grid("auto", min_column_width=280) as grid:
            for name, (text, note) in _EXAMPLES.items():
                with grid.cell():
                    st.markdown(f"**{name}**")
                    st.code(text, language=None, wrap_lines=True)
                    st.caption(note)
        st.download_button(
            "Download an example file",
            _example_file,
            "example.jsonl",
            "application/jsonl",
            key="example",
            icon=":material/download:",
            on_click="ignore",
            help="20 rows to look at, change and drop here.",
        )


def _example_file() -> str:
    library = services.engine().datasets
    rows: list[dict[str, Any]] = []
    for row in library.rows(library.ships()[0].id, 0, 20):
        rows.append({"prompt": row.messages[0]["content"], "completion": row.messages[-1]["content"]})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
