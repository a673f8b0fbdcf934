"""An example as a model sees it: pieces of text, and which of them are learned from. Knows tokenizers; nothing of files and plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from engine import data
from engine.rendering import Renderer


@dataclass(frozen=True)
class Seen:
    """One sequence as the model sees it: pieces of text, and whether each is learned from. `side` is better or worse in a pair, good or
    bad for an answer that was found so; `expected` is what is expected of a prompt that is to be tried."""

    row: int
    pieces: tuple[tuple[str, bool], ...]
    tokens: int
    side: str = ""
    expected: str = ""


def seen_of(example: data.Example, shape: data.Shape, render: Renderer, tokenizer: Any) -> Iterator[Seen]:
    """The first sequence of each of its sides."""

    def pieces(tokens: Sequence[int], weights: Sequence[float]) -> tuple[tuple[str, bool], ...]:
        found = []
        for learned, group in groupby(zip(tokens, weights, strict=True), key=lambda one: one[1] > 0):
            found.append((tokenizer.decode([token for token, _ in group], skip_special_tokens=False), learned))
        return tuple(found)

    if shape == "prompts":
        tokens = render.prompt(example.prompt)
        yield Seen(example.row, pieces(tokens, [0.0] * len(tokens)), len(tokens), expected=example.answer)
        return
    sides = {"pairs": ("better", "worse"), "labels": ("good" if example.good else "bad",)}.get(shape, ("",))
    for side, messages in zip(sides, example.conversations(), strict=True):
        row = render.examples(messages)[0]
        yield Seen(example.row, pieces(row.tokens, row.weights), len(row.tokens), side)
