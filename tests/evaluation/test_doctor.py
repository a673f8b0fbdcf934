"""The run doctor, on curves that are healthy and on each of the ways in which they aren't."""

from __future__ import annotations

import math

import pytest

from engine import knowledge
from engine.evaluation.curves import Curve
from engine.evaluation.doctor import Finding, band, examine

HEALTHY = Curve([(step, 3 * 0.95**step + 0.02 + 0.01 * (step % 3)) for step in range(1, 101)])
HELD_OUT = Curve([(0, 4.0), (25, 0.9), (50, 0.3), (75, 0.1), (100, 0.05)])


def seen(rate: float = 5e-3, recommended: float | None = 5e-3, moving: bool = False, **curves: Curve) -> dict[str, Finding]:
    """What was found, by metric and the beginning of the sign."""
    found = examine({"train_loss": HEALTHY, **curves}, rate=rate, recommended=recommended, moving=moving)
    return {f"{finding.metric}: {finding.sign.rpartition(': ')[2]}": finding for finding in found}


def only(**given) -> Finding:
    found = list(seen(**given).values())
    assert len(found) == 1, found
    return found[0]


def test_a_healthy_run_is_told_so() -> None:
    norm = Curve([(step, 2 / step**0.5) for step in range(1, 101)])
    speed = Curve([(step, 5000.0 + 300 * (step % 2)) for step in range(1, 101)])
    finding = only(held_out_loss=HELD_OUT, grad_norm=norm, tokens_per_second=speed, moving=True)
    assert (finding.level, finding.sign) == ("good", "All well.") and finding.detail == "Held-out loss is still falling."


def test_nothing_is_said_too_early() -> None:
    early = {"train_loss": Curve([(1, 4.0), (2, 5.0)]), "held_out_loss": Curve([(0, 4.0)]), "grad_norm": Curve([(1, 3.0), (2, 90.0)])}
    (finding,) = examine(early, rate=5e-3, recommended=5e-3, moving=True)
    assert finding.sign == "Too early to say."
    assert examine({}, rate=5e-3)[0].sign == "Too early to say."


def test_a_loss_that_is_no_number() -> None:
    finding = only(train_loss=Curve([*HEALTHY[:40], (41, math.nan), (42, math.nan)]))
    assert (finding.level, finding.step) == ("stop", 41)
    assert finding.changes == {"training": {"learning_rate": pytest.approx(5e-4)}}
    assert "divide it by 10" in finding.action


def test_a_loss_that_rises_and_stays_up() -> None:
    finding = only(train_loss=Curve([*HEALTHY[:60], *((step, 2.5) for step in range(61, 101))]))
    assert finding.level == "warning" and "rises" in finding.sign and "is at 2.5 now" in finding.detail
    assert finding.changes["training"]["learning_rate"] == pytest.approx(5e-3 / 3)
    # One bad batch is none of that.
    assert only(train_loss=Curve([*HEALTHY[:60], (61, 3.0), *HEALTHY[61:]])).level == "good"


def test_a_rate_that_was_far_too_high_is_not_cut_to_one_that_still_is() -> None:
    found = seen(rate=0.05, train_loss=Curve([*HEALTHY[:60], *((step, 2.5) for step in range(61, 101))]))
    assert {finding.changes["training"]["learning_rate"] for finding in found.values()} == {5e-3}
    assert any("10 times" in finding.detail for finding in found.values())


def test_a_run_that_hardly_learned_is_told_why() -> None:
    flat = Curve([(step, 3.11 - step / 1000) for step in range(1, 61)])
    found = seen(rate=5e-5, train_loss=flat)
    hardly = next(finding for finding in found.values() if "hardly falls" in finding.sign)
    assert "100 times below what this model wants" in hardly.detail
    assert hardly.changes == {"training": {"learning_rate": 5e-3}}
    assert any("far below" in finding.sign for finding in found.values())
    unknown = only(rate=5e-5, recommended=None, train_loss=flat)
    assert unknown.changes["training"]["learning_rate"] == pytest.approx(1.5e-4)


