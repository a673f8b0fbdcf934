"""Examples with answers as token sequences: rendered, cut to length, weighed. Knows no method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.data.examples import Example
from engine.rendering import Rendered, Renderer
from engine.training.desk import datum

_NAMED = 3


def rendered(
    examples: Sequence[Example], renderer: Renderer, limit: int, what: str, notes: list[str]
) -> tuple[list[Rendered], list[Example]]:
    """Token sequences, at most limit + 1 tokens (inputs and targets are shifted by one), and the example that each is of. Notes what
    was cut or lost."""
    found = [(row, example) for example in examples for row in renderer.examples(example.messages, limit + 1)]
    kept = [(row, example) for row, example in found if row.completion_tokens]
    cut = [(row.truncated, example) for row, example in kept if row.truncated]
    if cut:
        tokens, which = sum(lost for lost, _ in cut), named([example for _, example in cut])
        notes.append(f"{len(cut):,} {what} examples were cut to {limit:,} tokens ({tokens:,} tokens lost): {which}")
    if lost := [example for row, example in found if not row.completion_tokens]:
        notes.append(f"{len(lost):,} {what} examples were left out: their prompts alone are longer than {limit:,} tokens: {named(lost)}")
    return [row for row, _ in kept], [example for _, example in kept]


def named(examples: Sequence[Example]) -> str:
    """Which rows these are, the first few of them."""
    rows = list(dict.fromkeys(example.row for example in examples))
    some, more = ", ".join(f"{row:,}" for row in rows[:_NAMED]), len(rows) - _NAMED
    return f"row{'s' * (len(rows) > 1)} {some}" + (f" and {more:,} more" if more > 0 else "")


def last_answer(messages: Sequence[dict[str, str]], renderer: Renderer, limit: int) -> Rendered:
    """The conversation with weight on the last answer alone."""
    row = renderer.examples(messages, limit + 1)[-1]
    weights, inside = [0.0] * len(row.weights), False
    for place in range(len(row.weights) - 1, -1, -1):
        if row.weights[place] > 0:
            weights[place], inside = 1.0, True
        elif inside:
            break
    return Rendered(row.tokens, weights, row.truncated)


def datums(rows: Sequence[Rendered]) -> list[Any]:
    """Each answer token weighs 1 / N, of the N in all rows: `loss:sum` of the reply is their mean loss (nats a token)."""
    share = 1.0 / max(1.0, counts(rows)["targets"])
    return [datum(row.tokens, weights=[weight * share for weight in row.weights]) for row in rows]


def counts(rows: Sequence[Rendered]) -> dict[str, float]:
    """{"tokens": real tokens, "targets": tokens learned from}."""
    targets = sum(weight > 0 for row in rows for weight in row.weights[1:])
    return {"tokens": float(sum(len(row.tokens) for row in rows)), "targets": float(targets)}
