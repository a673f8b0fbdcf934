"""Steps, rows and rates, against numbers worked out by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from engine.recipe import Recipe, Training
from engine.training.schedule import learning_rate, rows_of_step, total_steps


def training(**values) -> Training:
    return Recipe.make({"training": {"learning_rate": 1.0, **values}}).training


def rates(total: int, **values) -> list[float]:
    return [learning_rate(training(**values), step, total) for step in range(total)]


def test_linear_after_a_warm_up():
    # Two updates of warm-up at thirds, then eight that fall by an eighth each.
    assert rates(10, schedule="linear", warmup=0.2) == pytest.approx([1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_cosine():
    # (1 + cos(k pi / 4)) / 2 for k = 0 .. 3; cos(pi / 4) = 0.70710678...
    assert rates(4, schedule="cosine", warmup=0) == pytest.approx([1, 0.8535533906, 0.5, 0.1464466094])


def test_constant_rises_too():
    assert rates(4, schedule="constant", warmup=0.25, final_lr_fraction=0.5) == pytest.approx([0.5, 1, 1, 1])


def test_what_is_left_at_the_end():
    # 0.2 + 0.8 x (1, 3/4, 1/2, 1/4), and for cosine 0.2 + 0.8 x its own shares.
    assert rates(4, schedule="linear", warmup=0, final_lr_fraction=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])
    assert rates(4, schedule="cosine", warmup=0, final_lr_fraction=0.2) == pytest.approx([1, 0.8828427125, 0.6, 0.3171572875])


def test_the_peak_is_the_rate_that_was_asked_for():
    given = training(learning_rate=3e-4, warmup=0.1)
    assert max(learning_rate(given, step, 50) for step in range(50)) == 3e-4
    assert all(learning_rate(given, step, 50) > 0 for step in range(50))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_runs_of_one_step_learn(schedule):
    assert rates(1, schedule=schedule, warmup=0.5) == [1.0]


@pytest.mark.parametrize(
    ("values", "rows", "steps"),
    [
        ({"epochs": 1, "batch_size": 32}, 100, 4),  # 3.125 batches
        ({"epochs": 2.5, "batch_size": 4}, 10, 7),  # 6.25
        ({"epochs": 0.1, "batch_size": 32}, 3, 1),
        ({"epochs": 1.1, "batch_size": 10}, 100, 11),  # 110.00000000000001 rows in floating point
        ({"epochs": 3, "batch_size": 32, "steps": 7}, 1000, 7),
    ],
)
def test_total_steps(values, rows, steps):
    assert total_steps(training(**values), rows) == steps


@pytest.mark.parametrize(("rows", "size"), [(10, 4), (7, 7), (5, 12), (1, 3)])
def test_every_row_once_an_epoch(rows, size):
    stream = list(chain.from_iterable(rows_of_step(step, size, rows, seed=3) for step in range(rows * 3)))
    epochs = [stream[start : start + rows] for start in range(0, rows * 3 * size, rows)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert Counter(stream) == dict.fromkeys(range(rows), 3 * size)


def test_each_epoch_and_seed_in_its_own_order():
    orders = [tuple(rows_of_step(epoch, 30, 30, seed)) for epoch in range(4) for seed in (0, 1)]
    assert len(set(orders)) == len(orders)


def test_no_memory():
    forwards = [rows_of_step(step, 6, 20, seed=5) for step in range(40)]
    assert [rows_of_step(step, 6, 20, seed=5) for step in reversed(range(40))] == forwards[::-1]


def test_the_same_in_every_process():
    program = "from engine.training.schedule import rows_of_step; print([rows_of_step(s, 5, 13, 7) for s in range(9)])"
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert said == [str([rows_of_step(step, 5, 13, 7) for step in range(9)])] * 2
