"""A store on each of the two databases, and a clock that tests set by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, text

from engine.recipe import Recipe
from engine.store import Store
from tests.store import postgres

_numbers = itertools.count()


class Clock:
    """A clock that stands still until it's told."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    reason = postgres.missing()
    if reason:
        pytest.skip(reason)
    with postgres.cluster() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database of the test's own."""
    name = f"test_{next(_numbers)}"
    engine = create_engine(postgres_server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None


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
