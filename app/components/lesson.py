"""What a lesson (teaching by correcting) taught a model and what that cost it, on the model's page. The figures are the engine's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app.components import proof, words

if TYPE_CHECKING:
    from engine import Engine
    from engine.registry import About

_RIGHT = "Answers as taught, when asked the corrected prompts again. It has learned these very prompts: how it does on others, skills tell."
_EARLIER = "What the lessons taught from which this model's lesson went on, asked again after it."
_OF_OTHERS = "Its general skills weren't measured: tasks from before training are known for nano only. Ask it and its base side by side."
_UNMEASURED = "Its general skills weren't measured. Ask it and the model before it side by side to see what it kept."


def show(engine: Engine, about: About) -> None:
    """The corrections, before and after; what became of older ones and of general skills."""
    cases, earlier = about.lesson["cases"], about.lesson.get("earlier") or []
    skills = (about.model.proof or {}).get("skills") or {}
    st.header("What it was taught", anchor=False)
    with st.grid(3, min_column_width=180):
        was = _count(cases, "was_right")
        st.metric(
            "Corrections, as taught", f"`{_count(cases, 'right')}`", f"{was} before", help=_RIGHT, delta_color="off", delta_arrow="off"
        )
        if earlier:
            st.metric(
                "Of earlier lessons",
                f"`{_count(earlier, 'right')}`",
                "still as taught",
                help=_EARLIER,
                delta_color="off",
                delta_arrow="off",
            )
        if skills.get("before") is not None and skills.get("after") is not None:
            proof.figure(engine, "skills", "General skills", skills["before"], skills["after"])
    st.markdown("\n".join(f"- {sentence}" for sentence in words.lesson_sentences(about.lesson, about.model.proof or {})))
    if skills.get("after") is None:
        st.caption(_UNMEASURED if about.model.base_model == "nano" else _OF_OTHERS)
    rows = [_row(case, "this one") for case in cases] + [_row(case, "an earlier one") for case in earlier]
    st.dataframe(rows, hide_index=True, height=min(360, 38 + 36 * len(rows)), alt="Corrected prompts, answered before and after the lesson")


def _count(cases: list[dict[str, Any]], side: str) -> str:
    return f"{sum(bool(case[side]) for case in cases)} of {len(cases)}"


def _row(case: dict[str, Any], lesson: str) -> dict[str, str]:
    return {
        "prompt": case["prompt"],
        "before": case["before"] or "(nothing)",
        "now": case["after"] or "(nothing)",
        "taught": case["correction"],
        "as taught": "yes" if case["right"] else "not yet" if lesson == "this one" else "not any more",
        "lesson": lesson,
    }
