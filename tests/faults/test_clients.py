"""Many clients at once, and clients that are killed in the middle of their work: the others' runs are as if they were alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.faults.conftest import ROOT
from tests.running import until
from tests.server.harness import RunningServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300), pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")]

QUIET_SECONDS = 12.0  # beyond the SDK's ten seconds between heartbeats; without the plan it is a minute
UPKEEP_SECONDS = 5.0
HOWS = ("training", "sampling", "chunks")
FAIR = 4.0  # the slowest of equally long runs takes at most so many times as long as the fastest, though one's batch is twice another's


class Client:
    """tests/faults/clients.py at work."""

    def __init__(self, server: RunningServer, *arguments: object):
        command = [sys.executable, "-m", "tests.faults.clients", server.url, server.key, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def runs(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.line())
        self.process.wait(30)
        assert not found["failures"], "statuses from 500"
        assert not [run for run in found["runs"].values() if "error" in run], found
        return found["runs"]

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """One that gives clients up sooner."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"moment": "impatient", "quiet_seconds": QUIET_SECONDS}))
    path = os.pathsep.join([str(ROOT / "tests" / "faults" / "inject"), str(ROOT)])
    running = RunningServer(tmp_path / "server", env={"PYTHONPATH": path, "FAULT_PLAN": str(plan)})
    yield running
    running.stop()


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    started: list[Client] = []
    yield started
    for client in started:
        client.kill()


def status(server: RunningServer) -> dict[str, Any]:
    with server.http() as http:
        return http.get("thinker/status").json()


def assert_equal_losses(found: dict[str, dict[str, Any]], alone: dict[str, dict[str, Any]]) -> None:
    assert found.keys() == alone.keys()
    for number, run in found.items():
        np.testing.assert_allclose(run["losses"], alone[number]["losses"], rtol=0, atol=1e-5, err_msg=f"client {number}")


def test_clients_that_vanish(server: RunningServer, clients: list[Client]) -> None:
    steps = 60
    clients.append(Client(server, "alone", 0, 2, steps))
    alone = clients[0].runs()
    before = psutil.Process(server.process.pid).memory_info().rss
    bystander, *vanishing = (Client(server, *what) for what in [("train", 0, 2, steps), *(("vanish", how) for how in HOWS)])
    clients += [bystander, *vanishing]
    assert [client.line() for client in (bystander, *vanishing)] == ["ready", *["at work"] * len(HOWS)]
    bystander.go()
    until(lambda: status(server)["sessions"] == 2 + len(HOWS) and status(server)["waiting"] > 10)
    for client in vanishing:
        client.kill()
    killed = time.monotonic()
    assert_equal_losses(bystander.runs(), alone)
    until(lambda: not status(server)["sessions"] and not status(server)["waiting"], QUIET_SECONDS + UPKEEP_SECONDS + 10)
    assert time.monotonic() - killed < QUIET_SECONDS + UPKEEP_SECONDS + 10
    until(lambda: not status(server)["busy"], 10)
    now = status(server)
    assert (now["runs"], now["busy"]) == (0, False), "nothing is computed for the dead"
    # What their work took is the system's again once the server has rested for a moment.
    until(lambda: psutil.Process(server.process.pid).memory_info().rss < before + 200 * 2**20)


def test_many_clients_at_once(server: RunningServer, clients: list[Client]) -> None:
    """Twenty here; with CROWD=5 in the environment it is fifty. Each has a run of its own."""
    processes, each, steps = int(os.environ.get("CROWD", 2)), 10, 8
    lonely = Client(server, "alone", 0, processes * each, steps)
    clients.append(lonely)
    alone = lonely.runs()
    before = psutil.Process(server.process.pid).memory_info().rss
    together = [Client(server, "train", place * each, each, steps) for place in range(processes)]
    clients += together
    assert [client.line() for client in together] == ["ready"] * processes
    for client in together:
        client.go()
    found = {number: run for client in together for number, run in client.runs().items()}
    assert_equal_losses(found, alone)
    seconds = sorted(run["seconds"] for run in found.values())
    grown = psutil.Process(server.process.pid).memory_info().rss - before
    assert seconds[-1] <= FAIR * seconds[0], f"the fastest took {seconds[0]:.1f} s, the slowest {seconds[-1]:.1f} s"
    assert grown < 600 * 2**20
    assert "Traceback" not in server.log.read_text()
    worst = max(abs(a - b) for number, run in found.items() for a, b in zip(run["losses"], alone[number]["losses"], strict=True))
    print({"clients": len(found), "fastest": seconds[0], "slowest": seconds[-1], "worst_loss": worst, "grown_mib": grown / 2**20})
