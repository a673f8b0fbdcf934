"""The words that the demos and nano's skills are made of, and dice that fall the same on every Python.

`words.txt` was taken from the prose of the standard library's docstrings by `extract`; it is kept as a file because the
standard library's text differs between Python versions. A tenth of the words, chosen by hash, is held out: no training row
is ever made with them. Knows nothing of tasks.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, MutableSequence, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
WORDS_FILE = Path(__file__).with_name("words.txt")


class Dice(random.Random):
    """Seeded choices that rest on `random()` alone, the one method whose sequence Python promises never to change."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        low, high = (0, start) if stop is None else (start, stop)
        return low + int(self.random() * (high - low))

    def randint(self, a: int, b: int) -> int:
        return self.randrange(a, b + 1)

    def choice(self, seq: Sequence[T]) -> T:
        return seq[self.randrange(len(seq))]

    def shuffle(self, x: MutableSequence) -> None:
        for last in range(len(x) - 1, 0, -1):
            other = self.randrange(last + 1)
            x[last], x[other] = x[other], x[last]


def is_held_out(word: str) -> bool:
    """Whether the word belongs to the tenth that no training row may use."""
    return int(hashlib.md5(word.encode(), usedforsecurity=False).hexdigest()[:8], 16) % 10 == 0


@cache
def all_words() -> tuple[str, ...]:
    """Every word, sorted."""
    return tuple(WORDS_FILE.read_text(encoding="utf-8").split())


def train_words() -> tuple[str, ...]:
    """The words that training rows are made of."""
    return tuple(word for word in all_words() if not is_held_out(word))


def held_out_words() -> tuple[str, ...]:
    """The words that only evaluations use."""
    return tuple(word for word in all_words() if is_held_out(word))


def words_of(text: str) -> set[str]:
    """The lower-case words in a text, to tell whether two rows share one."""
    return set(re.findall(r"[a-z]+", text.lower()))


def extract(docstrings: Iterable[str]) -> list[str]:
    """Real words of 3 to 10 letters that occur at least twice in prose: how `words.txt` was made."""
    counts = Counter(re.findall(r"(?<![\w.])[a-z]{3,10}(?![\w(])", "\n".join(docstrings)))
    return sorted(word for word, times in counts.items() if times >= 2 and re.search("[aeiouy]", word) and not re.search(r"(.)\1\1", word))
