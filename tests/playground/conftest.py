"""A Playground whose endpoint says what the test tells it to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import Engine, endpoints
from tests.fakes.openai_server import SayingServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SayingServer]:
    made = SayingServer()
    monkeypatch.setattr(endpoints, "start", lambda *_: made)
    yield made
    made.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made
