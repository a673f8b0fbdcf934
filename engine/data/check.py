"""What is in a data file, for people: layout, rows that can't be used and why, and how long the examples are in tokens."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from engine.data.examples import Problem, Report
from engine.data.files import unit
from engine.data.formats import read_examples
from engine.errors import ModelError
from engine.rendering import get_renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_NO_LIMIT = 10**9


def check(
    path: str | Path,
    format: str = "auto",
    mapping: dict[str, str] | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    renderer: str = "auto",
    max_length: int | None = None,
) -> dict[str, Any]:
    """A JSON-ready report on the file; with a tokenizer also lengths, and how many examples exceed `max_length` tokens
    (by default the model's own limit). Raises DataError where the file can't be used at all."""
    report = read_examples(path, format, mapping)
    result: dict[str, Any] = {
        "file": str(path),
        "format": report.format,
        "columns": report.mapping,
        **report.stats,
        "problems": [problem.to_dict() | {"place": problem.place} for problem in report.problems],
        "first_example": report.examples[0].messages,
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
    known_limit = limit < _NO_LIMIT
    lengths, completion, problems = [], 0, []
    cut_rows: list[int] = []
    unanswered: list[int] = []
    for example in report.examples:
        try:
            sequences = render.examples(example.messages)
        except ModelError as error:
            problems.append(Problem(example.row, "", error.message, error.next_step, unit))
            continue
        lengths.append(max(len(sequence.tokens) for sequence in sequences))
        completion += sum(sequence.completion_tokens for sequence in sequences)
        if known_limit and lengths[-1] > limit:
            cut_rows.append(example.row)
            if any(not any(sequence.weights[:limit]) for sequence in sequences):
                unanswered.append(example.row)
    return {
        "renderer": render.name,
        "total": sum(lengths),
        "learned_from": completion,
        "median": median(lengths) if lengths else 0,
        "longest": max(lengths, default=0),
        "max_length": limit if known_limit else None,
        "truncated": len(cut_rows),
        "truncated_rows": cut_rows[:20],
        "without_any_answer": len(unanswered),
    }, problems
