"""The server on this machine: shared while it's used, gone when it isn't, started again when it's needed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import models, platforms
from engine.endpoints import local
from engine.endpoints.client import Client
from engine.errors import EndpointLost

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def thinker_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of its own: these servers are short-lived."""
    monkeypatch.setenv("THINKER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def started() -> Iterator[list[local.LocalServer]]:
    servers: list[local.LocalServer] = []
    yield servers
    for server in servers:
        if server.url:
            platforms.kill(server.pid)


def bring_up(started: list[local.LocalServer]) -> local.LocalServer:
    server = local.start("nano", models.nano_folder())
    started.append(server)
    server.ready(lambda text: None)
    return server


def test_shared_then_let_go_then_started_again(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "IDLE_EXIT_SECONDS", 1)
    first = bring_up(started)
    client = Client(first, {})
    second = bring_up(started)
    assert (second.pid, second.url) == (first.pid, first.url), "one server for all who need this model"
    time.sleep(5.5)
    assert first.alive(), "a session keeps it, however little happens"
    client.close()
    deadline = time.monotonic() + 15
    while first.alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    third = bring_up(started)
    assert third.pid != first.pid and third.alive()
    platforms.kill(third.pid)
    begun = time.monotonic()
    # Left to itself, the SDK would go on trying to connect for five minutes.
    with pytest.raises(EndpointLost, match="the server ended while connecting"):
        Client(third, {})
    assert time.monotonic() - begun < 3
