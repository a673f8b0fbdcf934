"""Step 5: what was put together, in sentences; what it will take; the start, and the stages as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation
from app.components import rehearsal, trouble, words
from app.components.wizard import frame
from engine import EngineError

if TYPE_CHECKING:
    from engine.store import Job

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
    st.markdown("\n\n".join(_sentences(found.recipe, plan)))
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
    learns = "all of its weights" if recipe.full else f"an adapter of rank {recipe.lora.rank} (LoRA)"
    where = _where(recipe.endpoint)
    first, *later = plan.stages
    name, model = words.literal(recipe.name or first.figures["file"]), words.literal(recipe.base_model)
    if not later:
        lines = [f"**{name}**: {model} {_stage(first)}."]
        lines.append(f"It trains {learns} at a learning rate of up to {words.figure(recipe.training.learning_rate)}, {where}.")
    else:
        lines = [f"**{name}**: {model} goes through {len(plan.stages)} stages, {plan.steps:,} updates in all. It trains {learns}, {where}."]
        for number, stage in enumerate(plan.stages, 1):
            begin = "First it" if number == 1 else "Then it" if stage.goes_on else "Then the same model, from the beginning,"
            rate = words.figure(stage.recipe.training.learning_rate)
            how = words.acronym(frame.engine().explain_method(stage.recipe.method)["term"])
            lines.append(f"{number}. {begin} {_stage(stage)}, at a learning rate of up to {rate} ({words.literal(how)}).")
    proven = plan.stages[-1]
    if recipe.evaluation.proof and proven.figures["held_out"]:
        lines.append(f"Before and after, it is tested on {proven.figures['held_out']:,} examples that it never trains on.")
    return lines


def _stage(stage: Any) -> str:
    """What one stage does, after "it"."""
    recipe, figures = stage.recipe, stage.figures
    batch = recipe.training.batch_size
    passes = stage.steps * batch / max(1, figures["epoch"])
    updates = f"in {stage.steps:,} updates of {batch}"
    replay = f", {figures['replay']:,} of them to keep older skills" if figures["replay"] and recipe.method == "sft" else ""
    each = f"(about {100 * passes:.0f} % of them)" if passes < 0.95 else f"(every example about {passes:.2g} times)"
    if recipe.method == "rl":
        tried = f"{recipe.rl.group_size} answers to each of {batch} prompts an update"
        return f"tries {tried}, for {stage.steps:,} updates, and learns from what each scores ({figures['train']:,} prompts)"
    if recipe.method == "distill":
        teacher = words.literal(recipe.distill.teacher) or "itself, with a prompt that only the teacher is told"
        return f"learns from a teacher ({teacher}) on {figures['train']:,} prompts, {updates}"
    kind = {"pairs": "pairs of a better and a worse answer", "labels": "answers found good or bad"}.get(figures["shape"], "examples")
    does = "learns to score from" if recipe.method == "reward_model" else "learns from"
    return f"{does} {figures['train']:,} {kind}{replay}, {updates} {each}"


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
    _what_comes(job)
    st.button("Put together another", key="another", type="tertiary", on_click=lambda: st.query_params.pop("job", None))


def _what_comes(job: Job) -> None:
    runs, recipe = frame.engine().runs, job.recipe
    goes = "its score rises" if runs.better(runs.main_curves(job)[1]) == "up" else "its mistakes (the loss) get fewer"
    lines = [f"It learns; {goes}, and every few steps it answers the same questions anew."]
    if recipe.evaluation.proof:
        lines.insert(0, "The model is tested as it is, on examples that it never trains on.")
        lines.append("The same test again: the proof of what it learned, and what it forgot.")
    scores = recipe.stages()[-1].recipe.method == "reward_model"
    lines.append("Other runs can learn from the scores that it gives." if scores else "You chat with it.")
    st.markdown("## What happens next\n" + "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)))


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
