"""One run, live: how far it is, its curves, what the model says now, its log and checkpoints, and what can be asked of it.

A single timed fragment redraws it once a second while the run moves; when the run comes to rest, one rerun of the page ends the timer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services, session
from app.components import charts, proof, trouble, words
from app.run_data import RunData, metrics_csv
from engine import Engine
from engine.amounts import duration
from engine.errors import NotFound

if TYPE_CHECKING:
    from engine.store import Job

_SMALL = ("learning_rate", "grad_norm", "tokens_per_second")
_REASONS = {"schedule": "on schedule", "pause": "when it was paused", "stop": "when it was stopped", "end": "at the end"}


def show(job_id: str) -> None:
    """The run of that id, and its view of itself from then on. Raises NotFound."""
    engine = services.engine()
    job = engine.job(job_id)
    moving = engine.moving(job)
    st.fragment(_view, run_every=1 if moving else None)(job.id, moving)


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
        if moving and (job.lease_until is None or job.lease_until < time.time()):
            engine.revive()
        data = session.run_data(job.id)
        data.update(engine, job)
        trouble.show_notices()
        _header(engine, job, data)
        if job.error:
            trouble.show_error(job.error)
        if job.result:
            proof.show(engine, job.id, job.result)
        # A run that failed before its first step has nothing to draw, and never will.
        if moving or data.curves or data.samples:
            _side_by_side(lambda: _loss(engine, job, data), lambda: _said(job, data))
            _small_charts(engine, job, data)
        _side_by_side(lambda: _log(engine, job), lambda: _checkpoints(engine, job))


def _side_by_side(main: Callable[[], None], aside: Callable[[], None]) -> None:
    left, right = st.columns([5, 3], gap="large")
    with left:
        main()
    with right:
        aside()


def _header(engine: Engine, job: Job, data: RunData) -> None:
    light = engine.light(job.state)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(words.literal(job.name), anchor=False, width="content")
        st.badge(f"● {light.label}", color=light.color)
    doing = job.stage if engine.moving(job) and job.stage and job.stage != light.label else ""
    method = engine.explain_method(job.method)
    place = {"local": "this machine"}.get(job.endpoint, words.literal(job.endpoint))
    st.caption(f"{method['title']}: {method['term']} · model {words.literal(job.base_model)} · {place} · run {job.id}")
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
        ("Speed", f"{pace.tokens_per_second:,.0f} tokens/s" if pace.tokens_per_second else None, _meaning(engine, "tokens_per_second")),
        ("Training loss", _or_none(data.last("train_loss")), _meaning(engine, "train_loss")),
        ("Held-out loss", _or_none(data.last("held_out_loss")), _meaning(engine, "held_out_loss")),
    ]
    if engine.moving(job) or not job.result:
        with st.container(horizontal=True, gap="medium"):
            for label, value, meaning in figures:
                if value:
                    st.metric(label, f"`{value}`", help=meaning, width="content")
    _buttons(engine, job)


def _or_none(value: float | None) -> str | None:
    return None if value is None else words.figure(value)


def _buttons(engine: Engine, job: Job) -> None:
    possible = engine.requests(job)
    with st.container(horizontal=True):
        if "resume" in possible:
            help_text = f"Goes on from step {job.step:,}, or from the last checkpoint before it."
            kind = "secondary" if job.error else "primary"
            _button("Resume", "play_arrow", engine.resume, job, kind=kind, help_text=help_text)
        if "pause" in possible:
            _button("Pause", "pause", engine.pause, job, help_text="Within a step; what it has learned is saved.")
        if "stop" in possible:
            _button("Stop and keep", "stop", engine.stop, job, help_text="Ends here, and keeps what it has learned.")
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


def _button(label: str, icon: str, action: Any, job: Job, *, kind: Any = "secondary", help_text: str) -> None:
    key = label.split()[0].lower()
    st.button(
        label, key=key, icon=f":material/{icon}:", type=kind, help=help_text, on_click=trouble.attempt, args=(lambda: action(job.id),)
    )


def _delete(job_id: str, name: str) -> None:
    def delete() -> None:
        services.engine().delete(job_id)
        session.forget_run(job_id)
        st.query_params.pop("job", None)

    trouble.attempt(delete, f"{name} is deleted")


def _loss(engine: Engine, job: Job, data: RunData) -> None:
    train, held_out = data.curve("train_loss"), data.curve("held_out_loss")
    finding = words.loss_finding(train, held_out, engine.moving(job))
    st.markdown(f"#### {words.literal(finding)}", help=_meaning(engine, "held_out_loss"), anchors=False)
    if not train and not held_out:
        return
    charts.loss(train, held_out, job.total_steps, f"Loss in nats per token against steps. {finding}.")


def _said(job: Job, data: RunData) -> None:
    said = data.said_now()
    st.markdown("#### What it says now", help="The same few prompts every few steps, none of which it trains on.", anchors=False)
    if not said:
        st.caption("Its answers to a few fixed prompts appear here while it learns.")
        return
    right = sum(bool(sample.correct) for sample in said)
    st.caption(f"After step {max(sample.step for sample in said):,}: {right} of {len(said)} right")
    for sample in said:
        lines = [f":gray[{words.literal(sample.prompt)}]"]
        mark = " :green[✓ right]" if sample.correct else " :orange[✗ not yet]" if sample.expected else ""
        lines.append(f"{words.code(sample.answer)}{mark}")
        if sample.expected and not sample.correct:
            lines.append(f":gray[expected] {words.code(sample.expected)}")
        st.markdown("  \n".join(lines))


def _small_charts(engine: Engine, job: Job, data: RunData) -> None:
    shown = [name for name in _SMALL if len(data.curve(name)) > 1]
    if not shown:
        return
    with st.grid(3, min_column_width=240, gap="medium") as grid:
        for name in shown:
            known = engine.explain_metric(name)
            axis = known["unit"] or known["title"].split()[-1]
            now = words.figure(data.last(name))
            with grid.cell():
                st.markdown(f"**{known['title']}** · `{now}` {known['unit']}", help=_meaning(engine, name))
                alt = f"{known['title']} against steps, now {now} {known['unit']}".strip()
                charts.small(data.curve(name), job.total_steps, axis, name, alt, thousands=known["unit"] == "tokens/s")


def _meaning(engine: Engine, metric: str) -> str:
    known = engine.explain_metric(metric)
    return f"{known['meaning']}\n\nHealthy: {known['healthy']}"


def _log(engine: Engine, job: Job) -> None:
    st.markdown("#### Log", anchors=False)
    _lines(engine.log(job.id, 5), 200)
    more = st.expander("The whole log", key="log", on_change="rerun")
    if more.open:
        with more:
            _lines(engine.log(job.id, 500), 2000)


def _lines(lines: list[dict[str, Any]], longest: int) -> None:
    def said(line: dict[str, Any]) -> str:
        level = "" if line.get("level") == "info" else f"{line.get('level')}: "
        return f"{time.strftime('%H:%M:%S', time.localtime(line.get('at', 0)))}  {level}{str(line.get('text', ''))[:longest]}"

    st.code("\n".join(map(said, lines)) or "Nothing yet.", language=None, wrap_lines=True)


def _checkpoints(engine: Engine, job: Job) -> None:
    st.markdown("#### Checkpoints", help="Saved states of the run: one kind to go on from, one to use.", anchors=False)
    by_step: dict[int, dict[str, Any]] = {}
    for checkpoint in engine.checkpoints(job.id):
        by_step.setdefault(checkpoint.step, {"reason": checkpoint.reason})[checkpoint.kind] = True
    if not by_step:
        st.caption("None yet: one is saved now and then, at every pause and stop, and at the end.")
    for step in sorted(by_step, reverse=True)[:8]:
        kept = by_step[step]
        badges = [":blue-badge[to go on from]"] * ("weights" in kept) + [":green-badge[to use]"] * ("sampler_weights" in kept)
        st.markdown(f"Step `{step:,}` {_REASONS.get(kept['reason'], words.literal(kept['reason']))} {' '.join(badges)}")
    if len(by_step) > 8:
        st.caption(f"and {len(by_step) - 8} older ones")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-").lower() or "run"
