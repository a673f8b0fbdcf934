"""Arithmetic of a run: how many steps, which rows when, what learning rate. Pure functions of the recipe and the step.

Nothing here depends on what was asked before, so a run that resumes at step s sees what an uninterrupted one would.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from engine.data.examples import Example, draws
from engine.errors import DataError
from engine.recipe import Recipe, Training


def total_steps(training: Training, rows: int) -> int:
    """Updates in the whole run: `steps` if given, else enough for the epochs; a last partial batch is filled up."""
    if training.steps is not None:
        return training.steps
    # 1.1 epochs of 100 rows are 110.00000000000001 in floating point, which is no reason for one more step.
    return max(1, math.ceil(training.epochs * rows / training.batch_size - 1e-9))


def learning_rate(training: Training, step: int, total: int) -> float:
    """The rate of update `step` (0-based) of `total`: up over the warm-up, then linear, cosine or constant.

    The warm-up lasts round(warmup x total) updates and never starts at 0; the fall ends at final_lr_fraction.
    """
    warm = round(training.warmup * total)
    if step < warm:
        return training.learning_rate * (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, total - warm)
    floor = training.final_lr_fraction
    share = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[training.schedule]
    if training.schedule == "constant":
        return training.learning_rate
    return training.learning_rate * (floor + (1 - floor) * share)


class Order:
    """Which rows when. An epoch goes through the main source once, in an order of its own, and draws from the others by their shares,
    each of which is gone through in turn. With `hardness` the first time goes from easy to hard, in every source alike.

    `sources` is where each row is from (0: the main source), `shares` how much of what is drawn comes from each, `hardness` how hard each
    row is (None: not known, so it comes anywhere), `total` how many steps there will be. `examples` are what the rows come from.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int,
        sources: Sequence[int],
        shares: Sequence[float] = (1.0,),
        hardness: Sequence[float | None] = (),
        total: int | None = None,
        examples: Sequence[Example] = (),
    ):
        self.examples = examples
        self._batch_size, self._seed, self._hardness = batch_size, seed, tuple(hardness)
        self._pools: list[list[int]] = [[] for _ in shares]
        for row, source in enumerate(sources):
            self._pools[source].append(row)
        self._drawn = draws([len(pool) for pool in self._pools], shares)
        self.rows = sum(self._drawn)
        """How many rows an epoch draws."""
        # A run that ends before its first epoch does goes from easy to hard over what it will see of it.
        self._first = self.rows if total is None else min(self.rows, total * batch_size)
        self._known: dict[int, list[int]] = {}

    def of_step(self, step: int) -> list[int]:
        """Positions of the rows in batch `step` (0-based)."""
        first = step * self._batch_size
        return [self._epoch(place // self.rows)[place % self.rows] for place in range(first, first + self._batch_size)]

    def first_rows(self) -> list[int]:
        """The rows that the first time through will see, each once."""
        return sorted(set(self._drawn_rows(0)[: self._first]))

    def rank(self, hardness: Mapping[int, float | None]) -> None:
        """How hard those rows turned out to be, before the first batch is drawn."""
        self._hardness = tuple(hardness.get(row) for row in range(len(self.examples)))
        self._known.clear()

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._known:
            while len(self._known) >= 3:
                del self._known[next(iter(self._known))]
            self._known[epoch] = self._draw(epoch)
        return self._known[epoch]

    def _draw(self, epoch: int) -> list[int]:
        drawn = self._drawn_rows(epoch)
        if epoch or not self._hardness:
            return drawn
        return self._easy_first(drawn[: self._first]) + drawn[self._first :]

    def _drawn_rows(self, epoch: int) -> list[int]:
        """All of an epoch's rows, drawn."""
        drawn = list(self._pools[0])
        for source, (pool, count) in enumerate(zip(self._pools[1:], self._drawn[1:], strict=True), 1):
            for place in range(epoch * count, (epoch + 1) * count):
                drawn.append(self._turn(pool, source, place // len(pool))[place % len(pool)])
        random.Random(f"{self._seed}/{epoch}").shuffle(drawn)
        return drawn

    def _turn(self, pool: list[int], source: int, turn: int) -> list[int]:
        """A further source's own order, the `turn`-th time."""
        key = -1 - turn * len(self._pools) - source
        if key not in self._known:
            order = list(pool)
            random.Random(f"{self._seed}/{source}/{turn}").shuffle(order)
            self._known[key] = order
        return self._known[key]

    def _easy_first(self, drawn: list[int]) -> list[int]:
        """Each source by its own hardness, so that the shares hold all along."""
        place_of = {row: source for source, pool in enumerate(self._pools) for row in pool}
        ranked: dict[int, list[int]] = defaultdict(list)
        places: list[tuple[float, int]] = []
        chance = random.Random(f"{self._seed}/easy first")
        for number, row in enumerate(drawn):
            if self._hardness[row] is None:
                places.append((chance.random(), number))
            else:
                ranked[place_of[row]].append(number)
        for numbers in ranked.values():
            numbers.sort(key=lambda number: (self._hardness[drawn[number]], number))
            places += [((rank + 0.5) / len(numbers), number) for rank, number in enumerate(numbers)]
        return [drawn[number] for _, number in sorted(places)]


def order(recipe: Recipe, examples: Sequence[Example], lengths: Sequence[int]) -> Order:
    """The order of a recipe's rows: for each the example that it comes from, and its length in tokens. Raises DataError."""
    spec, training = recipe.data, recipe.training
    weights = [mixed.weight for mixed in spec.mix]
    shares = (1 - sum(weights), *weights)
    hardness: Sequence[float | None] = ()
    if spec.curriculum == "length":
        hardness = [float(length) for length in lengths]
    elif spec.curriculum == "column":
        hardness = [_hardness(example, spec.curriculum_column) for example in examples]
    elif spec.curriculum == "loss":
        _all_answered(examples)
    sources = [example.source for example in examples]
    rows = Order(training.batch_size, recipe.seed, sources, shares).rows
    return Order(training.batch_size, recipe.seed, sources, shares, hardness, total_steps(training, rows), examples)


def _all_answered(examples: Sequence[Example]) -> None:
    for example in examples:
        if not example.answer and example.kind != "replay" and not example.source:
            advice = "Give each row the answer that is expected, or choose another curriculum."
            raise DataError(f"row {example.row:,} has no answer that the model could be surprised by", advice, where="data.curriculum loss")


def _hardness(example: Example, column: str) -> float | None:
    """What the column says. Older skills and what is mixed in may lack it."""
    said = example.columns.get(column)
    if said in (None, "") and (example.kind == "replay" or example.source):
        return None
    try:
        found = float(said)  # type: ignore[arg-type]
        if math.isfinite(found):
            return found
    except (TypeError, ValueError):
        pass
    what = "has no such column" if said in (None, "") else f"holds {str(said)[:40]!r} there, which is no number"
    advice = "Write how hard each row is as a number, or choose another curriculum."
    raise DataError(f"row {example.row:,} {what}", advice, where=f"data.curriculum_column {column}")


def rows_of_step(step: int, batch_size: int, rows: int, seed: int) -> list[int]:
    """Positions of the rows in batch `step` (0-based) where all are alike: every row once an epoch, each epoch in its own order."""
    return Order(batch_size, seed, [0] * rows).of_step(step)
