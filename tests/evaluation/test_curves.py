"""Curves: what was put in comes out, thinned curves keep their peaks, means are means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.evaluation.curves import Curve, smoothed, thinned


def test_a_curve_is_its_points_however_they_came() -> None:
    points = [(step, step / 2) for step in range(1, 300)]
    curve = Curve(points[:10])
    curve.extend(points[10:])
    curve.extend([])
    assert curve == points and list(curve) == points and len(curve) == 299
    assert curve[-1] == (299, 149.5) and curve[:2] == points[:2]
    assert not Curve() and Curve() == []


def test_what_is_no_number_is_kept_and_can_be_left_out() -> None:
    curve = Curve([(0, math.nan), (1, math.inf), (2, 5.0)])
    steps, values = curve.finite()
    assert len(curve) == 3 and steps.tolist() == [2] and values.tolist() == [5.0]


def test_a_long_curve_keeps_its_ends_peaks_and_order() -> None:
    values = np.ones(100_007)
    values[54_321], values[77_777], values[-1] = 99.0, -3.0, 7.0
    steps, kept = thinned(np.arange(100_007), values, 600)
    assert len(kept) <= 602
    found = dict(zip(steps.tolist(), kept.tolist(), strict=True))
    assert found[54_321] == 99.0 and found[77_777] == -3.0 and found[100_006] == 7.0
    assert steps.tolist() == sorted(steps.tolist()) and steps[0] == 0


@pytest.mark.parametrize("window", [1, 2, 5, 20])
def test_smoothing_is_the_mean_of_the_last_ones(window: int) -> None:
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
    wanted = [values[max(0, at - window + 1) : at + 1].mean() for at in range(len(values))]
    assert smoothed(values, window).tolist() == pytest.approx(wanted)
