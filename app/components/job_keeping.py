"""So that nothing of a run gets lost: what can be skipped, what is kept for good, what it takes on the disk, and why it doesn't go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import trouble, words
from engine import Engine, EngineError
from engine.amounts import size
from engine.diagnosis import AREAS, Sign

if TYPE_CHECKING:
    from engine.keeping import Disk
    from engine.store import Job

_ICONS = {True: ":green[:material/check_circle:]", None: ":gray[:material/info:]", False: ":orange[:material/error:]"}


def skip_button(engine: Engine, job: Job) -> None:
    """Beside pause and stop, while there is something that can be left out."""
    if "skip" not in engine.requests(job):
        return
    st.button(
        f"Skip {job.skips}",
        key="skip",
        icon=":material/skip_next:",
        help="Leaves out what it does just now and goes on with what comes after. Nothing that it has learned is lost.",
        on_click=trouble.attempt,
        args=(lambda: engine.skip(job.id),),
    )


def diagnose_button(job: Job) -> None:
    """Looks closer at a run that doesn't go on. Outside of what is redrawn every second, which would take the dialog along."""
    wanted = job.error or job.state in ("failed", "interrupted", "needs_key")
    if wanted and st.button("Diagnose", key="diagnose", icon=":material/stethoscope:", help="Why it doesn't go on, and what to change."):
        diagnose(job.id)


@st.dialog("What keeps this run from going on", width="large")
def diagnose(job_id: str) -> None:
    """Everything that was looked at, what isn't in order first, with what to change for another try."""
    engine = services.engine()
    try:
        with st.spinner("Looking at where it trains, the disk, the memory, the data and its checkpoints"):
            found = engine.diagnosis.of(job_id)
    except EngineError as error:
        st.error(words.literal(str(error)), icon=":material/error:")
        return
    if not found.wrong:
        st.markdown("Nothing is out of order just now. If it was cut off, resume it.")
    for number, sign in enumerate(found.signs):
        _sign(job_id, number, sign)
    if found.can_resume:
        begins = "It begins anew." if found.resumes_at is None else f"It goes on from step {found.resumes_at:,}."
        st.caption(begins)
        if st.button("Resume", key="diagnose.resume", type="primary", icon=":material/play_arrow:"):
            trouble.attempt(lambda: engine.resume(job_id))
            st.rerun()


def _sign(job_id: str, number: int, sign: Sign) -> None:
    next_step = f"  \n{words.literal(sign.next_step)}" if sign.next_step else ""
    st.markdown(f"{_ICONS[sign.ok]} **{AREAS[sign.area]}:** {words.literal(sign.says)}{next_step}")
    if sign.area == "key" and sign.ok is False:
        navigation.link(navigation.SETTINGS, "Give the key")
    if sign.changes and st.button(f"Try again with {_said(sign.changes)}", key=f"diagnose.{number}", icon=":material/replay:"):
        session.wish_again(job_id, sign.changes)
        st.rerun()


def _said(changes: dict[str, Any]) -> str:
    flat = [pair for part in changes.values() if isinstance(part, dict) for pair in part.items()]
    flat += [(name, value) for name, value in changes.items() if not isinstance(value, dict)]
    shown = {name.replace("_", " "): f"{value:g}" if isinstance(value, float) else str(value) for name, value in flat}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def pin(engine: Engine, job: Job, step: int, pinned: bool) -> None:
    """Keeps what was saved at a step for good, or no more."""
    st.button(
        "Unpin" if pinned else "Pin",
        key=f"pin.{step}",
        type="tertiary",
        icon=":material/keep_off:" if pinned else ":material/keep:",
        help="Older checkpoints are deleted as the recipe says; this one may be too, then." if pinned else "Keeps it for good.",
        on_click=trouble.attempt,
        args=(lambda: engine.keeping.pin(job.id, step, not pinned),),
    )


def disk(engine: Engine, job: Job, taken: Disk) -> None:
    """What the run takes, what its policy is, and less of it."""
    if not taken.total:
        return
    kept = job.recipe.checkpoints
    parts = [(taken.going_on, "to go on from"), (taken.to_use, "to use"), (taken.undone, "undone"), (taken.backups, "backups")]
    told = ", ".join(f"`{size(count)}` {what}" for count, what in parts if count)
    policy = "All states to go on from are kept" if kept.keep_last is None else f"The last {kept.keep_last} states to go on from are kept"
    most = f", at most {kept.max_gb:g} GB in all" if kept.max_gb is not None else ""
    st.caption(f"On the disk: {told}. {policy}{most}; the best, the last and what you pin always are.")
    if not engine.moving(job) and taken.going_on + taken.undone > 0:
        with st.popover("Make room", icon=":material/delete_sweep:"):
            st.markdown("Deletes what this run doesn't need: the best, the last, the ends of stages, what is pinned and models stay.")
            st.button("States to go on from", key="tidy", on_click=_tidy, args=(job.id, False))
            st.button("Also those to use", key="tidy.all", on_click=_tidy, args=(job.id, True), help="Time travel has fewer stops then.")


def _tidy(job_id: str, samplers: bool) -> None:
    def tidy() -> None:
        pruned = services.engine().keeping.tidy(job_id, samplers=samplers)
        text = f"{pruned.count} checkpoints deleted, {size(pruned.bytes)}" if pruned.count else "There was nothing that could go"
        session.notices().append(session.Notice("done", text))
        if pruned.trouble:
            session.notices().append(session.Notice("trouble", pruned.trouble))

    trouble.attempt(tidy)


def biggest(engine: Engine) -> None:
    """The runs that take the most room, in the settings."""
    found = engine.keeping.biggest(5)
    if not found:
        return
    st.markdown("**Runs with the largest checkpoints**")
    for job, taken in found:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"`{size(taken)}`", width="content")
            navigation.link_to_run(job.id, job.name)
