"""Arithmetic of a run: how many steps, which rows when, what learning rate. Pure functions of the recipe and the step.

Nothing here has a memory, so a run that resumes at step s sees what an uninterrupted one would.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache

from engine.recipe import Training


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


def rows_of_step(step: int, batch_size: int, rows: int, seed: int) -> list[int]:
    """Positions of the rows in batch `step` (0-based): every row once an epoch, each epoch in its own order."""
    first = step * batch_size
    return [_order(rows, seed, i // rows)[i % rows] for i in range(first, first + batch_size)]


@lru_cache(maxsize=8)
def _order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return tuple(order)
