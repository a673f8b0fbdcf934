"""What is said of numbers, and how many points a chart gets."""

from __future__ import annotations

import math

import pytest

from app.components.words import ago, code, count, curve_finding, figure, label, literal, percent, verdict


@pytest.mark.parametrize(
    ("train", "held_out", "moving", "said"),
    [
        ([], [], True, "The loss appears with the first steps"),
        ([(1, 2.0), (2, 1.0)], [(0, 3.0)], True, "Training loss has fallen from 2 to 1"),
        ([(1, 2.0)], [(0, 4.0), (25, 0.5)], False, "Held-out loss fell from 4 to 0.5"),
        ([(1, 2.0)], [(0, 4.0), (25, 0.5), (50, 0.9)], False, "Held-out loss was lowest at step 25 (0.5) and has risen to 0.9 since"),
        ([(1, 2.0)], [(0, 4.0), (25, 0.5), (50, 0.501)], False, "Held-out loss fell from 4 to 0.501"),
        ([(1, 2.0)], [(0, 4.0), (25, 4.0)], True, "Held-out loss hasn't fallen yet: 4 at first, 4 now"),
        ([(1, 2.0), (2, math.nan)], [(0, 4.0)], True, "Training loss stopped being a number at step 2: the learning rate is too high"),
    ],
)
def test_the_loss_chart_has_a_finding_for_a_title(train: list, held_out: list, moving: bool, said: str) -> None:
    assert curve_finding(train, held_out, moving) == said


def test_numbers_are_said_as_people_say_them() -> None:
    assert [ago(seconds) for seconds in (5, 300, 7200, 4 * 86400)] == ["just now", "5 min ago", "2 h ago", "4 days ago"]
    assert [percent(share) for share in (None, 0.0, 0.97, 0.975)] == ["–", "0 %", "97 %", "97.5 %"]
    assert [figure(value) for value in (None, 0.0, 5e-5, 5e-4, 0.21234, 5123.4, math.nan)] == [
        "–",
        "0",
        "5.0e-05",
        "0.0005",
        "0.212",
        "5,123",
        "not a number",
    ]


def test_foreign_text_stays_text() -> None:
    assert literal("*a* [b](c)\n:d:") == r"\*a\* \[b\]\(c\) \:d\:"
    assert code("a ` b") == "``a ` b``"
    assert code("") == ":gray[(nothing)]"
    assert len(code("x" * 500)) == 122


def test_a_label_is_read_aloud_as_it_stands_unless_it_could_be_markup() -> None:
    assert label("How many examples at once (batch size), from: nano") == "How many examples at once (batch size), from: nano"
    assert label(":red[x] *a* <b>  c") == r"\:red\[x\] \*a\* \<b> c"


@pytest.mark.parametrize(
    ("number", "said"),
    [(950, "950"), (1_310_000, "1.3 million"), (267_000_000, "270 million"), (3.96e9, "4 billion"), (9.96e8, "1 billion")],
)
def test_big_numbers_are_said_in_two_figures(number: float, said: str) -> None:
    assert count(number) == said


def test_better_or_worse_in_words() -> None:
    def result(before: float, after: float) -> dict:
        return {"held_out": {"before": {"exact_match": before}, "after": {"exact_match": after}}}

    assert verdict(result(0.0, 0.9625)) == ("better by 96 points", "green")
    assert verdict(result(0.5, 0.49)) == ("worse by 1 point", "orange")
    assert verdict(result(0.5, 0.502)) == ("no more right answers than before", "gray")
    assert verdict(None) == verdict({"held_out": {"before": None, "after": None}}) == ("", "gray")
