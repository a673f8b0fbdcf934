"""A server elsewhere, as a fixture: a real one in a process of its own, which is reached by URL and key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.harness import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("elsewhere"))
    yield made
    made.stop()
