"""The server of this machine: one for a model and data directory, found again, replaced when it's gone."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import models, platforms
from engine.endpoints import names, start
from engine.endpoints.client import Client
from engine.endpoints.local import LocalServer
from engine.errors import EndpointError, EndpointLost, RecipeError
from tests.running import ROOT, end_processes, environment, server_records, until

PROGRAM = """
from engine import models
from engine.endpoints import start
server = start("local", "nano", models.nano_folder())
server.ready(lambda text: None)
print(server.pid, server.url)
"""


@pytest.fixture(autouse=True)
def no_server_stays(thinker_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    yield
    end_processes(thinker_home)


def started() -> LocalServer:
    server = start("local", "nano", models.nano_folder())
    server.ready(lambda text: None)
    return server


def in_another_process(home: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment(home), cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_starters_at_once_and_a_third_later(thinker_home: Path):
    others = [in_another_process(thinker_home) for _ in range(2)]
    found: list[LocalServer] = []
    threads = [threading.Thread(target=lambda: found.append(started())) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    said = {other.communicate(timeout=60)[0].strip() for other in others} | {f"{server.pid} {server.url}" for server in found}
    assert len(said) == 1 and len(server_records(thinker_home)) == 1
    stages: list[str] = []
    adopted = start("local", "nano", models.nano_folder())
    adopted.ready(stages.append)
    assert f"{adopted.pid} {adopted.url}" in said and stages == [], "it was there already"
    assert adopted.alive()
    key_file = thinker_home / "servers" / "key"
    assert adopted.key() == key_file.read_text(encoding="utf-8").strip()
    assert sys.platform == "win32" or stat.S_IMODE(key_file.stat().st_mode) == 0o600
    for file in thinker_home.glob("servers/*/*"):
        assert adopted.key() not in file.read_text(encoding="utf-8", errors="replace")


@pytest.mark.slow
def test_a_death_is_noticed_and_the_next_one_starts_afresh(thinker_home: Path):
    server = started()
    client = Client(server, {})
    training = client.create("nano", 2, 0, True, True, False)
    platforms.kill(server.pid)
    with pytest.raises(EndpointLost, match="the server ended while saving"):
        client.wait(training.save_state("never"), "saving")
    assert not server.alive()
    client.close(lost=True)
    # Its record is still there, naming a process that isn't.
    second = started()
    assert second.pid != server.pid and second.alive()
    # After a restart of the machine the number in a record may be anybody's.
    [file] = thinker_home.glob("servers/*/server.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    platforms.kill(second.pid)
    until(lambda: not second.alive())
    file.write_text(json.dumps({**record, "pid": os.getpid()}), encoding="utf-8")
    third = started()
    assert third.pid not in (os.getpid(), server.pid, second.pid)


@pytest.mark.slow
def test_one_that_can_not_start_says_why(tmp_path: Path):
    folder = Path(shutil.copytree(models.nano_folder(), tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"these are no weights")
    server = start("local", "broken", folder)
    began = time.monotonic()
    with pytest.raises(EndpointError, match="could not start") as caught:
        server.ready(lambda text: None)
    assert time.monotonic() - began < 60
    assert "the server for broken" in caught.value.message and "Traceback" not in caught.value.message
    assert "weights" in caught.value.message or "safetensors" in caught.value.message
    assert Path(caught.value.where).is_file(), "its log"


def test_the_registry():
    assert names() == ["local", "tinker"]
    with pytest.raises(RecipeError, match="there is no endpoint 'moon'"):
        start("moon", "nano", models.nano_folder())
