"""One run, live: how far it is, its curves, what the model says now, its log and checkpoints, and what can be asked of it.

A single timed fragment redraws it once a second while the run moves; when the run comes to rest, one rerun of the page ends the timer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session, shortcuts
from app.components import (
    explain,
    job_cost,
    job_curves,
    job_dialogs,
    job_keeping,
    job_record,
    proof,
    rehearsal,
    rollouts,
    travel,
    trouble,
    words,
)
from app.run_data import metrics_csv
from engine import Engine
from engine.amounts import duration
from engine.errors import NotFound

if TYPE_CHECKING:
    from engine.chapters import Chapter
    from engine.store import Job


def show(job_id: str) -> None:
    """The run of that id, and its view of itself from then on. Raises NotFound."""
    engine = services.engine()
    try:
        job = engine.job(job_id)
    except NotFound:
        navigation.link(navigation.TRAINING, "← All runs")
        raise
    moving = engine.moving(job)
    _toolbar(job)
    if wish := session.take_wish():
        job_dialogs.again(*wish)
    st.fragment(_view, run_every=1 if moving else None)(job.id, moving)
    travel.show(job.id)


def _toolbar(job: Job) -> None:
    """Outside of what is redrawn every second, which would take an open dialog along."""
    with st.container(horizontal=True, vertical_alignment="center"):
        navigation.link(navigation.TRAINING, "← All runs")
        if st.button(
            "Train again with changes", key="again", icon=":material/replay:", help="A new run like this one: another rate, rank, seed …"
        ):
            job_dialogs.again(job.id, {})
        if st.button("Rename", key="rename", icon=":material/edit:"):
            job_dialogs.rename(job.id, job.name)
        if st.button(
            "Copy as …", key="copy", icon=":material/terminal:", help="The same run as a command, a recipe file or a Python script."
        ):
            job_dialogs.copy(job)
        job_keeping.diagnose_button(job)
        navigation.link_to_comparison([job.id], "Compare")
        if st.button("Guide", key="guide", icon=":material/menu_book:", help="What the settings and numbers mean."):
            explain.whole_guide()


def _view(job_id: str, moving: bool) -> None:
    with trouble.boundary():
        engine = services.engine()
        try:
            job = engine.job(job_id)
        except NotFound:
            # Deleted elsewhere: the page says so, and asks no more.
            st.rerun()
        if engine.moving(job) != moving:
            st.rerun()
        if moving:
            # Whether anybody still carries it can't be told by this clock, which may have been set.
            engine.revive()
        data = session.run_data(job.id)
        data.update(engine, job)
        if session.wished():
            # A dialog can only be opened by the page itself.
            st.rerun()
        trouble.show_notices()
        chapters = engine.runs.chapters(job)
        _header(engine, job, chapters)
        if question := engine.runs.question(job):
            st.warning(words.literal(words.sentence(question)) + ".", icon=":material/help:")
        if job.error:
            trouble.show_error(job.error, waits=job.state in ("needs_key", "paused", "stopped"))
            if job.state == "needs_key":
                navigation.link(navigation.SETTINGS, "Give the key")
            job_cost.raise_limit(engine, job)
        if job.result:
            proof.show(engine, job, data.curves, chapters)
        # A run that failed before its first step has nothing to draw, and never will.
        if moving or data.curves or data.samples:
            if data.curves:
                job_curves.doctor(engine, job, data)
            shown: list[tuple[str, str]] = []
            _side_by_side(lambda: shown.append(job_curves.main(engine, job, data, chapters)), lambda: job_record.said(job, data))
            job_record.said_table(data)
            rollouts.show(engine, job)
            job_curves.others(engine, job, data, chapters, shown[0])
        _side_by_side(lambda: job_record.log(engine, job), lambda: job_record.checkpoints(engine, job, data))


def _side_by_side(main: Callable[[], None], aside: Callable[[], None]) -> None:
    left, right = st.columns([5, 3], gap="large")
    with left:
        main()
    with right:
        aside()


def _header(engine: Engine, job: Job, chapters: list[Chapter]) -> None:
    light = engine.light(job.state)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(words.literal(job.name), anchor=False, width="content")
        st.badge(f"● {light.label}", color=light.color)
    doing = job.stage if engine.moving(job) and job.stage and job.stage != light.label else ""
    place = words.literal(engine.place(job.endpoint))
    st.caption(f"{_methods(engine, job, chapters)} · model {words.literal(job.base_model)} · {place} · run {job.id}")
    rehearsal.badge(engine, job)
    total = f" of {job.total_steps:,}" if job.total_steps else ""
    text = f"Step {job.step:,}{total}" + (f" · {words.literal(doing)}" if doing else "")
    if engine.moving(job) or job.step < job.total_steps:
        st.progress(job.fraction, text=text)
    pace = engine.pace(job)
    figures = [
        (
            "Time left",
            f"about {duration(round(pace.seconds_left))}" if pace.seconds_left is not None else None,
            "Of training, at the pace so far.",
        ),
        (
            "Speed",
            f"{pace.tokens_per_second:,.0f} tokens/s" if pace.tokens_per_second else None,
            explain.meaning(engine, "tokens_per_second"),
        ),
        *((one.title, one.text, explain.meaning(engine, one.name)) for one in engine.runs.figures(job)),
    ]
    job_cost.line(engine, job)
    if engine.moving(job) or not job.result:
        with st.container(horizontal=True, gap="medium"):
            for label, value, meaning in figures:
                if value:
                    st.metric(label, f"`{value}`", help=meaning, width="content")
    _buttons(engine, job)


def _methods(engine: Engine, job: Job, chapters: list[Chapter]) -> str:
    """What it learns by; of several stages all, the present one in bold."""
    if len(chapters) < 2:
        method = engine.explain_method(chapters[0].method if chapters else job.method)
        return words.literal(f"{method['title']}: {method['term']}")
    now = engine.runs.present(job, chapters)
    told = []
    for one in chapters:
        said = words.literal(f"{one.number} {one.title}, {words.acronym(one.term)}") + (f", {one.steps:,} steps" if one.steps else "")
        told.append(f"**{said}**" if engine.moving(job) and one is now else said)
    return " → ".join(told)


def _buttons(engine: Engine, job: Job) -> None:
    possible = engine.requests(job)
    with st.container(horizontal=True):
        if "resume" in possible and not job_cost.at_limit(job):
            help_text = f"Goes on from step {job.step:,}, or from the last checkpoint before it."
            kind = "secondary" if job.error else "primary"
            _button("Resume", "play_arrow", engine.resume, job, kind=kind, help_text=help_text, shortcut=shortcuts.HOLD)
        if "pause" in possible:
            help_text = "Within a step; what it has learned is saved."
            _button("Pause", "pause", engine.pause, job, help_text=help_text, shortcut=shortcuts.HOLD)
        if "stop" in possible:
            _button("Stop and keep", "stop", engine.stop, job, help_text="Ends here, and keeps what it has learned.")
        job_keeping.skip_button(engine, job)
        st.download_button(
            "Metrics (CSV)",
            lambda: metrics_csv(engine, job.id),
            f"{_file_name(job.name)}-{job.id}.csv",
            "text/csv",
            key="csv",
            icon=":material/download:",
            on_click="ignore",
            help="One row a step, one column a metric.",
        )
        if "delete" in possible:
            with st.popover("Delete", icon=":material/delete:"):
                st.markdown("Delete this run with its curves and log for good? Models that came of it stay.")
                st.button("Delete for good", key="delete", on_click=_delete, args=(job.id, job.name))


def _button(label: str, icon: str, action: Any, job: Job, *, kind: Any = "secondary", help_text: str, shortcut: str | None = None) -> None:
    st.button(
        label,
        key=label.split()[0].lower(),
        icon=f":material/{icon}:",
        type=kind,
        help=help_text,
        shortcut=shortcut,
        on_click=trouble.attempt,
        args=(lambda: action(job.id),),
    )


def _delete(job_id: str, name: str) -> None:
    def delete() -> None:
        services.engine().delete(job_id)
        session.forget_run(job_id)
        st.query_params.pop("job", None)

    trouble.attempt(delete, f"{name} is deleted")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-").lower() or "run"
