"""The tour's rules: six stops, remembered, never beyond either end."""

from __future__ import annotations

import pytest

from app import navigation, tour
from engine import Engine


def test_six_stops_on_pages_that_there_are(engine: Engine) -> None:
    assert [stop.title for stop in tour.STOPS] == ["Settings", "Datasets", "Wizard", "Training", "Playground", "Done"]
    assert {stop.page for stop in tour.STOPS} <= {entry.url_path for entry in navigation.PAGES}


def test_from_end_to_end_and_remembered(engine: Engine) -> None:
    settings = engine.settings
    assert tour.is_new(settings) and not tour.is_on(settings)
    tour.begin(settings)
    tour.move(settings, -1)
    assert tour.number(settings) == 0 and tour.is_on(settings)
    for _ in range(5):
        tour.move(settings, 1)
    with Engine() as later:
        assert tour.here(later.settings).title == "Done" and tour.is_on(later.settings)
    tour.move(settings, 1)
    assert settings.get("tour") == "done"
    tour.begin(settings)
    assert tour.number(settings) == 0 and tour.is_on(settings)
    tour.skip(settings)
    assert not tour.is_on(settings) and not tour.is_new(settings)


@pytest.mark.parametrize("kept", [-3, 99])
def test_a_place_that_there_is_no_more(engine: Engine, kept: int) -> None:
    engine.settings.set("tour_step", kept)
    assert tour.here(engine.settings) in tour.STOPS
