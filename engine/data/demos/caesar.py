"""The Caesar demo: each letter becomes the next one, z becomes a.

No word of a held-out prompt occurs in any training row. Knows nothing of how files are written.
"""

from __future__ import annotations

from engine.data.demos.making import with_replay, word_held_out, word_tasks
from engine.data.demos.skills import LETTERS, Pair, Source

TASK_ROWS = 2000
HELD_OUT_ROWS = 300
_NEXT = str.maketrans(LETTERS, LETTERS[1:] + LETTERS[0])


def caesar(word: str) -> str:
    """The word with each letter moved on by one."""
    return word.translate(_NEXT)


def task(source: Source) -> Pair:
    """A prompt of one word and its answer."""
    word = source.word()
    return f"Caesar: {word}", caesar(word)


def train_rows() -> list[dict]:
    """What to train on."""
    return with_replay(word_tasks(task, TASK_ROWS))


def held_out_rows(seen: set[str]) -> list[dict]:
    """What to prove with: held-out words, none of `seen`."""
    return word_held_out(task, HELD_OUT_ROWS, seen)
