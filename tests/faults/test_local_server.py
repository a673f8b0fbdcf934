"""The server on this machine: shared while it's used, gone when it isn't, started again when it's needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from engine import models, platforms
from engine.endpoints import local
from engine.endpoints.client import Client
from engine.errors import EndpointLost
from tests.running import ROOT, until

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
    until(lambda: not first.alive())
    third = bring_up(started)
    assert third.pid != first.pid and third.alive()
    platforms.kill(third.pid)
    begun = time.monotonic()
    # Left to itself, the SDK would go on trying to connect for five minutes.
    with pytest.raises(EndpointLost, match="the server ended while connecting"):
        Client(third, {})
    assert time.monotonic() - begun < 30


def servers_of(home: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if "engine.server" in line and str(home / "checkpoints") in line:
                found.append(process.pid)
    return found


def test_a_starter_that_is_killed_leaves_no_second_server(started: list, thinker_home: Path) -> None:
    program = "from engine import models; from engine.endpoints import local; local.start('nano', models.nano_folder()); input()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    starter = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=ROOT, stdin=subprocess.PIPE)
    until(lambda: servers_of(thinker_home))
    # At once, while the server that it started has loaded nothing yet.
    starter.kill()
    starter.wait()
    [orphan] = servers_of(thinker_home)
    assert bring_up(started).pid == orphan
    assert servers_of(thinker_home) == [orphan]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is POSIX's")
def test_a_server_that_hangs_makes_room_for_the_next(started: list, thinker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(local, "ANSWER_SECONDS", 0.5)
    first = bring_up(started)
    os.kill(first.pid, signal.SIGSTOP)
    second = bring_up(started)
    assert second.pid != first.pid and servers_of(thinker_home) == [second.pid]
