"""The proof against numbers worked out by hand; the answers come from plain functions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine.data import Example
from engine.evaluation.proof import EXAMPLES_KEPT, compare, measure


def example(prompt: str, answer: str) -> Example:
    return Example([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], 1)


HELD_OUT = [example("1", "one"), example("2", "two words"), example("3", "three"), example("4", "four")]
SKILLS = [example("a", "A"), example("b", "B")]


def side(answers: dict[str, str], loss: float | None = 0.5, tokens: int = 8):
    def ask(examples, what):
        asked.append(what)
        return [answers[one.prompt[-1]["content"]] for one in examples]

    asked: list[str] = []
    found = measure(ask, HELD_OUT, SKILLS, loss, tokens)
    assert asked == ["held-out examples", "general skills"]
    return found


BEFORE = {"1": "one", "2": "nothing", "3": "no", "4": "no", "a": "A", "b": "B"}
AFTER = {"1": "wrong", "2": "two words", "3": "three", "4": "no", "a": "A", "b": "wrong"}


def test_one_side():
    found = side({**AFTER, "2": "two birds"})
    held_out = found["held_out"]
    assert held_out["count"] == 4
    assert held_out["exact_match"] == 0.25  # 3 of 1, 2, 3, 4
    # "two birds" shares one of two words with "two words": F1 1/2; the others 0, 1, 0.
    assert held_out["token_f1"] == pytest.approx(1.5 / 4)
    assert held_out["loss"] == 0.5 and held_out["perplexity"] == pytest.approx(math.exp(0.5))
    assert found["skills"]["exact_match"] == 0.5


def test_without_a_loss_there_is_no_perplexity():
    assert "perplexity" not in side(AFTER, loss=None)["held_out"]


def test_nothing_to_ask_is_no_proof_of_anything():
    found = measure(lambda examples, what: pytest.fail("asked"), [], [], None, 0)
    assert found["held_out"] is None and found["skills"] is None


def test_both_sides():
    found = compare(side(BEFORE), side(AFTER), HELD_OUT)
    assert found["held_out"]["before"]["exact_match"] == 0.25
    assert found["held_out"]["after"]["exact_match"] == 0.5
    assert found["skills"] == {"before": 1.0, "after": 0.5}
    assert (found["better"], found["worse"]) == (2, 1)
    rows = {row["prompt"]: row for row in found["examples"]}
    assert rows["1"] == {"prompt": "1", "expected": "one", "before": "one", "after": "wrong", "was_right": True, "is_right": False}
    assert [row["is_right"] for row in found["examples"]] == [False, False, True, True]


@pytest.mark.parametrize("right", [0, 3, 45, 90])
def test_the_examples_kept_show_both_kinds(right):
    many = [example(str(i), "yes") for i in range(90)]
    before = measure(lambda examples, what: ["no"] * len(examples), many, [], None, 0)
    after = measure(lambda examples, what: ["yes" if i < right else "no" for i in range(len(examples))], many, [], None, 0)
    kept = compare(before, after, many)["examples"]
    assert len(kept) == min(EXAMPLES_KEPT, 20 + right)
    assert sum(not row["is_right"] for row in kept) == min(20, 90 - right)


def test_an_answer_that_was_found_bad_is_no_right_one():
    rows = [*HELD_OUT[:1], replace(HELD_OUT[1], good=False)]
    sides = [measure(lambda examples, what: ["one", "two words"], rows, [], None, 0) for _ in range(2)]
    assert sides[0]["held_out"]["count"] == 1 and sides[0]["held_out"]["exact_match"] == 1.0
    assert [(row["expected"], row["is_right"]) for row in compare(*sides, rows)["examples"]] == [("one", True), ("", None)]
