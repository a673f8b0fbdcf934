"""The proof: what the model could do before and after, on prompts it has never seen, and how to talk to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation
from app.components import explain, words
from engine import Engine
from engine.amounts import duration
from engine.errors import NotFound
from engine.evaluation import outcome

if TYPE_CHECKING:
    from engine.evaluation.curves import Curve
    from engine.store import Job

_RANKED = "held_out_preference_accuracy"
_LABELS = {"exact_match": "Right answers", "token_f1": "Shared words (F1)"}


def show(engine: Engine, job: Job, curves: Mapping[str, Curve]) -> None:
    """The proof in figures, in sentences and in examples; nothing of it where nothing was proven."""
    result = job.result or {}
    sentences = words.proof_sentences(result)
    if ranked := _ranked(job, result, curves):
        sentences = [*sentences, ranked]
    if sentences:
        st.header("The proof", anchor=False)
        figures(engine, result)
        st.markdown("\n".join(f"- {sentence}" for sentence in sentences))
        _advice(engine, result)
    _chat(engine, job.id)
    _examples(result.get("examples") or [])
    for note in result.get("notes") or []:
        st.caption(words.literal(note))


def figures(engine: Engine, result: dict[str, Any]) -> None:
    """Before and after as figures, for a result that has a proof."""
    shown = [one for one in outcome.numbers(result) if one.name != "perplexity"][:2]
    skills = result.get("skills") or {}
    with st.grid(4, min_column_width=150):
        for one in shown[:1]:
            figure(engine, one.name, _LABELS.get(one.name, one.title), one.before, one.after)
        if skills.get("before") is not None and skills.get("after") is not None:
            figure(engine, "skills", "General skills", skills["before"], skills["after"])
        for one in shown[1:]:
            figure(engine, one.name, _LABELS.get(one.name, one.title), one.before, one.after)
        took, work = duration(result["seconds"]), f"{result['steps']:,} steps, {result['tokens']:,} tokens"
        st.metric("Training took", f"`{took}`", work, delta_color="off", delta_arrow="off")


def figure(engine: Engine, metric: str, label: str, before: float | None, after: float) -> None:
    """One number before and after, with by how much it changed and whether that is good."""
    one = outcome.measured(metric, before, after)
    delta: str | None = None
    color, arrow = "off", "off"
    if one.before is not None:
        apart = after - one.before
        if not one.changed and one.better != "neither":
            delta = "unchanged"
        else:
            delta = f"{100 * apart:+.1f} points" if one.unit == "share" else f"{apart:+.3g}"
            if one.better != "neither":
                color, arrow = ("green" if (one.gain or 0) > 0 else "orange"), "auto"
    value = f"`{words.measure(after, one.unit)}`"
    st.metric(label, value, delta, help=explain.meaning(engine, metric), delta_color=color, delta_arrow=arrow)  # type: ignore[arg-type]


def _ranked(job: Job, result: dict[str, Any], curves: Mapping[str, Curve]) -> str:
    """Of pairs that it never trained on: how many it ranks rightly. A sentence, empty where there are none."""
    curve = curves.get(_RANKED)
    if not curve or {_RANKED, "preference_accuracy"} & {one.name for one in outcome.numbers(result)}:
        return ""
    share = words.percent(curve[-1][1])
    if job.method == "reward_model":
        return f"Held-out pairs ranked rightly: {words.percent(curve[0][1])} → {share}."
    return f"Of the held-out pairs, it has come to prefer the better answer in {share}."


def _advice(engine: Engine, result: dict[str, Any]) -> None:
    skills = result.get("skills") or {}
    if skills.get("after") is not None and skills.get("before") and skills["after"] < 0.8 * skills["before"]:
        flag = engine.explain_metric("skills")["red_flags"][0]
        st.warning(f"**General skills fell steeply (forgetting).** {flag['action']}", icon=":material/info:")


def _chat(engine: Engine, job_id: str) -> None:
    try:
        model = engine.model(job_id)
    except NotFound:
        return
    with st.container(horizontal=True):
        navigation.link_to_chat(model.id, "Chat with it")
        beside = f"base:{model.base_model}"
        navigation.link_to_chat(model.id, "Ask it and its base model side by side", beside=beside, icon=":material/compare:")
    st.markdown("**Talk to it** in a terminal:")
    quoted = model.name.replace("\\", "\\\\").replace('"', '\\"')
    st.code(f'python thinker.py chat --model "{quoted}"', language=None)


def _examples(examples: list[dict[str, Any]]) -> None:
    judged = [row for row in examples if row["is_right"] is not None]
    groups = {
        "Got better": [row for row in judged if row["is_right"] and not row["was_right"]],
        "Still wrong": [row for row in judged if not row["is_right"] and not row["was_right"]],
        "Got worse": [row for row in judged if row["was_right"] and not row["is_right"]],
        "Right all along": [row for row in judged if row["is_right"] and row["was_right"]],
        "Nothing was expected": [row for row in examples if row["is_right"] is None],
    }
    there = [name for name, rows in groups.items() if rows]
    if not there:
        return
    chosen = st.radio("Examples, before and after", there, horizontal=True, key="examples")
    columns = ("prompt", "before", "after", *(("expected",) if any(row["expected"] for row in groups[chosen]) else ()))
    rows = [{name: row[name] if row[name].strip() else "(nothing)" for name in columns} for row in groups[chosen]]
    st.dataframe(rows, hide_index=True, height=min(300, 38 + 36 * len(rows)), alt="Held-out prompts, answered before and after training")
