"""All runs at a glance, and what to see before there are any."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import address, navigation, services, session
from app.components import charts, choices, explain, trouble, words
from engine import Engine, EngineError, knowledge
from engine.amounts import duration
from engine.runs import GROUPS

if TYPE_CHECKING:
    from engine.runs import Card
    from engine.store import Job

_OWN_DATA = "Your own data, from a terminal: `python thinker.py train my_data.jsonl --background`. The run appears here."
_ALL = "all"


def show() -> None:
    """The list, or the lesson; redrawn while anything moves."""
    engine = services.engine()
    counts = engine.runs.counts()
    st.title("Training", anchor=False)
    if not sum(counts.values()):
        _lesson(engine)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        done = engine.runs.demos_run()
        for name, demo in engine.demos().items():
            _start(name, demo["title"] + " again" * (name in done))
        with st.popover("Other ways to learn", icon=":material/play_arrow:"):
            for name, demo in knowledge.method_demos().items():
                _start(name, demo["title"])
                st.caption(words.literal(demo["task"]))
        navigation.link(navigation.ANALYTICS, "Compare runs")
    st.caption(_OWN_DATA)
    st.fragment(_list, run_every=2 if counts["running"] else None)(bool(counts["running"]))


def _lesson(engine: Engine) -> None:
    st.markdown("Nothing has been trained yet. The quickest way to see how it goes:")
    (name, demo), *others = engine.demos().items()
    card, steps = st.columns([5, 3], gap="large")
    with card, st.container(border=True):
        _demo(name, demo, f"{demo['title']} (one-minute demo)", "primary")
    with steps:
        counts = demo["examples"]
        st.markdown("## What you will see", anchors=False)
        st.markdown(
            f"1. **A test before.** The model is asked {counts['held_out']:,} questions that it will never be trained on.\n"
            f"2. **Learning, live.** It goes through {counts['train']:,} examples; its mistakes (the loss) get fewer, and every few "
            "steps it answers the same questions anew.\n"
            "3. **The proof.** The same test again, and one for what it may have forgotten.\n"
            "4. **A chat** with the model that came of it."
        )
        st.caption("All on this machine: no GPU, no key and no network needed.")
    st.markdown("Or something else:")
    for row in range(0, len(others), 2):
        for column, (name, demo) in zip(st.columns(2), others[row : row + 2], strict=False):
            with column, st.container(border=True):
                _demo(name, demo, demo["title"], "secondary")
    st.caption(_OWN_DATA)


def _demo(name: str, demo: dict[str, Any], label: str, kind: Any) -> None:
    st.markdown(f"## {words.literal(demo['title'])}", anchors=False)
    st.markdown(f"**The task.** {words.literal(demo['task'])}")
    st.markdown(f"**What is learned.** {words.literal(demo['learns'])}")
    st.markdown(f"**What to expect.** {words.literal(demo['expect'])}")
    _start(name, label, kind)


def _start(name: str, label: str, kind: Any = "secondary") -> None:
    st.button(label, key=f"demo-{name}", type=kind, icon=":material/play_arrow:", on_click=_launch, args=(name,))


def _launch(demo: str) -> None:
    def launch() -> None:
        engine = services.engine()
        st.query_params["job"] = engine.launch(engine.demo_recipe(demo)).id

    trouble.attempt(launch)


def _list(moving: bool) -> None:
    with trouble.boundary():
        engine = services.engine()
        group, search = _filters(engine)
        shown = session.runs_listed()
        cards = engine.runs.cards(group, search, limit=shown + 1)
        if bool(engine.runs.counts()["running"]) != moving:
            st.rerun()
        if not cards:
            st.info("No run is like that. Choose another state, or search for something else.", icon=":material/search_off:")
        for card in cards[:shown]:
            show_card(engine, card)
        if len(cards) > shown:
            st.button("Show more", key="more", on_click=session.list_more_runs)


def _filters(engine: Engine) -> tuple[str, str]:
    """(state, text) to show; both stand in the address."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input(
            "Search", key="search", bind="query-params", placeholder="Name, id, model or method", icon=":material/search:", width=280
        )
        counts = engine.runs.counts(search)
        labels = {_ALL: f"all {sum(counts.values()):,}"} | {group: f"{group} {counts[group]:,}" for group in GROUPS if counts[group]}
        groups = [_ALL, *GROUPS]
        chosen = choices.pills(
            "State",
            groups,
            default=address.chosen("state", groups, _ALL),
            key="list.state",
            on_change=address.keep,
            args=("state", "list.state", _ALL),
            format_func=lambda group: labels.get(group, f"{group} 0"),
            wrap=True,
        )
    return ("" if chosen in (None, _ALL) else chosen), search.strip()


def show_card(engine: Engine, card: Card) -> None:
    """One run: where it is, the curve that it is judged by in miniature, its main figures, what came of it."""
    job, light = card.job, engine.light(card.job.state)
    moving = engine.moving(job)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            navigation.link_to_run(job.id, f"**{words.literal(job.name)}**")
            st.badge(f"● {light.label}", color=light.color)
            about = f"{_methods(job)} · {words.literal(job.base_model)} · {words.ago(time.time() - job.created_at)} · {job.id}"
            st.caption(about, width="content")
            st.space("stretch")
            if picture := charts.sparkline(card.curve, charts.BLUE if moving else charts.TEAL):
                title, unit = explain.title(engine, card.metric)
                first, now = (words.measure(card.curve[end], unit) for end in (0, -1))
                st.image(picture, width=140, alt=f"{title} over the steps, from {first} to {now}")
            if said := " · ".join(f"{words.literal(one.short)} `{one.text}`" for one in card.figures):
                st.caption(said, width="content")
        if moving or (job.total_steps and job.step < job.total_steps):
            pace = engine.pace(job)
            parts = [f"Step {job.step:,}" + (f" of {job.total_steps:,}" if job.total_steps else "")]
            if moving and pace.seconds_left is not None:
                parts.append(f"about {duration(round(pace.seconds_left))} left")
            if moving and pace.tokens_per_second:
                parts.append(f"{pace.tokens_per_second:,.0f} tokens/s")
            if card.spent:
                parts.append(words.literal(card.spent))
            if card.last_line:
                parts.append(words.literal(card.last_line[:120]))
            st.progress(job.fraction, text=" · ".join(parts))
        elif card.spent:
            st.caption(words.literal(card.spent))
        if found := words.short_result(job.result):
            st.markdown(words.literal(found))
        if job.error:
            st.markdown(f":red[{words.literal(words.sentence(job.error['message']))}]")


def _methods(job: Job) -> str:
    """SFT, or SFT → DPO for a run of two stages."""
    try:
        return " → ".join(words.literal(words.acronym(knowledge.method(stage.recipe.method)["term"])) for stage in job.recipe.stages())
    except EngineError:
        return job.method.upper()