def test_learning_by_heart() -> None:
    turned = Curve([(0, 4.0), (25, 0.9), (50, 1.1), (75, 1.3)])
    finding = only(held_out_loss=turned)
    assert (finding.metric, finding.step, finding.changes) == ("held_out_loss", 25, {"training": {"steps": 25}})
    assert "by heart" in finding.detail
    # A single higher value, or a rise of next to nothing, is no turn.
    assert only(held_out_loss=Curve([*turned[:3]])).level == "good"
    assert only(held_out_loss=Curve([(0, 4.0), (25, 0.008), (50, 0.014), (75, 0.012)])).level == "good"


def test_held_out_examples_that_are_other_ones() -> None:
    finding = only(held_out_loss=Curve([(0, 9.0), (25, 5.0), (50, 4.0)]))
    assert finding.level == "note" and "far above" in finding.sign


def test_gradients() -> None:
    usual = [(step, 1.0 + 0.1 * (step % 3)) for step in range(1, 101)]
    peaks = only(grad_norm=Curve([*usual[:70], (71, 30.0), *usual[71:]]))
    assert peaks.level == "note" and peaks.step == 71 and "times the usual size" in peaks.detail
    grows = only(grad_norm=Curve([(step, 1.0 * 1.03**step) for step in range(1, 101)]))
    assert grows.level == "warning" and "grows steadily" in grows.sign
    zero = only(grad_norm=Curve([*usual[:10], (11, 0.0), (12, 0.0)]))
    assert (zero.level, zero.step) == ("stop", 11)


def test_a_run_that_slows_down() -> None:
    slow = Curve([(step, 5000.0 if step < 80 else 900.0) for step in range(1, 101)])
    assert "900 tokens/s now; 5,000 is usual" in only(tokens_per_second=slow, moving=True).detail
    assert only(tokens_per_second=slow, moving=False).level == "good"


def test_the_gravest_comes_first() -> None:
    found = examine({"train_loss": Curve([(1, 3.0), (2, math.inf)]), "held_out_loss": Curve([(0, 9.0)])}, rate=1.0, recommended=5e-3)
    assert [finding.level for finding in found] == sorted((finding.level for finding in found), key=["stop", "warning", "note"].index)
    assert len(found) >= 2


def test_healthy_ranges_where_they_are_known() -> None:
    assert band("learning_rate", Curve([(1, 1e-3)]), 5e-3).low == pytest.approx(5e-4)
    assert band("learning_rate", Curve([(1, 1e-3)]), None) is None
    norm = band("grad_norm", Curve([(step, 2.0) for step in range(9)]))
    assert (norm.low, norm.high) == (0, 20.0) and norm.words == "healthy: below 10 times its usual size"
    speed = band("tokens_per_second", Curve([(step, 4000.0) for step in range(9)]))
    assert (speed.low, speed.high) == (2000.0, None)
    assert band("held_out_loss", HELD_OUT).high == pytest.approx(0.0525)
    assert band("train_loss", HEALTHY) is None and band("reward/mean", HEALTHY) is None


def test_every_rule_belongs_to_a_red_flag_with_its_numbers() -> None:
    rules = [(name, flag["rule"]) for name, entry in knowledge.metrics().items() for flag in entry["red_flags"] if "rule" in flag]
    assert len(rules) == len({(name, rule["name"]) for name, rule in rules}) >= 10
    for name, entry in knowledge.metrics().items():
        assert set(entry.get("band") or {}) <= {"of", "from", "to"}, name


def test_examples_that_are_meant_to_differ_are_no_fault() -> None:
    curves = {"train_loss": HEALTHY, "held_out_loss": Curve([(0, 4 * HEALTHY[0][1])])}
    far = "far above the training loss"
    assert any(far in finding.sign for finding in examine(curves, rate=5e-3))
    assert not any(far in finding.sign for finding in examine(curves, rate=5e-3, alike=False))
