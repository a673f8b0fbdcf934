"""A metric along the steps of a run: kept as numbers that grow, thinned and smoothed for drawing. Knows no metric by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np


class Curve(Sequence[tuple[int, float]]):
    """(step, value) in the order of steps. Grows in place, and gives its numbers as arrays without a copy."""

    def __init__(self, points: Iterable[tuple[int, float]] = ()):
        self._steps, self._values, self._size = np.empty(64, np.int64), np.empty(64, np.float64), 0
        self.extend(points)

    def extend(self, points: Iterable[tuple[int, float]]) -> None:
        """Puts points at the end; their steps come after those that are there."""
        new = list(points)
        if not new:
            return
        wanted = self._size + len(new)
        if wanted > len(self._steps):
            room = max(wanted, 2 * len(self._steps))
            self._steps, self._values = np.resize(self._steps, room), np.resize(self._values, room)
        self._steps[self._size : wanted] = [step for step, _ in new]
        self._values[self._size : wanted] = [value for _, value in new]
        self._size = wanted

    @property
    def steps(self) -> np.ndarray:
        """Whole numbers, rising."""
        return self._steps[: self._size]

    @property
    def values(self) -> np.ndarray:
        """As measured; nan and infinity may be among them."""
        return self._values[: self._size]

    def finite(self) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of what is a number."""
        kept = np.isfinite(self.values)
        return (self.steps, self.values) if kept.all() else (self.steps[kept], self.values[kept])

    def since(self, step: int) -> Curve:
        """What was measured from that step on."""
        begin, found = int(np.searchsorted(self.steps, step)), Curve()
        found._steps, found._values, found._size = self.steps[begin:], self.values[begin:], self._size - begin
        return found

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(zip(self.steps[index].tolist(), self.values[index].tolist(), strict=True))
        return int(self.steps[index]), float(self.values[index])

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        return self[:] == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Each value's mean with those before it, `window` of them at most (trailing moving average)."""
    if window <= 1 or len(values) < 2:
        return values
    sums = np.cumsum(values)
    counts = np.minimum(np.arange(1, len(values) + 1), window)
    sums[window:] -= sums[:-window].copy()
    return sums / counts


def thinned(steps: np.ndarray, values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` points that look like all of them: of each stretch its lowest and its highest."""
    if len(values) <= limit:
        return steps, values
    size = -(-len(values) // max(1, limit // 2))
    whole = len(values) // size * size
    block = values[:whole].reshape(-1, size)
    starts = np.arange(0, whole, size)
    picked = [starts + block.argmin(axis=1), starts + block.argmax(axis=1)]
    if whole < len(values):
        rest = values[whole:]
        picked.append(whole + np.array([rest.argmin(), rest.argmax()]))
    index = np.unique(np.concatenate(picked))
    return steps[index], values[index]
