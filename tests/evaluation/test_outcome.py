"""What a proof says in numbers, for every kind of result that there is."""

from __future__ import annotations

import math

import pytest

from engine.data import Example
from engine.evaluation import outcome
from engine.evaluation.proof import compare, measure


def result(before: dict, after: dict) -> dict:
    return {"held_out": {"before": before, "after": after}}


def test_right_answers_come_first_and_intervals_are_no_numbers_of_their_own() -> None:
    side = {"count": 50, "exact_match_low": 0.0, "exact_match_high": 1.0, "loss": 2.0, "token_f1": 0.5, "reward": 0.25, "exact_match": 0.1}
    found = outcome.numbers(result(side, side | {"exact_match": 0.3, "reward": 0.75}))
    assert [one.name for one in found] == ["exact_match", "reward", "token_f1"]
    best = outcome.headline(result(side, side | {"exact_match": 0.3}))
    assert best is not None and best.name == "exact_match" and best.gain == pytest.approx(0.2) and best.changed
    assert outcome.count(result(side, side)) == 50


def test_a_score_stands_in_where_nothing_can_be_right() -> None:
    found = outcome.headline(result({"reward": 0.25}, {"reward": 0.8}))
    assert found is not None and (found.name, found.title, found.gain) == ("reward", "Score", pytest.approx(0.55))
    never = {"exact_match": 0.0, "count": 9}
    found = outcome.headline(result(never | {"reward": 0.2}, never | {"reward": 0.9}))
    assert found is not None and found.name == "reward"
    assert outcome.headline(result({"reward": math.nan}, {"reward": math.nan})) is None
    assert outcome.headline(None) is outcome.headline({"held_out": {"before": None, "after": None}}) is None


def test_what_gets_better_by_falling_is_known_and_what_was_only_measured_after_says_nothing() -> None:
    one = outcome.measured("held_out_teacher_kl", 0.5, 0.1)
    assert one.better == "down" and one.gain == pytest.approx(0.4)
    assert outcome.measured("agreement", None, 0.8).gain is None
    assert outcome.measured("nobody/knows", 1.0, 2.0).gain is None
    assert not outcome.measured("exact_match", 0.5, 0.504).changed


def test_examples_that_expect_nothing_are_neither_right_nor_wrong() -> None:
    rows = [Example([{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}], 1)]
    rows.append(Example([{"role": "user", "content": "write a poem"}], 2))
    judge = lambda examples, answers: {"reward": sum(map(len, answers)) / 10}  # noqa: E731
    before = measure(lambda examples, what: ["5", "a"], rows, [], None, 0, judge)
    after = measure(lambda examples, what: ["4", ""], rows, [], None, 0, judge)
    found = compare(before, after, rows)
    assert [(row["was_right"], row["is_right"]) for row in found["examples"]] == [(False, True), (None, None)]
    assert (found["better"], found["worse"], found["asked"]) == (1, 0, 2)
    assert found["held_out"]["after"]["exact_match"] == 1.0 and found["held_out"]["after"]["count"] == 1
    only = compare(*(measure(lambda e, w: ["x"], rows[1:], [], None, 0, judge) for _ in range(2)), rows[1:])
    assert only["held_out"]["after"] == {"reward": 0.1} and (only["better"], only["worse"]) == (0, 0)
