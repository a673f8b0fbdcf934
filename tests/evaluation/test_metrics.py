"""Scores pinned to numbers worked out by hand, and to SQuAD's and Wilson's published behaviour."""

from __future__ import annotations

import json
import math

import pytest

from engine.evaluation.metrics import exact_match, normalise, perplexity, score, token_f1, wilson


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("ello-hay", "ello-hay", True),
        (" ello-hay\n", "ello-hay", True),
        ("Ello-hay", "ello-hay", False),
        ("ello hay", "ello-hay", False),
        ("", "", True),
    ],
)
def test_exact_match_forgives_blanks_around_and_nothing_else(answer, expected, same):
    assert exact_match(answer, expected) is same


def test_normal_form():
    assert normalise("The  Cat, sat on a mat!\n") == "cat sat on mat"
    assert normalise("Another theatre; an ant.") == "another theatre ant"


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("the cat sat", "a cat ran", 1 / 2),  # cat of {cat, sat} and {cat, ran}
        ("Paris, France", "paris", 2 / 3),  # precision 1/2, recall 1
        ("x x y", "x y y z", 4 / 7),  # x and y once each: precision 2/3, recall 2/4
        ("The Answer!", "answer", 1.0),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("cat", "", 0.0),
        ("the", "a", 1.0),  # nothing is left of either
    ],
)
def test_token_f1(answer, expected, f1):
    assert token_f1(answer, expected) == pytest.approx(f1)
    assert token_f1(expected, answer) == pytest.approx(f1)


def test_perplexity():
    # A fair choice among 8, five times over.
    assert perplexity(5 * math.log(8), 5) == pytest.approx(8)
    assert perplexity(0.0, 3) == 1.0
    assert math.isnan(perplexity(1.0, 0)) and math.isinf(perplexity(1e9, 1))


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson(right, count, low, high):
    assert wilson(right, count) == pytest.approx((low, high), abs=1e-6)


def test_score_averages():
    scores = score(["cat", "Cat", "dog", "a b"], ["cat", "cat", "cat", "b c"])
    assert (scores.count, scores.exact_match) == (4, 0.25)
    assert scores.token_f1 == pytest.approx((1 + 1 + 0 + 2 / 3) / 4)
    assert scores.exact_match_low < 0.25 < scores.exact_match_high
    assert json.loads(json.dumps(scores.to_dict()))["count"] == 4


def test_score_of_nothing_and_of_lists_that_dont_belong_together():
    assert (score([], []).exact_match, score([], []).token_f1) == (0.0, 0.0)
    with pytest.raises(ValueError):
        score(["a"], [])
