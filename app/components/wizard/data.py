"""Step 2: what it learns from. A file of one's own, a data set of the library, or an example set; and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from app import navigation, session
from app.components import dataset_words, mapping, trouble, words
from app.components.datasets import unclear
from app.components.wizard import frame, goal
from engine import EngineError, Recipe
from engine.recipe import DataSpec

_FIELDS = {
    "answers": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "labels": ("prompt", "completion", "label"),
    "prompts": ("prompt", "answer"),
    "preferences": ("prompt", "chosen", "rejected", "completion", "label"),
}
_COLOURS = {
    "answers": ":green[Green is what it learns to write]; the rest is only read.",
    "pairs": "It learns to find :green[the better answer] likelier than :orange[the worse one]; the rest is only read.",
    "labels": "It learns to write more like :green[what was found good] and less like :orange[what was found bad].",
    "prompts": "It reads this and tries an answer; what it tries is judged.",
    "preferences": "It learns to score :green[the better answers] higher than :orange[the worse ones].",
}


def show(draft: Any) -> None:
    """The choice, then what was chosen as the model will see it."""
    st.markdown("## What does it learn from?", anchors=False)
    method = _method(draft)
    shape = frame.engine().planner.shape(method)
    st.caption(f"{dataset_words.shape_meaning(shape)} A part is kept aside, and proves afterwards what was learned.")
    own, ready = st.columns(2, gap="large")
    with own:
        key = f"upload-{session.form_generation()}"
        st.file_uploader("Your own file: JSONL, JSON, CSV or Parquet", key=key, on_change=lambda: _keep(st.session_state[key]))
        if library := frame.engine().datasets.find():
            _earlier(draft, library)
    with ready:
        st.markdown("**Or an example set**")
        for name, demo in frame.engine().planner.example_sets(method).items():
            chosen = draft.data().get("demo") == name
            label = f"{demo['title']} ({dataset_words.rows(demo['rows'], dataset_words.row_name(shape))})"
            icon = ":material/check:" if chosen else ":material/school:"
            st.button(label, key=f"set-{name}", icon=icon, disabled=chosen, on_click=_take, args=({"demo": name},))
            st.caption(words.literal(demo["task"]))
    frame.moves(draft, bool(draft.data()) and _content(draft), "Choose data that can be read to go on.")


def bring(dataset_id: str) -> None:
    """Starts with this data set, wherever the draft stood; the goal stays where it has one that takes own data."""

    def begin() -> None:
        engine = frame.engine()
        draft, source = engine.drafts.get(), engine.datasets.source(dataset_id)
        fitting = engine.planner.goals_for(engine.datasets.get(dataset_id).shape)
        if fitting and draft.goal not in fitting:
            goal.choose(draft, fitting[0])
        _take(source)
        frame.update(step=1, expert=False)

    trouble.attempt(begin)


def _earlier(draft: Any, library: list[Any]) -> None:
    by_id = {found.id: found for found in library}
    chosen = draft.data().get("dataset")
    key = f"earlier-{session.form_generation()}"
    st.selectbox(
        "From your library",
        list(by_id),
        index=list(by_id).index(chosen) if chosen in by_id else None,
        format_func=lambda one: f"{by_id[one].name} ({dataset_words.facts(by_id[one])})",
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
        if kept is not None:
            _other_goals(draft, kept)
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
    layout = f"Layout: {dataset_words.layout(figures['format'])}{f', with {columns}' if columns else ''}."
    st.caption(
        words.literal(
            f"{layout} {words.percent(share)} are cut off at {figures['max_length']:,} tokens." if figures["max_length"] else layout
        )
    )
    for note in figures["notes"]:
        st.info(words.literal(f"{note[0].upper()}{note[1:]}."), icon=":material/info:")
    _problems(figures["problems"], kept.left_out if kept else 0)
    if kept is not None:
        navigation.link_to_dataset(kept.id, "Look inside: every row, its tokens, its columns")
    if draft.data().get("path"):
        _mapping(draft, figures)
    st.markdown(f"**The first five, as the model sees them.** {_COLOURS[figures['shape']]}")
    for example in seen:
        with st.container(border=True):
            colour = "orange" if example.side in ("worse", "bad") else "green"
            parts = [f":{colour}[{_visible(text)}]" if learned else _visible(text) for text, learned in example.pieces if text]
            st.markdown(" ".join(parts))
            expected = f", expected: {_visible(example.expected)}" if example.expected else ""
            side = f", the {example.side} answer" if example.side else ""
            st.caption(f"Row {example.row:,}{side}, {example.tokens:,} tokens{expected}")
    return True


def _method(draft: Any) -> str:
    """The one that the goal or the recipe names."""
    goals = frame.engine().planner.goals()
    return draft.changes.get("method") or goals.get(draft.goal, {}).get("method") or Recipe().method


def _other_goals(draft: Any, kept: Any) -> None:
    """What this data set could be used for instead."""
    planner = frame.engine().planner
    others = [name for name in planner.goals_for(kept.shape) if name != draft.goal]
    if draft.goal in planner.goals_for(kept.shape) or not others:
        return
    st.caption("Goals that these rows serve:")
    with st.container(horizontal=True):
        for name in others[:4]:
            title = planner.goals()[name]["title"]
            st.button(words.literal(title), key=f"instead-{name}", on_click=goal.choose, args=(draft, name))


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
    if len(columns) < 2 or (figures and "messages" in figures["format"]):
        return
    with st.expander("Which column is which", expanded=figures is None):
        for field in _FIELDS[frame.engine().planner.shape(_method(draft))]:
            now = spec.mapping.get(field) or (figures or {}).get("columns", {}).get(field)
            key = f"map-{field}-{session.form_generation()}"
            st.selectbox(
                dataset_words.field(field),
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
