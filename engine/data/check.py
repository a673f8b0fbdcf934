"""What is in a data file, for people: layout, rows that can't be used and why, and how long the examples are in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from engine.data.examples import Problem, Report, Shape
from engine.data.files import unit
from engine.data.formats import read_examples
from engine.data.lengths import NO_LIMIT, measure
from engine.data.transforms import transformed
from engine.rendering import get_renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from engine.recipe import Transform


def check(
    path: str | Path,
    format: str = "auto",
    mapping: dict[str, str] | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    renderer: str = "auto",
    max_length: int | None = None,
    shape: Shape | None = None,
    transforms: Sequence[Transform] = (),
) -> dict[str, Any]:
    """A JSON-ready report on the file; with a tokenizer also lengths, and how many examples exceed `max_length` tokens
    (by default the model's own limit). `shape` is what is needed; without it rows are what they are; `transforms` is done to every
    example first. Raises DataError where the file can't be used at all."""
    report = transformed(read_examples(path, format, mapping, shape), transforms, unit(Path(path).expanduser()))
    first = report.examples[0]
    result: dict[str, Any] = {
        "file": str(path),
        "format": report.format,
        "shape": report.shape,
        "notes": report.notes,
        "columns": report.mapping,
        **report.stats,
        "problems": [problem.to_dict() | {"place": problem.place} for problem in report.problems],
        "first_example": first.messages,
        **({"first_rejected": first.rejected} if first.rejected is not None else {}),
        **({"first_good": first.good} if first.good is not None else {}),
        **({"first_columns": first.columns} if first.columns else {}),
    }
    if tokenizer is not None:
        result["tokens"], refused = _tokens(report, tokenizer, renderer, max_length, unit(Path(path).expanduser()))
        result["problems"] += [problem.to_dict() | {"place": problem.place} for problem in refused]
    return result


def _tokens(
    report: Report, tokenizer: PreTrainedTokenizerFast, renderer: str, max_length: int | None, unit: str
) -> tuple[dict[str, Any], list[Problem]]:
    render = get_renderer(renderer, tokenizer)
    limit = max_length or tokenizer.model_max_length
    known_limit = limit < NO_LIMIT
    measured = measure(report.examples, render, limit, report.shape)
    problems = [Problem(one.row, "", one.refused.message, one.refused.next_step, unit) for one in measured if one.refused]
    shown = [one for one in measured if not one.refused]
    cut = [one for one in shown if known_limit and one.tokens > limit]
    return {
        "renderer": render.name,
        "total": sum(one.total for one in shown),
        "answers": sum(one.answer for one in shown),
        "learned_from": sum(one.learned for one in shown),
        "median": median([one.tokens for one in shown]) if shown else 0,
        "longest": max((one.tokens for one in shown), default=0),
        "max_length": limit if known_limit else None,
        "truncated": len(cut),
        "truncated_rows": [one.row for one in cut[:20]],
        "without_any_answer": sum(one.unanswered for one in cut),
    }, problems
