"""One data set: its figures, its rows, what a model sees of them, what was left out; to rename, download, read anew and delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import address, navigation, services, session
from app.components import charts, dataset_rows, dataset_words, mapping, trouble, words
from app.components.datasets import accept_button, title, troubles, unclear

if TYPE_CHECKING:
    from engine.library import Library
    from engine.store import LibrarySet

_VIEWS = {"rows": "Rows", "seen": "What the model sees", "figures": "Figures", "left_out": "Left out", "columns": "Columns"}


def show(dataset_id: str) -> None:
    """The data set of that id. Raises NotFound."""
    library = services.engine().datasets
    found = library.get(dataset_id)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(words.literal(title(found)), anchor=False, width="content")
        label, color = dataset_words.light(found)
        st.badge(label, color=color)
    st.caption(words.literal(f"{found.file} · {dataset_words.facts(found)}"))
    _actions(library, found)
    if found.state == "unmapped":
        unclear(found)
        st.markdown("## Which column is which?", anchors=False)
        mapping.form(found)
        return
    if found.shape != "answers":
        st.markdown(f"**{dataset_words.shape_title(found.shape)}.** :gray[{dataset_words.shape_meaning(found.shape)}]")
    if found.state == "check":
        with st.container(border=True):
            troubles(library, found, most=3)
            accept_button(found, "accept")
    model = _model(library)
    with trouble.boundary():
        _figures_at_a_glance(found, library.lengths(found.id, model), model)
    views = [view for view in _VIEWS if (view != "left_out" or found.left_out) and (view != "columns" or not found.ships)]
    # What a button has chosen goes before the address, and Streamlit warns where both are given.
    asked = "rows" if "view" in st.session_state else address.chosen("view", views, "rows")
    view = st.radio(
        "View",
        views,
        horizontal=True,
        format_func=lambda one: f"{_VIEWS[one]} ({found.left_out:,})" if one == "left_out" else _VIEWS[one],
        index=views.index(asked),
        key="view",
        on_change=address.keep,
        args=("view", "view", "rows"),
        label_visibility="collapsed",
    )
    with trouble.boundary():
        if view == "seen":
            dataset_rows.seen(library, found, model)
        elif view == "figures":
            _figures(found, library.lengths(found.id, model), model)
        elif view == "left_out":
            _left_out(library, found)
        elif view == "columns":
            mapping.form(found)
        else:
            dataset_rows.browse(library, found)


def _model(library: Library) -> str:
    known = library.base_models()
    if len(known) == 1:
        return known[0]
    return st.selectbox(
        "Lengths in tokens of", known, key="tokens_of", bind="query-params", help="Each model cuts text into tokens in its own way."
    )


def _actions(library: Library, found: LibrarySet) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if found.state != "unmapped":
            navigation.link_to_training_on(found.id, "Train on this")
        with st.popover("Download", icon=":material/download:"):
            st.download_button(
                "As it came", lambda: library.original(found.id)[1], found.file, key="original", on_click="ignore", width="stretch"
            )
            if found.state != "unmapped":
                st.download_button(
                    "As chats (JSONL)" if found.shape == "answers" else "Usable rows (JSONL)",
                    lambda: library.as_chats(found.id)[1],
                    f"{found.file.rpartition('.')[0] or found.file}.chats.jsonl",
                    key="chats",
                    on_click="ignore",
                    width="stretch",
                    help="The usable rows alone, in the form that most tools read.",
                )
        if found.ships:
            return
        with st.popover("Rename", icon=":material/edit:"), st.form("rename", border=False):
            name = st.text_input("Name", found.name, max_chars=120)
            if st.form_submit_button("Rename"):
                trouble.attempt(lambda: library.rename(found.id, name), "Renamed")
                st.rerun()
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown("Delete this data set and its file for good? Models that learned from it stay.")
            st.button("Delete for good", key="delete", on_click=_delete, args=(found.id, found.name))
    _used_by(library, found)


def _used_by(library: Library, found: LibrarySet) -> None:
    runs = library.used_by(found.id)
    if not runs:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Runs on it:", width="content")
        for job in runs[:5]:
            navigation.link_to_run(job.id, words.literal(job.name))
        if len(runs) > 5:
            st.caption(f"and {len(runs) - 5:,} more", width="content")


def _delete(dataset_id: str, name: str) -> None:
    def delete() -> None:
        services.engine().datasets.delete(dataset_id)
        session.found_rows().clear()
        st.query_params.clear()

    trouble.attempt(delete, f"{name} is deleted")


def _figures_at_a_glance(found: LibrarySet, known: dict[str, Any], model: str) -> None:
    tokens = f"In tokens of {model}: the pieces that it reads and writes, often about four letters of English each."
    figures = [
        (f"{dataset_words.row_name(found.shape).capitalize()}s", f"{found.examples:,}", dataset_words.shape_meaning(found.shape)),
        ("Left out", f"{found.left_out:,}" if found.left_out else None, "Rows that can't be used, and why, is below."),
        ("Typical length", f"{known['median']:,.0f} tokens", f"Half of the rows are shorter (median). {tokens}"),
        ("95 % are within", f"{known['p95']:,} tokens", tokens),
        (
            "Cut off",
            words.percent(known["over"] / max(1, known["measured"])),
            f"Rows over the {known['limit']:,} tokens that {model} can look at.",
        ),
    ]
    with st.container(horizontal=True, gap="medium"):
        for label, value, meaning in figures:
            if value:
                st.metric(label, f"`{value}`", help=meaning, width="content")


def _figures(found: LibrarySet, known: dict[str, Any], model: str) -> None:
    finding = dataset_words.lengths_finding(known, model)
    st.markdown(f"## {finding}", anchors=False)
    if known["histogram"]:
        charts.bars(known["histogram"], "tokens in a row", "rows", known["limit"] if known["over"] else None, f"{finding}.")
    if known["measured"] < known["rows"]:
        st.caption(f"Measured on {known['measured']:,} of {known['rows']:,} rows, spread evenly.")
    if known["refusal"]:
        share = dataset_words.rows(known["refused"])
        refusal = known["refusal"]
        st.warning(
            f"{share} can't be shown to {words.literal(model)}: {words.literal(refusal['message'])}. {words.literal(refusal['next_step'])}"
        )
    st.markdown("## What to know of it", anchors=False)
    for fact, meaning in dataset_words.remarks(found, known):
        st.markdown(f"**{words.literal(fact)}.** :gray[{words.literal(meaning)}]")


def _left_out(library: Library, found: LibrarySet) -> None:
    kept = library.problems(found.id)
    troubles(library, found, most=50)
    rows = [{"where": problem["place"], "what is wrong": problem["message"], "what to do": problem["fix"]} for problem in kept["problems"]]
    st.dataframe(rows, hide_index=True, alt="Each row that was left out, what is wrong with it and what to do")
    if found.left_out > len(rows):
        st.caption(f"The first {len(rows):,} of {found.left_out:,}.")
    st.caption("Correct them in your file and drop it again: it becomes a data set of its own.")
