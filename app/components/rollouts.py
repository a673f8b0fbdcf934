"""Answers that a run tried: the best and the worst of each step, with what they scored and why. What models wrote stays text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app.components import words
from engine import Engine

if TYPE_CHECKING:
    from engine.store import Job

_LATEST = "latest"
_LONGEST = 600
_KEPT = 40


def show(engine: Engine, job: Job) -> None:
    """The latest step's, or those of an earlier one; nothing for a run that tries no answers."""
    tries = engine.runs.rollouts(job, _KEPT)
    if not tries:
        return
    by_step: dict[int, dict[str, dict[str, Any]]] = {}
    for one in tries:
        by_step.setdefault(int(one["step"]), {})[one["which"]] = one
    steps = sorted(by_step)
    st.markdown("## What it tries", help="Of all answers tried at a step, the one that scored highest and the one that scored lowest.")
    at = steps[-1]
    if len(steps) > 1:
        places = [*steps[:-1], _LATEST]
        chosen = st.select_slider(
            "At step",
            places,
            value=_LATEST,
            key="tried.at",
            format_func=lambda place: words.at_slider(f"{steps[-1]:,} (now)" if place == _LATEST else f"{place:,}"),
        )
        at = at if chosen == _LATEST else chosen
    else:
        st.caption(f"At step {at:,}")
    with st.grid(2, min_column_width=300, gap="medium") as grid:
        for which, title, color in (("best", "Best", "green"), ("worst", "Worst", "orange")):
            if one := by_step[at].get(which):
                with grid.cell(), st.container(border=True, height="stretch"):
                    _one(one, title, color)
    _table(tries)


def _one(one: dict[str, Any], title: str, color: str) -> None:
    cut = " :orange-badge[cut off]" if one.get("cut_off") else ""
    st.markdown(f":{color}[**{title}**] · score `{words.figure(one['score'])}` · `{one.get('tokens', 0):,}` tokens{cut}")
    st.markdown(f":gray[{words.literal(one['prompt'][:_LONGEST])}]")
    st.code(_shortened(one["answer"]) or "(nothing)", language=None, wrap_lines=True)
    if one.get("expected"):
        st.markdown(f":gray[expected] {words.code(one['expected'])}")
    parts = one.get("parts") or {}
    if len(parts) > 1:
        st.caption(words.literal(" · ".join(f"{name} {words.figure(value)}" for name, value in parts.items())))
    if one.get("note"):
        st.caption(words.literal(one["note"][:_LONGEST]))


def _table(tries: list[dict[str, Any]]) -> None:
    more = st.expander("The last steps in a table", key="tried.all", on_change="rerun")
    if not more.open:
        return
    with more:
        rows = [{name: one.get(name) for name in ("step", "which", "score", "prompt", "answer", "expected", "note")} for one in tries]
        st.dataframe(rows, hide_index=True, height=min(420, 38 + 36 * len(rows)), alt="Best and worst answers of the last steps")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
