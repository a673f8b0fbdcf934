"""All runs at a glance, and what to see before there are any."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import trouble, words
from engine import Engine
from engine.amounts import duration

if TYPE_CHECKING:
    from engine.store import Job

_OWN_DATA = "Your own data, from a terminal: `python thinker.py train my_data.jsonl --background`. The run appears here."


def show() -> None:
    """The list, or the lesson; redrawn while anything moves."""
    engine = services.engine()
    jobs = engine.jobs(limit=session.runs_listed() + 1)
    st.title("Training", anchor=False)
    if not jobs:
        _lesson(engine)
        return
    with st.container(horizontal=True):
        done = {job.recipe.data.demo for job in jobs}
        for name, demo in engine.demos().items():
            st.button(
                demo["title"] + " again" * (name in done), key=f"demo-{name}", icon=":material/play_arrow:", on_click=_launch, args=(name,)
            )
    st.caption(_OWN_DATA)
    moving = any(engine.moving(job) for job in jobs)
    st.fragment(_list, run_every=2 if moving else None)(moving)


def _lesson(engine: Engine) -> None:
    st.markdown("Nothing has been trained yet. The quickest way to see how it goes:")
    (name, demo), *others = engine.demos().items()
    card, steps = st.columns([5, 3], gap="large")
    with card, st.container(border=True):
        _demo(name, demo, f"{demo['title']} (one-minute demo)", "primary")
    with steps:
        counts = demo["examples"]
        st.markdown("#### What you will see", anchors=False)
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
    st.markdown(f"#### {words.literal(demo['title'])}", anchors=False)
    st.markdown(f"**The task.** {words.literal(demo['task'])}")
    st.markdown(f"**What is learned.** {words.literal(demo['learns'])}")
    st.markdown(f"**What to expect.** {words.literal(demo['expect'])}")
    st.button(label, key=f"demo-{name}", type=kind, icon=":material/play_arrow:", on_click=_launch, args=(name,))


def _launch(demo: str) -> None:
    def launch() -> None:
        engine = services.engine()
        st.query_params["job"] = engine.launch(engine.demo_recipe(demo)).id

    trouble.attempt(launch)


def _list(moving: bool) -> None:
    with trouble.boundary():
        engine = services.engine()
        shown = session.runs_listed()
        jobs = engine.jobs(limit=shown + 1)
        if any(engine.moving(job) for job in jobs) != moving:
            st.rerun()
        for job in jobs[:shown]:
            _card(engine, job)
        if len(jobs) > shown:
            st.button("Show more", key="more", on_click=session.list_more_runs)


def _card(engine: Engine, job: Job) -> None:
    light = engine.light(job.state)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            navigation.link_to_run(job.id, f"**{words.literal(job.name)}**")
            st.badge(f"● {light.label}", color=light.color)
            st.caption(f"{words.literal(job.base_model)} · {words.ago(time.time() - job.created_at)} · {job.id}", width="content")
        if engine.moving(job) or (job.total_steps and job.step < job.total_steps):
            left = engine.pace(job).seconds_left
            more = f" · about {duration(round(left))} left" if left is not None and engine.moving(job) else ""
            total = f" of {job.total_steps:,}" if job.total_steps else ""
            st.progress(job.fraction, text=f"Step {job.step:,}{total}{more}")
        if found := words.short_result(job.result):
            st.markdown(words.literal(found))
        if job.error:
            st.markdown(f":red[{words.literal(job.error['message'])}]")
