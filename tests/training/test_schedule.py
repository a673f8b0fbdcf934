"""Steps, rows and rates, against numbers worked out by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from engine.data.examples import Example
from engine.errors import DataError, RecipeError
from engine.recipe import Recipe, Training
from engine.training.schedule import Order, learning_rate, order, rows_of_step, total_steps


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


def test_mixed_sources_are_drawn_by_their_shares():
    # 12 rows of the main source at 60 %, 5 at 25 %, 40 at 15 %: an epoch is 12 + 12 x 25/60 + 12 x 15/60 = 12 + 5 + 3.
    sources = [0] * 12 + [1] * 5 + [2] * 40
    order = Order(4, 7, sources, (0.6, 0.25, 0.15))
    assert order.rows == 20
    epochs = [list(chain.from_iterable(order.of_step(step) for step in range(5 * e, 5 * e + 5))) for e in range(13)]
    for epoch in epochs:
        assert sorted(row for row in epoch if row < 12) == list(range(12))
        assert sorted(row for row in epoch if 12 <= row < 17) == list(range(12, 17))
        assert len([row for row in epoch if row >= 17]) == 3
    # 13 epochs draw 39 of the 40: a source that isn't gone through yet gives no row twice.
    assert len({row for epoch in epochs for row in epoch if row >= 17}) == 39
    assert epochs[0] != epochs[1]
    again = Order(4, 7, sources, (0.6, 0.25, 0.15))
    assert [again.of_step(step) for step in (40, 3, 17)] == [order.of_step(step) for step in (40, 3, 17)]


def test_a_small_source_is_gone_through_again_and_again():
    order = Order(5, 0, [0] * 10 + [1] * 2, (0.5, 0.5))
    assert order.rows == 20
    for epoch in range(3):
        drawn = Counter(chain.from_iterable(order.of_step(step) for step in range(4 * epoch, 4 * epoch + 4)))
        assert drawn[10] == drawn[11] == 5 and all(drawn[row] == 1 for row in range(10))


def test_easy_first_then_drawn():
    hardness = [float(row % 10) for row in range(30)]
    order = Order(3, 1, [0] * 30, hardness=hardness)
    first = [hardness[row] for step in range(10) for row in order.of_step(step)]
    assert first == sorted(hardness)
    second = [row for step in range(10, 20) for row in order.of_step(step)]
    assert sorted(second) == list(range(30)) and [hardness[row] for row in second] != sorted(hardness)
    # What is alike comes in an order that the seed draws.
    assert order.of_step(0) != Order(3, 2, [0] * 30, hardness=hardness).of_step(0)


def test_a_run_that_ends_early_goes_from_easy_to_hard_too():
    hardness = [float(row) for row in range(100)]
    order = Order(5, 1, [0] * 100, hardness=hardness, total=4)
    seen = [row for step in range(4) for row in order.of_step(step)]
    assert seen == sorted(seen) and len(set(seen)) == 20 and max(seen) > 60
    rest = [row for step in range(4, 20) for row in order.of_step(step)]
    assert sorted(seen + rest) == list(range(100))


def test_shares_hold_while_it_gets_harder():
    # The other source's rows are all longer than the main one's, older skills aren't known: each is spread over the whole epoch.
    sources = [0] * 80 + [1] * 40
    hardness = [float(row) if row < 60 else None for row in range(80)] + [1000.0 + row for row in range(40)]
    order = Order(10, 3, sources, (2 / 3, 1 / 3), hardness)
    halves = [[row for step in range(6 * half, 6 * half + 6) for row in order.of_step(step)] for half in (0, 1)]
    for half in halves:
        assert sum(row >= 80 for row in half) == pytest.approx(20, abs=2) and 4 <= sum(60 <= row < 80 for row in half) <= 16
    assert max(row for row in halves[0] if row < 60) < min(row for row in halves[1] if row < 60)


def test_the_order_of_a_recipe():
    examples = [Example([{"role": "user", "content": "Q"}], n + 1, columns={"level": str(9 - n)}) for n in range(10)]
    examples.append(Example([{"role": "user", "content": "Q"}], 11, "replay"))
    lengths = [5, 4, 3, 2, 1, 6, 7, 8, 9, 10, 11]
    made = {"training": {"batch_size": 11}}
    by_length = order(Recipe.make({**made, "data": {"curriculum": "length"}}), examples, lengths)
    assert by_length.of_step(0) == [4, 3, 2, 1, 0, 5, 6, 7, 8, 9, 10]
    by_column = order(Recipe.make({**made, "data": {"curriculum": "column", "curriculum_column": "level"}}), examples, lengths)
    assert [row for row in by_column.of_step(0) if row != 10] == list(range(9, -1, -1))
    assert order(Recipe.make(made), examples, lengths).of_step(3) == rows_of_step(3, 11, 11, 0)
    examples[4].columns["level"] = "hard"
    with pytest.raises(DataError, match="row 5 holds 'hard' there, which is no number"):
        order(Recipe.make({"data": {"curriculum": "column", "curriculum_column": "level"}}), examples, lengths)
    with pytest.raises(DataError, match="row 1 has no such column"):
        order(Recipe.make({"data": {"curriculum": "column", "curriculum_column": "grade"}}), examples, lengths)
    with pytest.raises(RecipeError, match="go together"):
        Recipe.make({"data": {"curriculum": "column"}})
