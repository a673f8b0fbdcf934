"""What a machine is said to be able to train: by arithmetic that can be followed, and never without what it rests on."""

from __future__ import annotations

import pytest

from engine import abilities, estimates, knowledge


def test_the_largest_model_that_fits() -> None:
    assert abilities.fitting(0.6e9) == 0
    assert abilities.fitting(10e9) == pytest.approx((9e9 - 0.6e9) / 5)


def test_the_largest_model_within_an_hour_is_where_the_table_says() -> None:
    wanted = abilities.EXAMPLES * abilities.EXAMPLE_TOKENS * abilities.PASSES / 3600
    for cores in (1, 2, 16):
        found = abilities.brisk(cores)
        assert estimates.table_speed(found, cores, knowledge.speeds()) == pytest.approx(wanted, rel=1e-3)
    assert abilities.brisk(16) > abilities.brisk(2)


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.places.gpu_names", lambda: "")
    found = abilities.look()
    assert found.machine.cpus >= 1 and found.within_an_hour and [place.name for place in found.places] == ["local", "tinker"]
    monkeypatch.setattr("engine.places.gpu_names", lambda: "Some GPU")
    assert abilities.look().within_an_hour is None and abilities.look().gpu == "Some GPU"
