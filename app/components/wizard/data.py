"""Step 2: what it learns from. A file of one's own, a data set of the library, or an example set; and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from app import navigation, session
from app.components import dataset_words, mapping, trouble, words
from app.components.datasets import unclear
from app.components.wizard import frame
from engine import EngineError
from engine.amounts import size
from engine.recipe import DataSpec

_FIELDS = {"prompt": "What the model is asked (prompt)", "completion": "What it should answer (completion)"}


def show(draft: Any) -> None:
    """The choice, then what was chosen as the model will see it."""
    st.markdown("## What does it learn from?", anchors=False)
    st.caption("Examples of prompts with good answers. A part is kept aside, and proves afterwards what was learned.")
    own, ready = st.columns(2, gap="large")
    with own:
        key = f"upload-{session.form_generation()}"
        st.file_uploader("Your own file: JSONL, JSON, CSV or Parquet", key=key, on_change=lambda: _keep(st.session_state[key]))
        if library := frame.engine().datasets.find():
            _earlier(draft, library)
    with ready:
        st.markdown("**Or an example set**")
        for name, demo in frame.engine().demos().items():
            chosen = draft.data().get("demo") == name
            label = f"{demo['title']} ({demo['examples']['train']:,} examples)"
            icon = ":material/check:" if chosen else ":material/school:"
            st.button(label, key=f"set-{name}", icon=icon, disabled=chosen, on_click=_take, args=({"demo": name},))
            st.caption(words.literal(demo["task"]))
    frame.moves(draft, bool(draft.data()) and _content(draft), "Choose data that can be read to go on.")


def bring(dataset_id: str) -> None:
    """Starts with this data set, wherever the draft stood; the goal stays where it has one that takes own data."""

    def begin() -> None:
        engine = frame.engine()
        goals, draft, source = engine.planner.goals(), engine.drafts.get(), engine.datasets.source(dataset_id)
        own = [name for name, goal in goals.items() if "demo" not in goal]
        _take(source)
        frame.update(goal=draft.goal if draft.goal in own else own[0], step=1, expert=False)

    trouble.attempt(begin)


def _earlier(draft: Any, library: list[Any]) -> None:
    by_id = {found.id: found for found in library}
    chosen = draft.data().get("dataset")
    key = f"earlier-{session.form_generation()}"
    st.selectbox(
        "From your library",
        list(by_id),
        index=list(by_id).index(chosen) if chosen in by_id else None,
        format_func=lambda one: f"{by_id[one].name} ({by_id[one].file}, {size(by_id[one].bytes)})",
        key=key,
        placeholder="Choose a data set",
        on_change=lambda: _take({"dataset": st.session_state[key]} if st.session_state[key] else {}),
    )


def _keep(file: Any) -> None:
    if file is not None:
        trouble.attempt(lambda: _take({"dataset": frame.engine().datasets.add(file.name, file).id}))


def _take(data: dict[str, Any]) -> None:
    draft = frame.engine().drafts.get()
    # Steps that were set by hand were meant for the data that was there before.
    training = {name: value for name, value in draft.changes.get("training", {}).items() if name not in ("steps", "epochs")}
    rest = {name: value for name, value in draft.changes.items() if name not in ("data", "name", "training")}
    frame.update(changes={**rest, **({"training": training} if training else {}), "data": data})


def _content(draft: Any) -> bool:
    """What is in it. -> whether it can be learned from."""
    planner = frame.engine().planner
    kept = _kept(draft)
    if kept is not None and kept.state == "unmapped":
        st.divider()
        unclear(kept)
        mapping.form(kept)
        return False
    try:
        recipe = planner.suggest(draft.changes).recipe
        figures = planner.figures(recipe)
        seen = planner.preview(recipe)
    except EngineError as error:
        # Where the upload lies is nobody's concern; which file it is, is.
        path = draft.data().get("path", "")
        trouble.show_error(error.to_dict() | {"where": error.where.replace(path, Path(path).name) if path else error.where})
        _mapping(draft, None)
        return False
    st.divider()
    st.markdown(f"### {words.literal(figures['file'])}", anchors=False)
    with st.grid(4, min_column_width=150) as grid:
        for label, value in (
            ("To learn from", f"{figures['train']:,}"),
            ("Kept for the proof", f"{figures['held_out']:,}"),
            ("Length, median (tokens)", f"{figures['median']:,.0f}"),
            ("Longest (tokens)", f"{figures['longest']:,}"),
        ):
            with grid.cell():
                st.metric(label, value)
    share = figures["truncated"] / max(1, figures["rows"])
    columns = ", ".join(f"{field} = {column}" for field, column in figures["columns"].items() if field != column)
    layout = f"Layout: {figures['format'].replace('_', ' and ')}{f' ({columns})' if columns else ''}."
    st.caption(
        words.literal(
            f"{layout} {words.percent(share)} are cut off at {figures['max_length']:,} tokens." if figures["max_length"] else layout
        )
    )
    _problems(figures["problems"], kept.left_out if kept else 0)
    if kept is not None:
        navigation.link_to_dataset(kept.id, "Look inside: every row, its tokens, its columns")
    if draft.data().get("path"):
        _mapping(draft, figures)
    st.markdown("**The first five, as the model sees them.** :green[Green is what it learns to write]; the rest is only read.")
    for example in seen:
        with st.container(border=True):
            parts = [f":green[{_visible(text)}]" if learned else _visible(text) for text, learned in example.pieces if text]
            st.markdown(" ".join(parts))
            st.caption(f"Row {example.row:,}, {example.tokens:,} tokens")
    return True


def _visible(text: str) -> str:
    return words.literal(text[:600].replace("\n", " ↵ ")) + (" …" if len(text) > 600 else "")


def _kept(draft: Any) -> Any:
    """The data set of the library that was chosen, if one was and it's still there."""
    chosen = draft.data().get("dataset")
    return next((found for found in frame.engine().datasets.find() if found.id == chosen), None)


def _problems(problems: list[dict[str, Any]], left_out: int) -> None:
    if not problems:
        st.badge("Every row can be used", icon=":material/check:", color="green")
        return
    st.badge(
        f"{dataset_words.rows(max(len(problems), left_out))} can't be used and are left out", icon=":material/warning:", color="orange"
    )
    with st.expander("Which, and why"):
        rows = [{"where": problem["place"], "what": problem["message"], "what to do": problem["fix"]} for problem in problems[:200]]
        st.dataframe(rows, hide_index=True)


def _mapping(draft: Any, figures: dict[str, Any] | None) -> None:
    """Says which column is which, where the file leaves a choice."""
    spec = DataSpec(**draft.data())
    if not spec.path:
        return
    try:
        columns = frame.engine().planner.columns(spec)
    except EngineError:
        return
    if len(columns) < 2 or (figures and figures["format"] == "messages"):
        return
    with st.expander("Which column is which", expanded=figures is None):
        for field, label in _FIELDS.items():
            now = spec.mapping.get(field) or (figures or {}).get("columns", {}).get(field)
            key = f"map-{field}-{session.form_generation()}"
            st.selectbox(
                label,
                columns,
                index=columns.index(now) if now in columns else None,
                key=key,
                placeholder="Choose a column",
                on_change=lambda field=field, key=key: _map(draft, field, st.session_state[key]),
            )


def _map(draft: Any, field: str, column: str | None) -> None:
    mapping = {name: value for name, value in draft.data().get("mapping", {}).items() if name != field}
    if column:
        mapping[field] = column
    frame.change("data.mapping", mapping)
