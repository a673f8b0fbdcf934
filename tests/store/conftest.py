"""A store on each of the two databases (tests/databases.py), and a clock that tests set by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine.recipe import Recipe
from engine.store import Store


class Clock:
    """A clock that stands still until it's told."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(url: str | None) -> Iterator[Callable[..., Store]]:
    """Opens the test's database, as often as it likes."""
    opened: list[Store] = []

    def opener(**options) -> Store:
        opened.append(Store(url, **options))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store], clock: Clock) -> Store:
    return open_store(clock=clock)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 10}})
