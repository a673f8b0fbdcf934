"""Time travel: one prompt, answered by the base model and every checkpoint of a run, beside the held-out curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import services, session
from app.components import charts, explain, trouble, words
from engine import Engine

if TYPE_CHECKING:
    from engine.store import Job


@st.fragment
def show(job_id: str) -> None:
    """Asks, and shows what was answered; what was asked before is there again."""
    with trouble.boundary():
        engine = services.engine()
        job = engine.job(job_id)
        stops = engine.travel.stops(job.id)
        if len(stops) < 2:
            return
        st.markdown(
            "## Time travel",
            help="The same prompt, answered by the model as it was at every checkpoint. Answers are greedy (temperature 0).",
            anchors=False,
        )
        with st.form("travel", border=False):
            left, right = st.columns([4, 1], vertical_alignment="bottom")
            prompt = left.text_input("One prompt for every checkpoint", _first_prompt(engine, job), key="travel.prompt", max_chars=4000)
            asked = right.form_submit_button("Ask them all", icon=":material/history:", width="stretch")
        answers = session.travels().setdefault((job.id, prompt.strip()), {})
        if asked and set(stops) - set(answers):
            _ask(engine, job, prompt, answers)
        if answers:
            _answers(engine, job, answers)
        else:
            st.caption(f"The base model and {len(stops) - 1} checkpoint{'s' if len(stops) > 2 else ''} will answer, one after the other.")


def _ask(engine: Engine, job: Job, prompt: str, answers: dict[int, str]) -> None:
    with st.status("Waking the model", expanded=False) as status:
        for stop in engine.travel.ask(job.id, prompt, say=lambda text: status.update(label=text[:1].upper() + text[1:])):
            answers[stop.step] = stop.answer
        status.update(label=f"{len(answers)} answered", state="complete")


def _answers(engine: Engine, job: Job, answers: dict[int, str]) -> None:
    steps = sorted(answers)
    left, right = st.columns([3, 4], gap="large")
    with left:
        chosen = steps[0]
        if len(steps) > 1:
            named = [words.at_slider(_name(step)) for step in steps]
            chosen = st.select_slider("After step", steps, steps[-1], key="travel.at", format_func=dict(zip(steps, named, strict=True)).get)
        st.code(answers[chosen] or "(nothing)", language=None, wrap_lines=True)
        name = engine.runs.main_curves(job)[1]
        held_out, axis = session.run_data(job.id).curve(name), explain.axis(engine, name)
        if len(held_out) > 1:
            charts.beside(held_out, steps, axis, f"{words.sentence(axis)} against steps, with the checkpoints that were asked marked on it")
    with right:
        lines = [f"{'▸' if step == chosen else '·'} **{_name(step)}** {words.code(answers[step])}" for step in steps]
        st.markdown("  \n".join(lines))


def _first_prompt(engine: Engine, job: Job) -> str:
    samples = session.run_data(job.id).said_at(0) or engine.samples(job.id)
    return samples[0].prompt if samples else ""


def _name(step: int) -> str:
    return f"step {step:,}" if step else "base model"
