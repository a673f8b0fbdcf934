"""Home: what to do next, what runs, what finished lately, what this machine can do; and the welcome of a first visit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import streamlit as st

from app import navigation, services, tour
from app.components import runs, trouble, words
from app.components.wizard.goal import begin_demo
from engine import Engine
from engine.abilities import EXAMPLES, Abilities
from engine.amounts import size

if TYPE_CHECKING:
    from engine.next_steps import NextStep
    from engine.store import Job

_LATELY, _RUNNING, _OTHERS = 5, 8, 3
_DEMO = "piglatin"
_ICONS = {
    "watch": "monitoring",
    "look": "troubleshoot",
    "resume": "play_arrow",
    "draft": "edit_note",
    "improve": "trending_up",
    "chat": "chat",
    "check": "fact_check",
    "train_on": "model_training",
    "demo": "rocket_launch",
    "own": "upload_file",
}
_WORDS = {
    "watch": "Watch it",
    "look": "See what went wrong",
    "resume": "Resume",
    "draft": "Go on",
    "improve": "Open the run",
    "chat": "Chat",
    "check": "Open the data set",
    "train_on": "Train on it",
    "demo": "Start the demo",
    "own": "New training",
}


def show() -> None:
    """The welcome, or how things stand."""
    engine = services.engine()
    counts = engine.runs.counts()
    if tour.is_new(engine.settings) and not sum(counts.values()) and not engine.drafts.get().goal:
        _welcome(engine)
    else:
        st.title("Home", anchor=False)
        _next(engine)
        if counts["running"]:
            st.header("Running", anchor=False)
            st.fragment(_running, run_every=2)(counts["running"])
        _lately(engine)
    _machine(engine)


def _welcome(engine: Engine) -> None:
    st.title("Welcome to Thinker", anchor=False)
    with st.container(border=True):
        st.markdown(
            "## Thinker teaches language models from your examples.\n"
            "You bring questions with good answers, and watch a model learn from them. At the end you see proof on questions that it has "
            "never met, and chat with it.",
            anchors=False,
        )
        demo = next(goal for goal in engine.planner.goals().values() if goal.get("demo") == _DEMO)
        st.caption(f"The demo: {words.literal(demo['meaning'])} It runs on this machine, with no key, no network and no GPU.")
        with st.container(horizontal=True):
            if st.button("Start the one-minute demo", key="demo", type="primary", icon=":material/rocket_launch:"):
                begin_demo(_DEMO)
                navigation.go(navigation.WIZARD)
            if st.button("Show me around", key="tour", icon=":material/explore:", help="A tour of six short stops."):
                tour.begin(engine.settings)
                navigation.go(navigation.entry(tour.here(engine.settings).page))
            st.button("Not now", key="not-now", type="tertiary", on_click=tour.skip, args=(engine.settings,))


def _next(engine: Engine) -> None:
    first, *others = engine.next_steps.find()
    with st.container(border=True):
        st.markdown(f":gray[Next step]\n## {words.literal(first.title)}\n{words.literal(first.reason)}", anchors=False)
        _button(engine, first, "primary")
    if others := [step for step in others if step.kind != "watch"][:_OTHERS]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption("Or", width="content")
            for step in others:
                _button(engine, step, "tertiary")


def _button(engine: Engine, step: NextStep, kind: str) -> None:
    label = _WORDS.get(step.kind, step.title) if kind == "primary" else step.title
    help_text = None if kind == "primary" else words.literal(step.reason)
    icon = f":material/{_ICONS[step.kind]}:"
    key = f"next-{step.kind}-{step.about}"
    if st.button(words.literal(label), key=key, type=kind, icon=icon, help=help_text, wrap=True):  # type: ignore[call-overload]
        _do(engine, step)


def _do(engine: Engine, step: NextStep) -> None:
    if step.kind == "resume":
        trouble.attempt(lambda: engine.resume(step.about))
    if step.kind in ("watch", "look", "resume", "improve"):
        navigation.go(navigation.TRAINING, job=step.about)
    elif step.kind == "chat":
        navigation.go(navigation.PLAYGROUND, model=step.about)
    elif step.kind == "check":
        navigation.go(navigation.DATASETS, set=step.about)
    elif step.kind == "train_on":
        navigation.go(navigation.WIZARD, data=step.about)
    elif step.kind == "demo":
        begin_demo(step.about)
    navigation.go(navigation.WIZARD)


def _running(expected: int) -> None:
    with trouble.boundary():
        engine = services.engine()
        if engine.runs.counts()["running"] != expected:
            st.rerun()
        for card in engine.runs.cards("running", limit=_RUNNING):
            runs.show_card(engine, card)
        if expected > _RUNNING:
            navigation.link(navigation.TRAINING, f"All {expected:,} that run")


def _lately(engine: Engine) -> None:
    ended = engine.runs.lately(_LATELY)
    if not ended:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header("Finished lately", anchor=False, width="content")
        navigation.link(navigation.TRAINING, "All runs")
    for job in ended:
        _ended(engine, job)


def _ended(engine: Engine, job: Job) -> None:
    light = engine.light(job.state)
    with st.container(border=True), st.container(horizontal=True, vertical_alignment="center"):
        navigation.link_to_run(job.id, f"**{words.literal(job.name)}**")
        st.badge(f"● {light.label}", color=light.color)
        if job.error:
            st.markdown(f":red[{words.literal(words.sentence(job.error['message']))}]", width="content")
        said, color = words.verdict(job.result)
        if said:
            st.markdown(f":{color}[**{words.literal(said)}**] {words.literal(words.short_result(job.result))}", width="content")
        st.caption(words.ago(time.time() - (job.finished_at or job.created_at)), width="content")
        if engine.models(job.id):
            navigation.link_to_chat(job.id, "Chat")


def _machine(engine: Engine) -> None:
    found = _abilities(engine.owner)
    machine = found.machine
    st.header("This machine", anchor=False)
    with st.grid(4, min_column_width=150):
        st.metric("Processor", f"`{machine.cpus} {'core' if machine.cpus == 1 else 'cores'}`")
        st.metric("Memory free", f"`{size(machine.memory_free)}`", f"of {size(machine.memory_total)}", delta_color="off", delta_arrow="off")
        st.metric("Disk free", f"`{size(machine.disk_free)}`")
        st.metric(
            "GPU", words.literal(found.gpu) or "none", None if found.gpu else "the processor trains", delta_color="off", delta_arrow="off"
        )
    st.markdown("  \n".join(_can(found)))
    for place in found.places:
        color, word = ("green", "ready") if place.ready else ("orange", "something is missing")
        missing = ", ".join(check.label for check in place.checks if not check.met and not check.optional)
        st.markdown(f":{color}-badge[● {word}] **{words.literal(place.title)}.** {words.literal(missing or place.why)}")


def _can(found: Abilities) -> list[str]:
    room = f"It has room for an adapter (LoRA) on models of up to about **{words.count(found.fits)} parameters**"
    beside = "4 bytes each, and a quarter more for the adapter and the examples"
    if found.within_an_hour is None:
        return [f"{room} in its main memory ({beside}). How fast its GPU is shows in the first run."]
    hour = min(found.within_an_hour, found.fits)
    return [
        f"{room} ({beside}).",
        f"Models of up to about **{words.count(hour)}** go three times through {EXAMPLES} short examples within an hour, by a table of "
        "measured speeds.",
    ]


@st.cache_data(ttl=30, show_spinner=False)
def _abilities(owner: str) -> Abilities:
    """Each owner's for half a minute: asking for GPUs starts a program, and the places depend on whose keys there are."""
    return services.engine().abilities()
