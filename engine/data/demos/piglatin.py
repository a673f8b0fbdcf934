"""The Pig Latin demo: something nano can't do at first and learns in under a minute.

No word of a held-out or skills prompt occurs in any training row, replay or task. Knows nothing of how files are written.
"""

from __future__ import annotations

import re

from engine.data.demos.making import with_replay, word_held_out, word_tasks
from engine.data.demos.skills import Pair, Source

TASK_ROWS = 3000
HELD_OUT_ROWS = 400


def pig_latin(word: str) -> str:
    """The word in Pig Latin: the consonants before the first vowel go to the end, with 'ay'; 'qu' stays together."""
    start, rest = re.match(r"((?:[^aeiouy]*qu|y?[^aeiouy]*))(.*)", word).groups()
    return f"{rest}-{start}ay" if start else f"{word}-way"


def task(source: Source) -> Pair:
    """A prompt of one or two words and its answer."""
    words = source.words(1, 2)
    return "Pig Latin: " + " ".join(words), " ".join(map(pig_latin, words))


def train_rows() -> list[dict]:
    """What to train on."""
    return with_replay(word_tasks(task, TASK_ROWS))


def held_out_rows(seen: set[str]) -> list[dict]:
    """What to prove with: held-out words, none of `seen`."""
    return word_held_out(task, HELD_OUT_ROWS, seen)
