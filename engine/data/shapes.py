"""What shape rows have, which shapes serve which, and how rows of one are read as another.

    pairs -> answers (the better one), labels (two rows each), prompts (the better one is expected)
    labels -> answers (those found good), prompts        answers -> prompts (the answer is expected)

Knows no files and no columns.
"""

from __future__ import annotations

from dataclasses import replace

from engine import knowledge
from engine.data.examples import Example, Shape

SERVES: dict[Shape, tuple[Shape, ...]] = {
    "answers": ("answers", "pairs", "labels"),
    "pairs": ("pairs",),
    "labels": ("labels", "pairs"),
    "prompts": ("prompts", "answers", "pairs", "labels"),
    "preferences": ("pairs", "labels"),
}
"""What can be read where each is wanted, itself first."""

_NOTES: dict[tuple[Shape, Shape], str] = {
    ("pairs", "answers"): "these are pairs: the better answer of each is learned, the worse one isn't used",
    ("pairs", "labels"): "these are pairs: each becomes two rows, a good answer and a bad one",
    ("pairs", "prompts"): "these are pairs: their prompts are tried, and the better answer is what is expected",
    ("labels", "answers"): "these are answers found good or bad: the good ones are learned, the others aren't used",
    ("labels", "prompts"): "these are answers found good or bad: their prompts are tried, and a good answer is what is expected",
}


def converted(examples: list[Example], have: Shape, want: Shape) -> tuple[list[Example], str]:
    """(the rows as `want`, what to say of it). `have` serves `want`."""
    note = _NOTES.get((have, want), "")
    if have == want or want == "preferences" or (have, want) == ("answers", "prompts"):
        return examples, note
    if have == "pairs" and want == "labels":
        return [side for example in examples for side in _both(example)], note
    if have == "pairs":
        return [replace(example, rejected=None) for example in examples], note
    if want == "answers":
        return [replace(example, good=None) for example in examples if example.good], note
    return [replace(e, good=None, messages=e.messages if e.good else e.prompt) for e in examples], note


def _both(example: Example) -> list[Example]:
    better, worse = example.conversations()
    return [replace(example, messages=better, rejected=None, good=True), replace(example, messages=worse, rejected=None, good=False)]


def mismatch(have: Shape, want: Shape) -> tuple[str, str]:
    """(what is wrong, what to do) where rows of one shape can't serve another."""
    is_, needed = knowledge.shapes()[have], knowledge.shapes()[want]
    methods = [
        f"{method['title'].lower()} ({name})" for name, method in knowledge.methods().items() if have in SERVES[knowledge.shape(name)]
    ]
    other = f", or choose a method that learns from what you have: {', '.join(methods)}" if methods else ""
    return f"these are {is_['title']}, and {needed['title']} are needed", f"{needed['add']}{other}."
