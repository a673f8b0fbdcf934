"""A person's own prompts among a run's answers: what it says to them at a step, and which of them took too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app.components import words
from engine import EngineError
from engine.training.previews import FIRST_POSITION

if TYPE_CHECKING:
    from engine.store import Job, Sample


def fixed(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the run's own held-out prompts."""
    return [sample for sample in samples if sample.position < FIRST_POSITION]


def show(job: Job, samples: Sequence[Sample], speed: float | None) -> None:
    """The answers of one step, `samples` being all of that step's; nothing for a run without previews."""
    try:
        evaluation = job.recipe.evaluation
    except EngineError:
        return
    if not evaluation.previews:
        return
    said = {sample.position - FIRST_POSITION: sample for sample in samples if sample.position >= FIRST_POSITION}
    st.markdown("**Your own prompts**" + (f" :gray[answered at {speed:,.0f} tokens/s]" if speed else ""))
    for place, preview in enumerate(evaluation.previews):
        lines = [f":gray[{words.literal(preview.prompt[:200])}]"]
        if place in said:
            sample = said[place]
            mark = " :green[✓ right]" if sample.correct else " :orange[✗ not yet]" if sample.expected else ""
            lines.append(f"{words.code(sample.answer)}{mark}")
            if sample.expected and not sample.correct:
                lines.append(f":gray[expected] {words.code(sample.expected)}")
        else:
            lines.append(f":orange[passed over at this step: no answer within {evaluation.preview_seconds:g} s]")
        st.markdown("  \n".join(lines))
