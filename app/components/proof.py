"""The proof: what the model could do before and after, on prompts it has never seen, and how to talk to it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import navigation
from app.components import words
from engine import Engine
from engine.amounts import duration
from engine.errors import NotFound


def show(engine: Engine, job_id: str, result: dict[str, Any]) -> None:
    """The proof in figures, in sentences and in examples; nothing of it where nothing was proven."""
    sentences = words.proof_sentences(result)
    if sentences:
        st.header("The proof", anchor=False)
        figures(engine, result)
        st.markdown("\n".join(f"- {sentence}" for sentence in sentences))
        _advice(engine, result)
    _chat(engine, job_id)
    _examples(result.get("examples") or [])
    for note in result.get("notes") or []:
        st.caption(words.literal(note))


def figures(engine: Engine, result: dict[str, Any]) -> None:
    """Before and after as figures, for a result that has a proof."""
    before, after = result["held_out"]["before"], result["held_out"]["after"]
    with st.grid(4, min_column_width=150):
        figure(engine, "exact_match", "Right answers", before["exact_match"], after["exact_match"])
        skills = result["skills"]
        if skills.get("before") is not None and skills.get("after") is not None:
            figure(engine, "skills", "General skills", skills["before"], skills["after"])
        figure(engine, "token_f1", "Shared words (F1)", before["token_f1"], after["token_f1"])
        took, work = duration(result["seconds"]), f"{result['steps']:,} steps, {result['tokens']:,} tokens"
        st.metric("Training took", f"`{took}`", work, delta_color="off", delta_arrow="off")


def figure(engine: Engine, metric: str, label: str, before: float, after: float) -> None:
    """One share, and by how many points it rose or fell; what it means stands beside it."""
    known, points = engine.explain_metric(metric), 100 * (after - before)
    if abs(points) < 0.05:
        delta, color, arrow = "unchanged", "off", "off"
    else:
        delta, color, arrow = f"{points:+.1f} points", "green" if points > 0 else "orange", "auto"
    meaning = f"{known['meaning']}\n\nHealthy: {known['healthy']}"
    st.metric(label, f"`{words.percent(after)}`", delta, help=meaning, delta_color=color, delta_arrow=arrow)


def _advice(engine: Engine, result: dict[str, Any]) -> None:
    skills = result["skills"]
    if skills.get("after") is not None and skills["after"] < 0.8 * skills["before"]:
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
    groups = {
        "Got better": [row for row in examples if row["is_right"] and not row["was_right"]],
        "Still wrong": [row for row in examples if not row["is_right"] and not row["was_right"]],
        "Got worse": [row for row in examples if row["was_right"] and not row["is_right"]],
        "Right all along": [row for row in examples if row["is_right"] and row["was_right"]],
    }
    there = [name for name, rows in groups.items() if rows]
    if not there:
        return
    chosen = st.radio("Examples, before and after", there, horizontal=True, key="examples")
    rows = [{name: row[name] or "(nothing)" for name in ("prompt", "before", "after", "expected")} for row in groups[chosen]]
    st.dataframe(rows, hide_index=True, height=min(300, 38 + 36 * len(rows)), alt="Held-out prompts, answered before and after training")
