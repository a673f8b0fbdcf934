"""A store on each of the two databases, a runner that is quick to notice, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from engine.jobs.runner import Runner
from engine.recipe import Recipe
from engine.store import Store


@pytest.fixture
def store(database: str | None) -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 20}})


@pytest.fixture
def make_runner(store: Store) -> Iterator[Callable[..., Runner]]:
    made: list[Runner] = []

    def make(execute, **options) -> Runner:
        made.append(Runner(store, execute, **{"poll_s": 0.02, "lease_s": 2.0, "renew_s": 0.2, **options}))
        return made[-1]

    yield make
    for runner in made:
        runner.stop(wait=5)


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for something to become true."""

    def wait(holds: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.02)

    return wait
