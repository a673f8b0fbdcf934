"""The camelCase demo: several words become one name, as programmers write it.

No word of a held-out prompt occurs in any training row. Knows nothing of how files are written.
"""

from __future__ import annotations

from engine.data.demos.making import with_replay, word_held_out, word_tasks
from engine.data.demos.skills import Pair, Source

TASK_ROWS = 1800
HELD_OUT_ROWS = 300


def camel_case(words: list[str]) -> str:
    """The words as one, each but the first with a capital."""
    return words[0] + "".join(word.capitalize() for word in words[1:])


def task(source: Source) -> Pair:
    """A prompt of two or three words and its answer."""
    words = source.words(2, 3)
    return "camelCase: " + " ".join(words), camel_case(words)


def train_rows() -> list[dict]:
    """What to train on."""
    return with_replay(word_tasks(task, TASK_ROWS))


def held_out_rows(seen: set[str]) -> list[dict]:
    """What to prove with: held-out words, none of `seen`."""
    return word_held_out(task, HELD_OUT_ROWS, seen)
