"""What nano is born with, as one stream of (prompt, answer): string skills, small talk, polite refusals, plain English, short functions.

It trains nano, and the replay rows of the demos come from it, so that what is replayed is what was learned. Single letters and
small numbers are skills; none of the tasks that demos teach is here. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.data.demos import skills
from engine.data.demos.manners import is_reserved
from engine.data.demos.sentences import sentence_task
from engine.data.demos.skills import Pair, Source
from engine.data.demos.talk import beyond, small_talk
from engine.data.demos.words import words_of

SKILLS, TALK, BEYOND, SENTENCES = 0.51, 0.24, 0.11, 0.11  # the rest: short functions
LOOSELY_ASKED = 0.15


def written_words() -> set[str]:
    """Every word of the files that small talk, refusals and plain English are made from, whether it was drawn or not."""
    texts = [Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8") for name in ("talk", "beyond", "sentences")]
    return words_of(" ".join(texts))


def draw(source: Source, functions: Sequence[Pair] = ()) -> Pair:
    """One of all that nano knows. Short functions come in where there are any: (source line, docstring)."""
    while True:
        prompt, answer = _draw(source, functions)
        if not is_reserved(prompt):
            return prompt, answer


def _draw(source: Source, functions: Sequence[Pair]) -> Pair:
    dice = source.dice
    chance = dice.random() * (1 if functions else SKILLS + TALK + BEYOND + SENTENCES)
    if chance < SKILLS:
        return _loosely(source, *skills.draw(source))
    if chance < SKILLS + TALK:
        return small_talk(dice)
    if chance < SKILLS + TALK + BEYOND:
        return beyond(dice)
    if chance < SKILLS + TALK + BEYOND + SENTENCES:
        return _loosely(source, *sentence_task(dice))
    return _function(source, functions)


def _loosely(source: Source, prompt: str, answer: str) -> Pair:
    """Now and then the question as people also put it: politely, or without its capital letter."""
    if source.dice.random() > LOOSELY_ASKED:
        return prompt, answer
    small = prompt[0].lower() + prompt[1:]
    return source.dice.choice((f"Please {small}", f"please {small}", small, small)), answer


def _function(source: Source, functions: Sequence[Pair]) -> Pair:
    code, meaning = source.dice.choice(functions)
    parts = re.match(r"def (\w+)\((.*?)\): ", code)
    if not parts:
        return skills.draw(source)
    if meaning and source.dice.random() < 0.4:
        return f"What does this do? {code}", meaning[:100]
    if source.dice.random() < 0.5:
        return f"Name of this function: {code}", parts[1]
    return f"Write a function {parts[1]}({parts[2]})", code
