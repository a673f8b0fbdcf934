"""Amounts as people say them."""

from __future__ import annotations

import pytest

from engine.amounts import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.43, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
