"""A large forward in parts, a few of them on their way at a time, so that whoever leaves it out waits for a few parts and not for all.

Only for looking: between the parts nothing may be learned. Knows nothing of what the numbers are for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

PART_TOKENS = 16_384
LEAST_AHEAD, MOST_AHEAD = 2, 8
AHEAD_S = 3.0  # of work on its way


@dataclass
class Whole:
    """What the parts add up to: each row's outputs in order, sums of metrics that are sums."""

    loss_fn_outputs: list[Any] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, reply: Any) -> None:
        """One more part."""
        self.loss_fn_outputs += reply.loss_fn_outputs
        for name, value in reply.metrics.items():
            if name.endswith(":sum"):
                self.metrics[name] = self.metrics.get(name, 0.0) + value


class InParts:
    """A forward that is sent part by part while it is waited for."""

    def __init__(self, parts: Sequence[list[Any]], send: Callable[[list[Any]], Any]):
        self._waiting, self._send = deque(parts), send
        self._sent: deque[Any] = deque()
        self._ahead(LEAST_AHEAD)

    def collect(self, wait: Callable[[Any], Any]) -> Whole:
        """Waits for all of it."""
        whole, began, done = Whole(), time.monotonic(), 0
        while self._sent:
            whole.add(wait(self._sent.popleft()))
            done += 1
            each = (time.monotonic() - began) / done
            self._ahead(max(LEAST_AHEAD, min(MOST_AHEAD, int(AHEAD_S / max(each, 1e-3)))))
        return whole

    def _ahead(self, most: int) -> None:
        while self._waiting and len(self._sent) < most:
            self._sent.append(self._send(self._waiting.popleft()))


def parts_of(datums: Sequence[Any]) -> Iterator[list[Any]]:
    """In order, each of at most PART_TOKENS tokens or of one row."""
    part: list[Any] = []
    tokens = 0
    for row in datums:
        length = row.model_input.length
        if part and tokens + length > PART_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += length
    if part:
        yield part
