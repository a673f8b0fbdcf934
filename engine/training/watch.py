"""Watches the held-out number: which step was best, when to stop, when to lower the learning rate. Pure; measures nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from engine.recipe import Training


@dataclass
class Watch:
    """What was seen so far. `since` and `flat` count measurements without anything better, `flat` since the rate was last lowered."""

    best: float | None = None
    best_step: int = -1
    since: int = 0
    flat: int = 0
    scale: float = 1.0

    def see(self, value: float, step: int, training: Training, better: str) -> bool:
        """Takes in a measurement. -> whether it is the best so far. `better`: down or up."""
        if math.isfinite(value) and (self.best is None or (value < self.best if better == "down" else value > self.best)):
            self.best, self.best_step, self.since, self.flat = value, step, 0, 0
            return True
        self.since += 1
        self.flat += 1
        if training.plateau and self.flat >= training.plateau:
            self.scale *= training.plateau_factor
            self.flat = 0
        return False

    def enough(self, training: Training) -> bool:
        """Whether to stop early."""
        return bool(training.patience) and self.since >= training.patience

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
