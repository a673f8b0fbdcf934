"""What a run leaves behind: its answers over the steps, its log, its checkpoints. Draws no curves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation
from app.components import explain, job_keeping, previews, words
from app.run_data import RunData
from engine import Engine

if TYPE_CHECKING:
    from engine.store import Job

_REASONS = {
    "schedule": "on schedule",
    "pause": "when it was paused",
    "stop": "when it was stopped",
    "end": "at the end",
    "cap": "at its limit",
    "best": "as the best so far",
    "stage": "at a stage's end",
    "asked": "when it asked you",
}
_NOW = "now"
_LISTED = 8


def said(job: Job, data: RunData) -> None:
    """Its answers to the fixed prompts: the newest, or those of an earlier step."""
    st.markdown("## Watch it learn", help="The same few prompts every few steps, none of which it trains on.", anchors=False)
    steps = data.sampled_steps()
    if not steps:
        st.caption("Its answers to a few fixed prompts appear here while it learns.")
        return
    at = steps[-1]
    if len(steps) > 1:
        # The last place of the slider is wherever the run has got to, so that it needn't be moved to stay up to date.
        places = [*steps[:-1], _NOW]
        chosen = st.select_slider(
            "After step", places, value=_NOW, key="said.at", format_func=lambda place: words.at_slider(_place(place, steps[-1]))
        )
        at = steps[-1] if chosen == _NOW else chosen
    everything = data.said_at(at)
    answers = previews.fixed(everything)
    right = sum(bool(sample.correct) for sample in answers)
    judged = any(sample.correct is not None for sample in answers)
    st.caption(f"After step {at:,}" + (f": {right} of {len(answers)} right" if judged else ""))
    for sample in answers:
        lines = [f":gray[{words.literal(sample.prompt)}]"]
        mark = " :green[✓ right]" if sample.correct else " :orange[✗ not yet]" if sample.expected else ""
        lines.append(f"{words.code(sample.answer)}{mark}")
        if sample.expected and not sample.correct:
            lines.append(f":gray[expected] {words.code(sample.expected)}")
        st.markdown("  \n".join(lines))
    previews.show(job, everything, dict(data.curve("preview_tokens_per_second")).get(at))


def said_table(data: RunData) -> None:
    """Every prompt over all steps, in one table; nothing with fewer than two steps."""
    steps = data.sampled_steps()
    if len(steps) < 2:
        return
    more = st.expander("All answers over the steps", key="said.all", on_change="rerun")
    if not more.open:
        return
    with more:
        prompts = data.said_at(steps[-1])
        rows = []
        for step in steps:
            answers = {sample.position: sample for sample in data.said_at(step)}
            row: dict[str, Any] = {"step": step}
            for sample in prompts:
                found = answers.get(sample.position)
                mark = "✓ " if found and found.correct else ""
                row[sample.prompt] = f"{mark}{found.answer}" if found else ""
            rows.append(row)
        st.dataframe(rows, hide_index=True, height=min(420, 38 + 36 * len(rows)), alt="Answers to the fixed prompts, one row a step")


def log(engine: Engine, job: Job) -> None:
    """The last five lines, and on demand all."""
    st.markdown("## Log", anchors=False)
    _lines(engine.log(job.id, 5), 200)
    more = st.expander("The whole log", key="log.all", on_change="rerun")
    if more.open:
        with more:
            lines = engine.log(job.id, 5000)
            _lines(lines[-500:], 2000)
            if len(lines) > 500:
                st.caption(f"The last 500 of {len(lines):,} lines; all of them are in the file.")
            text = "\n".join(_said(line, 10_000) for line in lines)
            st.download_button(
                "Log (text)", text, f"{job.id}.log.txt", "text/plain", key="log.file", icon=":material/download:", on_click="ignore"
            )


def checkpoints(engine: Engine, job: Job, data: RunData) -> None:
    """What is saved, and what each is good for; the best by the held-out number and the last are marked."""
    st.markdown("## Checkpoints", help="Saved states of the run: one kind to go on from, one to use.", anchors=False)
    by_step: dict[int, dict[str, Any]] = {}
    for checkpoint in engine.checkpoints(job.id):
        kept = by_step.setdefault(checkpoint.step, {"reason": checkpoint.reason, "pinned": False})
        kept[checkpoint.kind], kept["pinned"] = True, kept["pinned"] or checkpoint.pinned
    if not by_step:
        st.caption("None yet: one is saved now and then, at every pause and stop, and at the end.")
        return
    name = engine.runs.main_curves(job)[1]
    title, up = explain.title(engine, name)[0].lower(), engine.runs.better(name) == "up"
    held_out = {step: value for step, value in data.curve(name) if step in by_step and value == value}
    last, taken = max(by_step), engine.keeping.of(job.id)
    # The one that is kept for it; of a single measurement there is no best.
    best = taken.best if len(held_out) > 1 else None
    newest = sorted(by_step, reverse=True)[:_LISTED]
    shown = sorted({*newest, *taken.pinned, *([best] if best in by_step else [])}, reverse=True)
    for step in shown:
        kept = by_step[step]
        badges = [":blue-badge[to go on from]"] * ("weights" in kept) + [":green-badge[to use]"] * ("sampler_weights" in kept)
        badges += [":orange-badge[pinned]"] * kept["pinned"] + [":gray-badge[backed up]"] * (step in taken.backed_up)
        badges += [f":violet-badge[{'highest' if up else 'lowest'} {title}]"] * (step == best) + [":gray-badge[last]"] * (step == last)
        measured = f" · {title} `{words.figure(held_out[step])}`" if step in held_out else ""
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            reason = _REASONS.get(kept["reason"], words.literal(kept["reason"]))
            st.markdown(f"Step `{step:,}` {reason}{measured} {' '.join(badges)}", width="content")
            if "sampler_weights" in kept:
                navigation.link_to_chat(f"{job.id}@{step}", "Chat")
            job_keeping.pin(engine, job, step, kept["pinned"])
    if len(by_step) > len(shown):
        st.caption(f"and {len(by_step) - len(shown):,} more")
    job_keeping.disk(engine, job, taken)


def _place(place: Any, newest: int) -> str:
    return f"{newest:,} (now)" if place == _NOW else f"{place:,}"


def _lines(lines: list[dict[str, Any]], longest: int) -> None:
    st.code("\n".join(_said(line, longest) for line in lines) or "Nothing yet.", language=None, wrap_lines=True)


def _said(line: dict[str, Any], longest: int) -> str:
    level = "" if line.get("level") == "info" else f"{line.get('level')}: "
    return f"{time.strftime('%H:%M:%S', time.localtime(line.get('at', 0)))}  {level}{str(line.get('text', ''))[:longest]}"
