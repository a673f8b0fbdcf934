"""A run's numbers: the doctor's word, the loss, and a small chart for whatever else it reports. Knows no metric but the losses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import session
from app.components import charts, explain, words
from app.run_data import RunData
from engine import Engine
from engine.evaluation.doctor import Finding

if TYPE_CHECKING:
    from engine.store import Job

LOSSES = ("train_loss", "held_out_loss")
_FIRST = ("learning_rate", "grad_norm", "tokens_per_second")
_MACHINE = ("cpu_percent", "memory_gb", "gpu_percent", "gpu_memory_gb")
_WINDOWS = {"as it is": 1, "5 steps": 5, "20 steps": 20, "100 steps": 100}
_ICONS = {"good": ":material/check_circle:", "note": ":material/info:", "warning": ":material/warning:", "stop": ":material/error:"}
_BOXES = {"good": st.success, "note": st.info, "warning": st.warning, "stop": st.error}


def doctor(engine: Engine, job: Job, data: RunData) -> None:
    """What is wrong, what to do, and a button that does it; a quiet line where nothing is."""
    offered: list[dict[str, Any]] = []
    for number, finding in enumerate(engine.runs.diagnose(job, data.curves)[:4]):
        sign, detail, action = (words.literal(text) for text in (finding.sign, finding.detail, finding.action))
        if finding.level == "good" or not finding.action:
            color = "green" if finding.level == "good" else "gray"
            st.markdown(f":{color}[{_ICONS[finding.level]} **Doctor:** {sign}] {detail}")
            continue
        _BOXES[finding.level](f"**{sign}** {detail}  \n{action}", icon=_ICONS[finding.level])
        if finding.changes and finding.changes not in offered:
            offered.append(finding.changes)
            label = f"Try again with {_wish(finding)}"
            st.button(label, key=f"doctor.{number}", icon=":material/replay:", on_click=session.wish_again, args=(job.id, finding.changes))


def loss(engine: Engine, job: Job, data: RunData) -> None:
    """Training and held-out loss. How it is drawn stands in the address."""
    train, held_out = data.curve("train_loss"), data.curve("held_out_loss")
    finding = words.loss_finding(train, held_out, engine.moving(job))
    st.markdown(f"## {words.literal(finding)}", help=explain.meaning(engine, "held_out_loss"), anchors=False)
    if not train and not held_out:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.selectbox(
            "Smoothing",
            list(_WINDOWS),
            key="smooth",
            bind="query-params",
            width=150,
            label_visibility="collapsed",
            help="Draws the training loss as the mean of so many steps; as it was is seen faintly behind.",
        )
        log = st.toggle("Log scale", key="log", bind="query-params", help="Equal ratios look equally far: small losses can be told apart.")
        explain.panel(*LOSSES)
    band = engine.runs.band(job, "held_out_loss", held_out)
    alt = f"Loss in nats per token against steps. {finding}."
    charts.loss(train, held_out, job.total_steps, alt, window=_WINDOWS.get(chosen, 1), log=log, band=band)
    if band:
        st.caption(f":green[▇] Held-out loss, {band.words}")


def others(engine: Engine, job: Job, data: RunData) -> None:
    """Everything else that was measured, the machine apart."""
    names = [name for name in data.curves if len(data.curve(name)) > 1 and name not in LOSSES and not engine.runs.is_axis(name)]
    of_run = sorted((name for name in names if name not in _MACHINE), key=lambda name: (name not in _FIRST, name))
    _grid(engine, job, data, of_run)
    of_machine = [name for name in _MACHINE if name in names]
    if of_machine:
        st.markdown("### The machine", anchors=False, help="Measured every few seconds while it trains: all programs on it together.")
        _grid(engine, job, data, of_machine)


def _grid(engine: Engine, job: Job, data: RunData, names: list[str]) -> None:
    if not names:
        return
    with st.grid(3, min_column_width=240, gap="medium") as grid:
        for name in names:
            with grid.cell():
                _one(engine, job, data, name)


def _one(engine: Engine, job: Job, data: RunData, name: str) -> None:
    title, unit = explain.title(engine, name)
    now = words.figure(data.last(name))
    st.markdown(f"**{words.literal(title)}** · `{now}` {unit}", help=explain.meaning(engine, name))
    alt = f"{title} against steps, now {now} {unit}".strip()
    band = engine.runs.band(job, name, data.curve(name))
    charts.small(data.curve(name), job.total_steps, unit or title.split()[-1], name, alt, thousands=unit == "tokens/s", band=band)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if band:
            st.caption(f":green[▇] {band.words}", width="content")
        explain.panel(name)


def _wish(finding: Finding) -> str:
    training = finding.changes["training"]
    if "learning_rate" in training:
        return f"learning rate {training['learning_rate']:.2g}"
    return f"{training['steps']:,} steps"
