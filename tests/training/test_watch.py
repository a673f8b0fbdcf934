"""When a run stops early, which step was best, and when its rate is lowered."""

from __future__ import annotations

import math

import pytest

from engine.recipe import Training
from engine.training.watch import Watch


def seen(values: list[float], better: str = "down", **training) -> Watch:
    watch, spec = Watch(), Training(**training)
    for step, value in enumerate(values):
        watch.see(value, step * 10, spec, better)
    return watch


def test_the_best_is_remembered() -> None:
    watch = seen([3.0, 2.0, 2.5, 2.0, 2.2])
    assert (watch.best, watch.best_step, watch.since) == (2.0, 10, 3)
    watch = seen([0.1, 0.4, 0.3], "up")
    assert (watch.best, watch.best_step, watch.since) == (0.4, 10, 1)


def test_patience_ends_a_run() -> None:
    spec = Training(patience=2)
    assert not seen([3.0, 2.0, 2.5], patience=2).enough(spec)
    assert seen([3.0, 2.0, 2.5, 2.6], patience=2).enough(spec)
    assert not seen([3.0] * 50).enough(Training())


def test_a_plateau_lowers_the_rate_again_and_again() -> None:
    assert seen([3.0, 3.0, 3.0], plateau=2, plateau_factor=0.5).scale == 0.5
    assert seen([3.0] * 5, plateau=2, plateau_factor=0.5).scale == 0.25
    assert seen([3.0, 3.0, 2.9, 2.9], plateau=2).scale == 1.0


@pytest.mark.parametrize("better", ["down", "up"])
def test_what_is_no_number_is_never_best(better: str) -> None:
    watch = seen([math.nan, math.inf, 1.0, -math.inf], better)
    assert watch.best == 1.0


def test_it_goes_along_with_a_checkpoint() -> None:
    watch = seen([3.0, 2.0, 2.5], plateau=1)
    assert Watch(**watch.to_dict()) == watch
