"""What follows one another in one run: stages, each with its method, data and main settings, to add, take out, change and put in another
order. What is done to them goes to engine.stages; knows no recipe's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services, session
from app.components import fields, judges, rewards, trouble, words
from engine import EngineError, knowledge
from engine.advice import PRESUPPOSING
from engine.recipe import METHODS

if TYPE_CHECKING:
    from engine.staging import Staged

_USUAL = ("training.steps", "training.learning_rate", "training.batch_size")
_ASKED = ("distill.teacher", "distill.teacher_url")


def show(place: str = "wizard") -> None:
    """The stages of the draft; the first's settings stand elsewhere on the page."""
    engine = services.engine()
    try:
        stages = engine.stages.list()
    except EngineError as error:
        trouble.show_error(error.to_dict())
        return
    if not stages:
        st.caption("Choose data first: what follows can be said then.")
        return
    st.caption(
        "A run can do several things one after the other, each with what the one before it learned: such as learning from examples first, "
        "then from preferences. The proof at the end compares with the model as it was before all of them."
    )
    for stage in stages:
        _stage(stage, len(stages), place)
    _more(stages, place)


def method_title(name: str) -> str:
    """Learn from preferences (DPO)."""
    known = knowledge.method(name)
    return f"{known['title']} ({words.acronym(known['term'])})"


def part_fields(stage: Any, changed: Any, reasons: dict[str, Any], place: str) -> None:
    """The fields that only this recipe's method reads; its score has an editor of its own."""
    values = stage.model_dump(mode="json")
    own = [name for name, field in fields.described().items() if stage.method in field["methods"]]
    with st.grid(2, min_column_width=300, gap="medium") as grid:
        for name in own:
            if name not in rewards.USES:
                with grid.cell():
                    one_field(name, values, changed, reasons, place)
    if rewards.REWARD.field in own:
        rewards.show(stage.model_dump(mode="json", exclude_defaults=True), changed, place)


def one_field(name: str, values: dict[str, Any], changed: Any, reasons: dict[str, Any], place: str) -> None:
    """A field of a recipe's plain values; a teacher is chosen among what there is, and a program can begin with an example."""
    if name in _ASKED:
        _asked(name, values, changed, place)
    else:
        fields.show(name, fields.value_of(values, name), changed, advice=reasons.get(name), place=place)
    if name == "own_loss.code" and not values["own_loss"]["code"].strip():
        key = f"{place}-own-loss-example"
        st.button("Begin with an example", key=key, icon=":material/edit_note:", on_click=_example, args=(changed,))


def _example(changed: Any) -> None:
    session.renew_forms()
    changed("own_loss.code", knowledge.method("own_loss")["example"])


def _asked(name: str, values: dict[str, Any], changed: Any, place: str) -> None:
    """Who teaches, and where: chosen among what there is."""
    key, label = f"{place}-{name}-{session.form_generation()}", words.label(fields.described()[name]["help"].rstrip("."))
    value, url = fields.value_of(values, name), values["distill"]["teacher_url"]
    if name == "distill.teacher":
        judges.model_field(label, value, url, key, lambda typed: changed(name, typed), nobody="the model that the run starts from")
        return

    def elsewhere(typed: str) -> None:
        session.renew_forms()
        changed(name, typed)

    judges.url_field(label, value, key, elsewhere)
    if url:
        judges.key_of(url, key)


def _stage(stage: Staged, count: int, place: str) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Stage {stage.number}: {words.literal(method_title(stage.recipe.method))}**", width="stretch")
            if count > 1:
                _order(stage, count)
        st.caption(_said(stage))
        if stage.error:
            trouble.show_error(stage.error)
        if stage.number > 1:
            _settings(stage, f"{place}-stage{stage.number}")


def _said(stage: Staged) -> str:
    if stage.error:
        return "It can't be done like this yet."
    rows = f"{stage.rows:,} rows of {words.literal(stage.data.get(stage.source, stage.source))}"
    here = "" if stage.number > 1 else " Its settings are those of this page."
    return f"{stage.steps:,} updates on {rows}.{here}"


def _order(stage: Staged, count: int) -> None:
    engine, number = services.engine(), stage.number

    def act(what: Any, *args: Any) -> None:
        session.renew_forms()
        trouble.attempt(lambda: what(*args))

    for label, icon, by, off in (
        ("Earlier", "arrow_upward", -1, number == 1),
        ("Later", "arrow_downward", 1, number == count),
    ):
        key = f"stage-{label.lower()}-{number}"
        st.button(
            label, key=key, icon=f":material/{icon}:", type="tertiary", disabled=off, on_click=act, args=(engine.stages.move, number, by)
        )
    st.button(
        "Take out",
        key=f"stage-remove-{number}",
        icon=":material/delete:",
        type="tertiary",
        on_click=act,
        args=(engine.stages.remove, number),
    )


def _settings(stage: Staged, place: str) -> None:
    def changed(field: str, value: Any) -> None:
        trouble.attempt(lambda: services.engine().stages.change(stage.number, field, value))

    def chosen(field: str, key: str) -> None:
        session.renew_forms()
        changed(field, st.session_state[key])

    left, right = st.columns(2, gap="medium")
    key = f"{place}-method-{session.form_generation()}"
    with left:
        st.selectbox(
            "How it learns (method)",
            METHODS,
            index=METHODS.index(stage.recipe.method),
            format_func=method_title,
            key=key,
            on_change=chosen,
            args=("method", key),
        )
    key_of_data = f"{place}-data-{session.form_generation()}"
    with right:
        st.selectbox(
            "What it learns from",
            list(stage.data),
            index=list(stage.data).index(stage.source) if stage.source in stage.data else None,
            format_func=lambda one: stage.data[one],
            key=key_of_data,
            placeholder="Choose data",
            help=f"Data whose rows this method can learn from: {knowledge.shapes()[knowledge.shape(stage.recipe.method)]['title']}.",
            on_change=chosen,
            args=("data", key_of_data),
        )
    values = stage.recipe.model_dump(mode="json")
    with st.grid(3, min_column_width=200, gap="medium") as grid:
        for name in _USUAL:
            with grid.cell():
                fields.show(name, fields.value_of(values, name), changed, advice=stage.reasons.get(name), place=place)
    if any(stage.recipe.method in field["methods"] for field in fields.described().values()):
        more = st.expander(f"{fields.PARTS.get(stage.recipe.method, 'Of this method')}", key=f"{place}-more", on_change="rerun")
        if more.open:
            with more:
                part_fields(stage.recipe, changed, stage.reasons, place)


def _more(stages: list[Staged], place: str) -> None:
    engine = services.engine()
    key = f"{place}-add-{session.form_generation()}"

    def add() -> None:
        if method := st.session_state[key]:
            session.renew_forms()
            trouble.attempt(lambda: engine.stages.add(method))

    def first() -> None:
        session.renew_forms()
        trouble.attempt(lambda: engine.stages.put_first("sft"))

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Then, in the same run",
            METHODS,
            index=None,
            format_func=method_title,
            key=key,
            placeholder="Add a stage that …",
            on_change=add,
            width=420,
        )
        if stages[0].recipe.method in PRESUPPOSING:
            st.button("Learn from examples first", key=f"{place}-first", icon=":material/first_page:", on_click=first)
