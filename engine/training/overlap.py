"""What it is worth to send steps ahead, measured in the run itself: a step that followed on nothing is what each would take alone.

At its boundaries a run's pipeline is empty, so the step after one shows the time from its sending to its result, waits for the network
included. Knows no method.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

LEAST = 2  # steps alone that a figure needs


@dataclass(frozen=True)
class Saved:
    """Seconds of a step awaited alone and of one among others (medians and means), and what all steps together saved."""

    alone: float
    step: float
    seconds: float


class Overlap:
    """One stage's steps in one attempt."""

    def __init__(self) -> None:
        self._alone: list[float] = []
        self._sent = 0

    def sent(self, future: Any, began: float, pending: int) -> None:
        """A step whose sending began then, with so many before it that weren't over. The attempt's first warms up, and isn't counted."""
        self._sent += 1
        if pending or self._sent == 1:
            return
        # When it is over, not when somebody looks: that happens only after more has been sent.
        future.future().add_done_callback(lambda _: self._alone.append(time.monotonic() - began))

    def saved(self, steps: int, seconds: float) -> Saved | None:
        """What so many steps that took so long together saved; None where too few stood alone."""
        if len(self._alone) < LEAST or not steps:
            return None
        alone = median(self._alone)
        return Saved(alone, seconds / steps, max(0.0, alone * steps - seconds))
