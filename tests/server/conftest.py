"""One shared server for the contract tests; tests that break a server start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tinker

from tests.server.harness import RunningServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server"), "--compress")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def service(server: RunningServer) -> Iterator[tinker.ServiceClient]:
    client = server.client()
    yield client
    client.close("success").result(timeout=20)
