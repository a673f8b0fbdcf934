"""A run told as chapters: its stages, where each begins, and the numbers that stand for it. Reads recipes, a job's folder and its
checkpoints; draws nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine import knowledge, paths
from engine.amounts import measure
from engine.errors import EngineError, NotFound
from engine.recipe import Recipe
from engine.store import Checkpoint, Job


@dataclass(frozen=True)
class Chapter:
    """One stage. `begins` is the step after which it begins; `planned`: so it was planned, and it hasn't come to that. `main` are the
    metrics that it is first of all judged by, in training and held out."""

    number: int
    method: str
    title: str
    term: str
    data: str
    steps: int
    begins: int
    planned: bool
    main: tuple[str, str]


@dataclass(frozen=True)
class Figure:
    """One number of a run in words: `short` is what it is called where there is little room."""

    name: str
    title: str
    short: str
    value: float
    text: str


def main_curves(recipe: Recipe) -> tuple[str, str]:
    """The two metrics that one stage is first of all judged by: in training and held out."""
    return knowledge.charts(recipe.method, {"distill.kind": recipe.distill.kind})


def of_recipe(recipe: Recipe) -> list[Chapter]:
    """The stages as a recipe plans them; how many steps each has isn't known yet where it goes by epochs."""
    found = []
    for number, stage in enumerate(recipe.stages(), 1):
        known = knowledge.method(stage.recipe.method)
        steps = stage.recipe.training.steps or 0
        one = Chapter(number, stage.recipe.method, known["title"], known["term"], "", steps, 0, number > 1, main_curves(stage.recipe))
        found.append(one)
    return found


def of_job(job: Job, checkpoints: Iterable[Checkpoint]) -> list[Chapter]:
    """The same with what became of it: how many steps, on what data, and where each stage really began."""
    try:
        found = of_recipe(job.recipe)
    except EngineError:
        # Written by another version: it is told as one whole.
        return []
    told = _told(job.id)
    begun = {0: 0}
    for checkpoint in checkpoints:
        stage = checkpoint.loop_state.get("stage", 0)
        begun[stage] = int(checkpoint.loop_state.get("began", 0))
        if checkpoint.reason == "stage":
            begun[stage + 1] = checkpoint.step
    chapters: list[Chapter] = []
    for place, one in enumerate(found):
        steps = int(told[place]["steps"]) if place < len(told) else one.steps
        planned = place not in begun
        begins = begun[place] if not planned else chapters[-1].begins + chapters[-1].steps
        data = str(told[place].get("data", "")) if place < len(told) else ""
        # A stage that was planned for a step which the run has passed has begun there, unless the one before it was seen to go on.
        later = any(known > place for known in begun)
        chapters.append(replace(one, data=data, steps=steps, begins=begins, planned=planned and not later and job.step <= begins))
    return chapters


def present(chapters: Sequence[Chapter], step: int) -> Chapter | None:
    """The one that the run is in after so many steps: it has made a step of it."""
    begun = [one for one in chapters if not one.planned and (one.begins < step or one.number == 1)]
    return begun[-1] if begun else None


def figures(names: Iterable[str], values: dict[str, float]) -> list[Figure]:
    """Those of these metrics that were measured, in words."""
    found = []
    for name in names:
        if name not in values:
            continue
        try:
            known = knowledge.metric(name)
        except NotFound:
            known = {"title": name.replace("_", " "), "unit": ""}
        text = measure(values[name], known["unit"])
        found.append(Figure(name, known["title"], known.get("short") or known["title"].lower(), values[name], text))
    shorts = [one.short for one in found]
    # Two stages may be judged by a loss each.
    return [replace(one, short=one.title.lower()) if shorts.count(one.short) > 1 else one for one in found]


def _told(job_id: str) -> list[dict[str, Any]]:
    """What the run itself wrote down of its stages."""
    file = paths.job_folder(job_id) / "data.json"
    try:
        return list(json.loads(file.read_text(encoding="utf-8")).get("stages") or ())
    except (OSError, ValueError):
        return []
