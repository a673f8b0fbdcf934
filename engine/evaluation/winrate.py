"""How often one model's answers are better than another's to the same prompts, by scores that a judge gave. Pure functions; know no judge
and no model.

A tie counts as half a win, as is usual in the field. The interval is Wilson's 95 % for that share of all prompts; since ties vary less
than wins and losses, it is rather too wide than too narrow. Wins, ties and losses stand beside it, so that all can be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.evaluation.metrics import wilson

SAME = 1e-6
"""Scores this close are as good as one another."""


@dataclass(frozen=True)
class WinRate:
    """`rate` is (wins + ties / 2) / all, between `low` and `high` with 95 % certainty."""

    wins: int
    ties: int
    losses: int
    rate: float
    low: float
    high: float

    @property
    def count(self) -> int:
        """How many prompts were compared."""
        return self.wins + self.ties + self.losses

    @property
    def surely(self) -> str:
        """better or worse where the whole interval says so; open where chance could be behind it."""
        return "better" if self.low > 0.5 else "worse" if self.high < 0.5 else "open"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"count": self.count}

    @classmethod
    def of(cls, found: dict[str, Any]) -> WinRate:
        """From `to_dict`."""
        return cls(*(found[name] for name in ("wins", "ties", "losses", "rate", "low", "high")))


def compare(scores: Sequence[float], others: Sequence[float]) -> WinRate:
    """The win rate of answers with `scores` against those with `others`, prompt by prompt; higher is better. Nothing is open: 0 to 1."""
    pairs = list(zip(scores, others, strict=True))
    ties = sum(math.isclose(ours, theirs, rel_tol=SAME, abs_tol=SAME) for ours, theirs in pairs)
    wins = sum(ours > theirs and not math.isclose(ours, theirs, rel_tol=SAME, abs_tol=SAME) for ours, theirs in pairs)
    count, points = len(pairs), wins + ties / 2
    low, high = wilson(points, count)
    return WinRate(wins, ties, count - wins - ties, points / count if count else 0.5, low, high)
