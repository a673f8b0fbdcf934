"""Win rates against numbers worked out by hand: Wilson's limits as the roots of (1 + z²/n) x² - (2p + z²/n) x + p² = 0."""

from __future__ import annotations

import json

import pytest

from engine.evaluation import outcome
from engine.evaluation.winrate import WinRate, compare


def scores(wins: int, ties: int, losses: int) -> tuple[list[float], list[float]]:
    return [1.0] * wins + [0.5] * ties + [0.0] * losses, [0.0] * wins + [0.5] * ties + [1.0] * losses


@pytest.mark.parametrize(
    ("wins", "ties", "losses", "rate", "low", "high", "surely"),
    [
        (200, 40, 60, 220 / 300, 0.680573, 0.780194, "better"),
        (71, 0, 29, 0.71, 0.614611, 0.789852, "better"),
        (142, 17, 142, 0.5, 0.443872, 0.556128, "open"),
        (29, 0, 71, 0.29, 0.210148, 0.385389, "worse"),
        (3, 0, 1, 0.75, 0.300642, 0.954413, "open"),
        (0, 0, 0, 0.5, 0.0, 1.0, "open"),
    ],
)
def test_win_rate(wins: int, ties: int, losses: int, rate: float, low: float, high: float, surely: str) -> None:
    found = compare(*scores(wins, ties, losses))
    assert (found.wins, found.ties, found.losses, found.count) == (wins, ties, losses, wins + ties + losses)
    assert (found.rate, found.low, found.high) == pytest.approx((rate, low, high), abs=1e-6)
    assert found.surely == surely


def test_scores_that_are_as_good_as_the_same_are_ties() -> None:
    """Sums of floats in another order differ in their last digits."""
    found = compare([0.1 + 0.2, 1.0, -20.0], [0.3, 1.0 + 1e-9, -20.1])
    assert (found.wins, found.ties, found.losses) == (1, 2, 0)


def test_who_changes_places_wins_what_the_other_won() -> None:
    ours, theirs = scores(10, 5, 3)
    assert compare(ours, theirs).rate == pytest.approx(1 - compare(theirs, ours).rate)
    with pytest.raises(ValueError):
        compare([1.0], [])


def test_it_is_kept_as_json() -> None:
    found = compare(*scores(7, 2, 1))
    assert WinRate.of(json.loads(json.dumps(found.to_dict()))) == found


def told(wins: int, ties: int, losses: int, **about: object) -> str:
    known = {"judge": ["exact"], "against": "start", **compare(*scores(wins, ties, losses)).to_dict(), **about}
    return outcome.wins_sentence({"win_rate": known})


def test_in_words() -> None:
    assert told(71, 0, 29) == (
        "Wins 71 % against the start model by exact, surely more than 61 % "
        "(71 answers better, 0 as good, 29 worse; those as good count half)."
    )
    assert "surely less than 39 %, so it got worse" in told(29, 0, 71)
    assert told(29, 0, 71, unjudged=3).endswith("those as good count half; of 3 more an answer couldn't be scored).")
    assert "which may be chance: 44 to 56 %" in told(142, 17, 142)
    assert "against the model that its last stage began with by form + length" in told(1, 0, 0, against="stage", judge=["form", "length"])
    assert outcome.wins_sentence({"win_rate": {"problem": "the judge doesn't answer"}}).endswith("told: the judge doesn't answer")
    assert outcome.wins_sentence({}) == outcome.wins_sentence(None) == "" and outcome.wins({"win_rate": None}) is None
