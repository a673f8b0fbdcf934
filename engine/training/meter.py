"""The meter of one run: tokens by kind as they are asked for, what they come to in money, and the cap that the run stops at.

Counts over all attempts: what an attempt that was cut off had asked for was asked for, and paid. Knows prices and the recipe's budget;
nothing of endpoints or methods.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.amounts import dollars, duration
from engine.errors import BudgetSpent
from engine.knowledge.pricing import KINDS, Price
from engine.recipe import Budget
from engine.store.artefacts import read_json, write_json_atomic

FILE = "meter.json"
KEEP_EVERY_S = 2.0
_ADVICE = "What it learned is saved. Raise the limit and resume it, or leave it at that."


class Meter:
    """`counted` is the client's own count, which goes on while this is looked at. `price` is None where it isn't known."""

    def __init__(
        self, counted: Counter[str], price: Price | None, budget: Budget, folder: Path, clock: Callable[[], float] = time.monotonic
    ):
        self.counted, self.price, self.budget = counted, price, budget
        self._file, self._clock = folder / FILE, clock
        self._began, self._earlier = clock(), 0.0
        self._kept_at = -KEEP_EVERY_S
        self._marked: dict[str, int] = {}
        self.step_cost: dict[str, int] = {}
        self.proof_cost: dict[str, int] = {}
        self.spent: BudgetSpent | None = None

    @property
    def seconds(self) -> float:
        """For which the run was at work."""
        return self._earlier + self._clock() - self._began

    def values(self, counted: Mapping[str, int] | None = None) -> dict[str, float]:
        """The numbers of a step: tokens of each kind so far, and dollars where they aren't free."""
        counted = self.counted if counted is None else counted
        found = {f"{kind}_tokens": float(counted.get(kind, 0)) for kind in KINDS}
        if self.price is not None and not self.price.free:
            found["dollars"] = self.price.dollars(counted)
        return found

    def mark(self) -> dict[str, int]:
        """Here something begins whose cost is wanted. -> what is counted up to now."""
        self._marked = dict(self.counted)
        return self._marked

    def stepped(self) -> dict[str, int]:
        """A step was sent off. -> what is counted with it; the costliest is what the next one may come to."""
        cost = self._since_mark()
        if sum(cost.values()) > sum(self.step_cost.values()):
            self.step_cost = cost
        return dict(self.counted)

    def proven(self) -> None:
        """The first side of the proof was measured; the second will come to about as much."""
        self.proof_cost = self._since_mark()

    def reached(self, ahead: Mapping[str, int] | None = None) -> BudgetSpent | None:
        """The limit that is reached, or would be passed by what lies `ahead`; None while there is room. `spent` keeps it."""
        self.spent = self._reached(ahead)
        return self.spent

    def _reached(self, ahead: Mapping[str, int] | None) -> BudgetSpent | None:
        soon = Counter(self.counted) + Counter(ahead or {})
        budget, now, then = self.budget, sum(self.counted.values()), sum(soon.values())
        if budget.max_tokens is not None and (now >= budget.max_tokens or then > budget.max_tokens):
            told = f"the run stops at {now:,} tokens, for its limit is {budget.max_tokens:,}"
            return BudgetSpent(told, _ADVICE, where="recipe budget.max_tokens")
        if budget.max_dollars is not None and self.price is not None and not self.price.free:
            spent, next_ = self.price.dollars(self.counted), self.price.dollars(soon)
            if spent >= budget.max_dollars or next_ > budget.max_dollars:
                told = f"the run stops at {dollars(spent)}, for its limit is {dollars(budget.max_dollars)}"
                return BudgetSpent(told, _ADVICE, where="recipe budget.max_dollars")
        if budget.max_minutes is not None and self.seconds >= budget.max_minutes * 60:
            told = f"the run stops after {duration(self.seconds)}, for its limit is {duration(budget.max_minutes * 60)}"
            return BudgetSpent(told, _ADVICE, where="recipe budget.max_minutes")
        return None

    def keep(self, *, now: bool = False) -> None:
        """Writes the count down every few seconds, so that an attempt that is cut off doesn't lose it."""
        if now or self._clock() - self._kept_at >= KEEP_EVERY_S:
            self._kept_at = self._clock()
            write_json_atomic(self._file, {"counted": dict(self.counted), "seconds": self.seconds})

    def state(self) -> dict[str, Any]:
        """What goes along with a checkpoint; the count itself goes there too."""
        return {"seconds": self.seconds, "step_cost": self.step_cost, "proof_cost": self.proof_cost}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint's state, and from what was written down after it."""
        self.step_cost, self.proof_cost = dict(state.get("step_cost", {})), dict(state.get("proof_cost", {}))
        self._earlier = float(state.get("seconds", 0.0))
        kept = read_json(self._file) or {}
        self._earlier = max(self._earlier, float(kept.get("seconds", 0.0)))
        for kind, count in kept.get("counted", {}).items():
            self.counted[kind] = max(self.counted[kind], int(count))
        self._began = self._clock()

    def _since_mark(self) -> dict[str, int]:
        return {kind: count - self._marked.get(kind, 0) for kind, count in self.counted.items() if count > self._marked.get(kind, 0)}
