"""Advantages, KL costs and clip shares, worked out by hand."""

from __future__ import annotations

import math

import pytest

from engine.training.advantages import clipped_share, group_advantages, is_flat, kl_advantages


def test_normalised_by_hand() -> None:
    # 1, 0, 0, 0: mean 1/4, deviation of the sample 1/2.
    assert group_advantages([1, 0, 0, 0], "normalised") == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    assert group_advantages([1, 0, 0, 0], "centred") == pytest.approx([0.75, -0.25, -0.25, -0.25])
    # 2, 4, 9: mean 5, deviation sqrt((9 + 1 + 16) / 2) = 3.605551
    assert group_advantages([2, 4, 9], "normalised") == pytest.approx([-0.832050, -0.277350, 1.109400], abs=1e-5)


@pytest.mark.parametrize("kind", ["normalised", "centred"])
def test_a_group_without_spread_has_none(kind: str) -> None:
    assert group_advantages([0.3, 0.3, 0.3], kind) == [0, 0, 0]
    assert is_flat([1.0, 1.0]) and not is_flat([1.0, 0.999])


def test_straying_costs_and_favours_no_length() -> None:
    drawn, reference = [[-1.0, -2.0], [-0.5]], [[-1.5, -2.0], [-1.5]]
    # Gaps 0.5, 0 and 1: mean 0.5; times -0.2.
    found = kl_advantages(drawn, reference, 0.2)
    assert found[0] == pytest.approx([0.0, 0.1]) and found[1] == pytest.approx([-0.1])
    assert sum(value for row in found for value in row) == pytest.approx(0)


def test_the_clip_share_counts_tokens_that_matter() -> None:
    now = [math.log(1.1), math.log(1.3), math.log(0.7), math.log(5.0)]
    # Ratios 1.1, 1.3 and 0.7 count, the fourth token's advantage is 0.
    assert clipped_share(now, [0, 0, 0, 0], [1, 1, -1, 0], 0.2, 0.2) == pytest.approx(2 / 3)
    assert clipped_share([], [], [], 0.2, 0.2) == 0
