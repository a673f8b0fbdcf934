"""Step 5: what was put together, in sentences; what it will take; the start, and the stages as they happen."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import navigation
from app.components import rehearsal, trouble, words
from app.components.wizard import frame
from engine import EngineError

_COLORS = {"small": "green", "moderate": "orange", "large": "red"}
_TITLES = {"time": "Time", "memory": "Memory", "money": "Money"}


def show(draft: Any) -> None:
    """The review."""
    st.markdown("## Ready to start?", anchors=False)
    planner = frame.engine().planner
    try:
        found = planner.suggest(draft.changes)
        plan = planner.plan(found.recipe)
    except EngineError as error:
        trouble.show_error(error.to_dict())
        frame.moves(draft, False)
        return
    st.markdown("  \n".join(_sentences(found.recipe, plan)))
    with st.grid(3, min_column_width=240, gap="medium") as grid:
        for estimate in plan.estimates:
            with grid.cell(), st.container(border=True, height="stretch"):
                st.markdown(f"**{_TITLES[estimate.name]}** :{_COLORS[estimate.size]}-badge[{estimate.size}]")
                st.markdown(f"### {words.literal(estimate.text)}", anchors=False)
                st.caption("  \n".join(words.literal(line) for line in estimate.assumptions))
    st.caption("Estimates: right within a factor of two or so.")
    for concern in plan.warnings:
        show_ = st.error if concern.level == "stop" else st.warning
        show_(f"**{words.literal(concern.text)}** {words.literal(concern.action)}", icon=":material/warning:")
    rehearsal.panel(found.recipe, plan)
    st.space("small")
    with st.container(horizontal=True):
        st.button("Back", key="back", icon=":material/arrow_back:", on_click=frame.update, kwargs={"step": draft.step - 1})
        if st.button("Launch", key="launch", type="primary", icon=":material/rocket_launch:"):
            _confirm(found.recipe, plan, draft.token)


def _sentences(recipe: Any, plan: Any) -> list[str]:
    figures = plan.figures
    learns = "all of its weights" if recipe.full else f"an adapter of rank {recipe.lora.rank} (LoRA)"
    passes = plan.steps * recipe.training.batch_size / max(1, figures["epoch"])
    replay = f", {figures['replay']:,} of them to keep older skills" if figures["replay"] else ""
    lines = [
        f"**{words.literal(recipe.name or figures['file'])}**: {words.literal(recipe.base_model)} "
        f"learns from {figures['train']:,} examples{replay}, "
        f"in {plan.steps:,} updates of {recipe.training.batch_size} (every example about {words.figure(passes)} times).",
        f"It trains {learns} at a learning rate of up to {words.figure(recipe.training.learning_rate)}, {_where(recipe.endpoint)}.",
    ]
    if recipe.evaluation.proof and figures["held_out"]:
        lines.append(f"Before and after, it is tested on {figures['held_out']:,} examples that it never trains on.")
    return lines


def _where(endpoint: str) -> str:
    return "on this machine" if endpoint == "local" else f"at {words.literal(frame.engine().place(endpoint))}"


@st.dialog("Start this training?")
def _confirm(recipe: Any, plan: Any, token: str) -> None:
    takes = {estimate.name: estimate.text for estimate in plan.estimates}
    time, money = (words.literal(takes.get(name, "an amount that can't be told yet")) for name in ("time", "money"))
    st.markdown(f"**{words.literal(recipe.name)}** takes {time} and costs {money}.")
    for concern in plan.warnings:
        st.markdown(f":orange[{words.literal(concern.text)}]")
    st.caption("It runs in the background; closing the browser doesn't stop it. Pause or stop it whenever you like.")
    if st.button("Start training", key="start", type="primary"):
        try:
            job = frame.engine().launch(recipe, token)
        except EngineError as error:
            trouble.show_error(error.to_dict())
            return
        frame.engine().drafts.discard(token)
        st.query_params["job"] = job.id
        st.rerun()


def show_started(job_id: str) -> None:
    """What happens now, as it happens."""
    job = frame.engine().job(job_id)
    st.title(words.literal(job.name), anchor=False)
    # Above the stages: a button that new lines push down is missed.
    if st.button("Watch it learn", key="watch", type="primary", icon=":material/monitoring:"):
        navigation.go(navigation.TRAINING, job=job_id)
    moving = frame.engine().moving(job)
    st.fragment(_stages, run_every=1 if moving else None)(job_id, moving)
    st.markdown(
        "## What happens next\n"
        "1. The model is tested as it is, on examples that it never trains on.\n"
        "2. It learns; its mistakes (the loss) get fewer, and every few steps it answers the same questions anew.\n"
        "3. The same test again: the proof of what it learned, and what it forgot.\n"
        "4. You chat with it."
    )
    st.button("Put together another", key="another", type="tertiary", on_click=lambda: st.query_params.pop("job", None))


def _stages(job_id: str, moving: bool) -> None:
    with trouble.boundary():
        engine = frame.engine()
        job = engine.job(job_id)
        if engine.moving(job) != moving:
            st.rerun()
        light = engine.light(job.state)
        st.markdown(f":{light.color}-badge[● {light.label}] Run {words.code(job.id)}")
        if job.error:
            trouble.show_error(job.error)
        lines = [event for event in engine.events(job_id) if event.kind == "stage"]
        for number, event in enumerate(lines):
            last = moving and number == len(lines) - 1
            icon = ":blue[:material/pending:]" if last else ":green[:material/check_circle:]"
            st.markdown(f"{icon} {words.literal(event.text)}")
        if job.total_steps:
            st.progress(job.fraction, text=f"Step {job.step:,} of {job.total_steps:,}")
