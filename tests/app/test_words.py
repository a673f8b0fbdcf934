"""What is said of numbers, and how many points a chart gets."""

from __future__ import annotations

import math

import pytest

from app.components.words import ago, code, figure, literal, loss_finding, percent


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
    assert loss_finding(train, held_out, moving) == said


def test_numbers_are_said_as_people_say_them() -> None:
    assert [ago(seconds) for seconds in (5, 300, 7200, 4 * 86400)] == ["just now", "5 min ago", "2 h ago", "4 days ago"]
    assert [percent(share) for share in (None, 0.0, 0.97, 0.975)] == ["–", "0 %", "97 %", "97.5 %"]
    assert [figure(value) for value in (None, 0.0, 5e-5, 0.21234, 5123.4, math.nan)] == [
        "–",
        "0",
        "5.0e-05",
        "0.212",
        "5,123",
        "not a number",
    ]


def test_foreign_text_stays_text() -> None:
    assert literal("*a* [b](c)\n:d:") == r"\*a\* \[b\]\(c\) \:d\:"
    assert code("a ` b") == "``a ` b``"
    assert code("") == ":gray[(nothing)]"
    assert len(code("x" * 500)) == 122
