"""A run's numbers: the doctor's word, what it is judged by, and a small chart for whatever else it reports. Knows no metric by name but the
machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import session
from app.components import charts, choices, explain, words
from app.run_data import RunData
from engine import Engine
from engine.evaluation.curves import Curve
from engine.evaluation.doctor import Finding

if TYPE_CHECKING:
    from engine.chapters import Chapter
    from engine.store import Job

HELD_OUT = "held_out_"
_LAST = ("learning_rate", "grad_norm", "tokens_per_second")
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


def main(engine: Engine, job: Job, data: RunData, chapters: list[Chapter]) -> tuple[str, str]:
    """What the run, or one of its stages, is judged by, in training and held out. How it is drawn stands in the address. -> the metrics."""
    names = _judged_by(engine, job, data, chapters)
    train, held_out = (data.curve(name) for name in names)
    title, unit = explain.title(engine, names[0])
    finding = words.curve_finding(train, held_out, engine.moving(job), names)
    st.markdown(f"## {words.literal(finding)}", help=explain.meaning(engine, names[1]), anchors=False)
    if not train and not held_out:
        return names
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.selectbox(
            "Smoothing",
            list(_WINDOWS),
            key="smooth",
            bind="query-params",
            width=150,
            label_visibility="collapsed",
            help="Draws the training curve as the mean of so many steps; as it was is seen faintly behind.",
        )
        log = st.toggle("Log scale", key="log", bind="query-params", help="Equal ratios look equally far: small values can be told apart.")
        explain.panel(*names)
    band = engine.runs.band(job, names[1], held_out, chapters)
    axis = _axis(title, unit)
    alt = f"{axis} against steps. {finding}."
    steps = max(job.total_steps, job.step)
    how: dict[str, Any] = {"window": _WINDOWS.get(chosen, 1), "log": log, "band": band, "begins": begins(chapters)}
    charts.main(train, held_out, steps, axis, names[0], alt, **how)
    if band:
        st.caption(f":green[▇] {words.literal(explain.title(engine, names[1])[0])}, {band.words}")
    return names


def others(engine: Engine, job: Job, data: RunData, chapters: list[Chapter], shown: tuple[str, str]) -> None:
    """Everything else that was measured: first what the methods are watched by, then how it learns, the machine last."""
    names = [name for name in data.curves if len(data.curve(name)) > 1 and name not in shown and not engine.runs.is_axis(name)]
    # The last stage first: that is what is being watched.
    watched = list(dict.fromkeys(_both(engine.explain_method(chapter.method)["watch"] for chapter in reversed(chapters))))
    of_run = [name for name in names if name not in _MACHINE]
    of_run.sort(key=lambda name: (name in _LAST, watched.index(name) if name in watched else len(watched), name))
    _grid(engine, job, data, _paired(of_run, dict(chapter.main for chapter in chapters)), chapters)
    of_machine = [name for name in _MACHINE if name in names]
    if of_machine:
        st.markdown("### The machine", anchors=False, help="Measured every few seconds while it trains: all programs on it together.")
        _grid(engine, job, data, [(name, "") for name in of_machine], chapters)


def begins(chapters: list[Chapter]) -> list[tuple[int, str]]:
    """Where stages begin, with what stands beside the line; nothing for a run of one."""
    if len(chapters) < 2:
        return []
    return [(one.begins, f"{one.number} {words.acronym(one.term)}") for one in chapters if one.begins and not one.planned]


def _judged_by(engine: Engine, job: Job, data: RunData, chapters: list[Chapter]) -> tuple[str, str]:
    """Of a run of several stages that of the present one, or of another that is chosen."""
    usual = engine.runs.main_curves(job)
    begun = [one for one in chapters if any(data.curve(name) for name in one.main)]
    kinds = dict.fromkeys(one.main for one in begun)
    if len(kinds) < 2:
        return usual
    labels = {"/".join(kind): " and ".join(_stage(one) for one in begun if one.main == kind) for kind in kinds}
    # With the present stage in its key, it goes along when the next begins.
    now = "/".join(usual)
    chosen = choices.segments(
        "Stage", list(labels), key=f"curve.{now}", default=now if now in labels else next(iter(labels)), format_func=labels.get,
        label_visibility="collapsed",
    )  # fmt: skip
    return next((kind for kind in kinds if "/".join(kind) == chosen), usual)


def _stage(one: Chapter) -> str:
    return f"Stage {one.number}: {words.acronym(one.term)}"


def _paired(names: list[str], judged: dict[str, str]) -> list[tuple[str, str]]:
    """What is measured in training beside the same on held-out data, each pair at the place of its first. `judged` has the pairs whose
    names don't say so."""
    of_training = {twin: name for name, twin in judged.items()}
    found: list[tuple[str, str]] = []
    for name in names:
        plain = of_training.get(name, name.removeprefix(HELD_OUT))
        twins = (plain, judged.get(plain, HELD_OUT + plain))
        pair = twins if all(one in names for one in twins) else (name, "")
        if pair not in found:
            found.append(pair)
    return found


def _both(lists: Any) -> list[str]:
    return [name for names in lists for one in names for name in (one, HELD_OUT + one)]


def _grid(engine: Engine, job: Job, data: RunData, pairs: list[tuple[str, str]], chapters: list[Chapter]) -> None:
    if not pairs:
        return
    with st.grid(3, min_column_width=240, gap="medium") as grid:
        for name, twin in pairs:
            with grid.cell():
                _one(engine, job, data, name, twin, chapters)


def _one(engine: Engine, job: Job, data: RunData, name: str, twin: str, chapters: list[Chapter]) -> None:
    title, unit = explain.title(engine, name)
    now = _now(engine, data, name)
    held_out: Curve | None = data.curve(twin) if twin else None
    shown_unit = "" if unit == "share" else unit
    figures = f"`{now}` {shown_unit}"
    if twin:
        figures = f":blue[training] `{now}` · :green[held-out] `{_now(engine, data, twin)}` {shown_unit}"
    st.markdown(f"**{words.literal(title)}** · {figures}", help=explain.meaning(engine, name))
    alt = f"{title} against steps, now {now} {shown_unit}".strip()
    band = engine.runs.band(job, twin or name, data.curve(twin or name), chapters)
    how: dict[str, Any] = {"held_out": held_out, "thousands": unit == "tokens/s", "band": band, "begins": begins(chapters)}
    charts.small(data.curve(name), max(job.total_steps, job.step), unit or "value", name, alt, **how)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if band:
            st.caption(f":green[▇] {'held-out ' if twin else ''}{band.words}", width="content")
        explain.panel(*filter(None, (name, twin)))


def _now(engine: Engine, data: RunData, name: str) -> str:
    value = data.last(name)
    return "–" if value is None else words.measure(value, explain.title(engine, name)[1])


def _axis(title: str, unit: str) -> str:
    short = title.removeprefix("Training ").lower()
    return f"{short} ({unit})" if unit else short


def _wish(finding: Finding) -> str:
    training = finding.changes["training"]
    if "learning_rate" in training:
        return f"learning rate {training['learning_rate']:.2g}"
    return f"{training['steps']:,} steps"
