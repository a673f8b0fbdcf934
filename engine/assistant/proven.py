"""What was proven of a run or a model, in sentences: right answers or a score, how often it wins, what it forgot.

Reads results as they are kept; `engine.evaluation.outcome` says what counts in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.assistant.wording import percent, safe
from engine.evaluation import outcome


def sentences(result: Mapping[str, Any] | None) -> str:
    """All of it; empty without a proof."""
    said = []
    if found := outcome.headline(result):
        asked = outcome.count(result)
        on = f"On {asked:,} prompts it had never seen" if asked else "On prompts it had never seen"
        said.append(f"{on}, {found.called} went from {found.was} to **{found.now}**.")
    said += filter(None, [wins(result)])
    skills = (result or {}).get("skills") or {}
    if skills.get("before") is not None and skills.get("after") is not None:
        said.append(f"General skills: {percent(skills['before'])} before, {percent(skills['after'])} after.")
    return " ".join(said)


def wins(result: Mapping[str, Any] | None) -> str:
    """How often it wins against what its last stage began with; empty where no judge was asked."""
    return safe(outcome.wins_sentence(result), 400) if outcome.judged(result) else ""


def short(result: Mapping[str, Any] | None) -> str:
    """For a table: a dash without a proof."""
    return outcome.short(result) or "–"
