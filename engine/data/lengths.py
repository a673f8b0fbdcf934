"""How long examples are in tokens, and what of them a model sees: asked, answered, cut off.

Works with a renderer that it is given; knows no files and no models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from engine.data.examples import Example, Shape
from engine.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from engine.rendering import Renderer

NO_LIMIT = 10**9
_BARS = 24
Part = Literal["prompt", "answer", "cut"]


@dataclass(frozen=True)
class Measured:
    """One example in tokens. `tokens` is its longest sequence (of a pair, the longer side), `total` all of them together, `answer` the
    answer's own, or of a pair the better one's. `refused` is why the renderer can't show it; all are 0 then."""

    row: int
    tokens: int = 0
    total: int = 0
    learned: int = 0
    answer: int = 0
    unanswered: bool = False
    refused: ModelError | None = None


@dataclass(frozen=True)
class Token:
    """A token as it is read: what it says, and whether it is given (prompt), learned (answer) or not seen at all (cut)."""

    text: str
    part: Part


@dataclass(frozen=True)
class Shown:
    """One sequence. `side` is better or worse in a pair, else empty."""

    side: str
    tokens: list[Token]


def measure(examples: Iterable[Example], render: Renderer, limit: int = NO_LIMIT, shape: Shape = "answers") -> list[Measured]:
    """Each example's length. `unanswered`: what lies within `limit` tokens holds nothing of some answer, or not the whole prompt
    where nothing but a prompt is read."""
    found = []
    for example in examples:
        try:
            found.append(_of_prompt(example, render, limit) if shape == "prompts" else _of_answers(example, render, limit))
        except ModelError as error:
            found.append(Measured(example.row, refused=error))
    return found


def _of_answers(example: Example, render: Renderer, limit: int) -> Measured:
    sides = [render.examples(messages) for messages in example.conversations()]
    sequences = [sequence for side in sides for sequence in side]
    return Measured(
        example.row,
        max(len(sequence.tokens) for sequence in sequences),
        sum(len(sequence.tokens) for sequence in sequences),
        sum(sequence.completion_tokens for sequence in sequences),
        sum(sequence.completion_tokens for sequence in sides[0]),
        any(not any(sequence.weights[:limit]) for sequence in sequences),
    )


def _of_prompt(example: Example, render: Renderer, limit: int) -> Measured:
    length = len(render.prompt(example.prompt))
    expected = sum(sequence.completion_tokens for sequence in render.examples(example.messages)[-1:]) if example.answered else 0
    return Measured(example.row, length, length, answer=expected, unanswered=length > limit)


def summary(measured: list[Measured], limit: int | None) -> dict[str, Any]:
    """JSON-ready: median, p95 and longest in tokens, how many are over the limit, a histogram, and how many can't be shown."""
    shown = [one for one in measured if not one.refused]
    refused = [one for one in measured if one.refused]
    lengths = sorted(one.tokens for one in shown)
    over = [one for one in shown if limit is not None and one.tokens > limit]
    return {
        "measured": len(measured),
        "tokens": sum(one.total for one in shown),
        "learned": sum(one.learned for one in shown),
        "median": median(lengths) if lengths else 0,
        "p95": lengths[math.ceil(0.95 * len(lengths)) - 1] if lengths else 0,
        "longest": lengths[-1] if lengths else 0,
        "limit": limit,
        "over": len(over),
        "unanswered": sum(one.unanswered for one in over),
        "refused": len(refused),
        "refusal": refused[0].refused.to_dict() | {"row": refused[0].row} if refused and refused[0].refused else None,
        "histogram": histogram(lengths),
    }


def histogram(sorted_lengths: list[int]) -> list[dict[str, int]]:
    """At most 24 bars of equal width: {low, high, count}, high excluded."""
    if not sorted_lengths:
        return []
    width = max(1, math.ceil((sorted_lengths[-1] + 1) / _BARS))
    counts: dict[int, int] = {}
    for length in sorted_lengths:
        counts[length // width] = counts.get(length // width, 0) + 1
    first, last = sorted_lengths[0] // width, sorted_lengths[-1] // width
    return [{"low": place * width, "high": (place + 1) * width, "count": counts.get(place, 0)} for place in range(first, last + 1)]


def seen(
    example: Example, render: Renderer, tokenizer: PreTrainedTokenizerFast, limit: int | None, shape: Shape = "answers"
) -> list[Shown]:
    """The sequences that a model sees of an example, token by token: of a pair both sides, of a prompt the prompt. Raises ModelError."""
    if shape == "prompts":
        tokens = render.prompt(example.prompt)
        return [Shown("", _readable(tokens, _cut(["prompt"] * len(tokens), limit), tokenizer))]
    sides = ("better", "worse") if example.rejected is not None else ("",)
    shown = []
    for side, messages in zip(sides, example.conversations(), strict=True):
        for sequence in render.examples(messages):
            parts: list[Part] = ["answer" if weight > 0 else "prompt" for weight in sequence.weights]
            shown.append(Shown(side, _readable(sequence.tokens, _cut(parts, limit), tokenizer)))
    return shown


def _cut(parts: list[Part], limit: int | None) -> list[Part]:
    return parts if limit is None else [*parts[:limit], *(["cut"] * len(parts[limit:]))]


def _readable(tokens: list[int], parts: list[Part], tokenizer: PreTrainedTokenizerFast) -> list[Token]:
    """One entry a token, but for characters that several tokens make up: those are one entry."""
    found: list[Token] = []
    start = 0
    for place, part in enumerate(parts):
        text = tokenizer.decode(tokens[start : place + 1], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # A character has at most four bytes, so what can't be read after four tokens never will be.
        unfinished = text.endswith("\ufffd") and place + 1 < len(parts) and parts[place + 1] == part and place - start < 3
        if not unfinished:
            found.append(Token(text, part))
            start = place + 1
    return found
