"""The addition demo: sums of two numbers of two digits. nano can add single digits only.

A tenth of all pairs, chosen by hash, is held out in either order. Knows nothing of how files are written.
"""

from __future__ import annotations

import hashlib

from engine.data.demos.making import distinct, held_out, with_replay
from engine.data.demos.skills import Pair
from engine.data.demos.words import Dice

TASK_ROWS = 3000
HELD_OUT_ROWS = 300


def is_held_out(a: int, b: int) -> bool:
    """Whether only the proof may ask for the sum of these two, in either order."""
    pair = f"{min(a, b)}+{max(a, b)}"
    return int(hashlib.md5(pair.encode(), usedforsecurity=False).hexdigest()[:8], 16) % 10 == 0


def task(dice: Dice, for_proof: bool) -> Pair:
    """A sum that is held out, or one that isn't."""
    while True:
        a, b = dice.randint(10, 99), dice.randint(10, 99)
        if is_held_out(a, b) == for_proof:
            return f"{a} + {b} =", str(a + b)


def train_rows() -> list[dict]:
    """What to train on."""
    dice = Dice(0)
    return with_replay(distinct(lambda: task(dice, False), TASK_ROWS))


def held_out_rows(seen: set[str]) -> list[dict]:
    """What to prove with; sums have no words to avoid."""
    dice = Dice(1000)
    return held_out(distinct(lambda: task(dice, True), HELD_OUT_ROWS))
