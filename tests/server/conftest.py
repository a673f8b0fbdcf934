"""One shared server for most tests; tests that break a server start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tinker

from engine.server.model import BaseModel
from tests.server.alone import Alone
from tests.server.harness import NANO, RunningServer
from tests.server.raw import Session


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server"), "--compress")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One with the other choices: it makes its own key, answers to a further name, and asks for no compression."""
    folder = tmp_path_factory.mktemp("other")
    running = RunningServer(folder, "--key-file", str(folder / "key"), "--allow-host", "gpu.example", env={"THINKER_SERVER_KEY": ""})
    yield running
    running.stop()


@pytest.fixture(scope="session")
def service(server: RunningServer) -> Iterator[tinker.ServiceClient]:
    client = server.client()
    yield client
    client.close("success").result(timeout=20)


@pytest.fixture(scope="session")
def exact_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One that rounds nothing to bfloat16, to compare with PyTorch."""
    running = RunningServer(tmp_path_factory.mktemp("exact"), "--dtype", "float32")
    yield running
    running.stop()


@pytest.fixture
def session(server: RunningServer) -> Iterator[Session]:
    """A session of its own on the shared server, over plain HTTP."""
    opened = Session(server)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def base() -> BaseModel:
    return BaseModel(NANO, "cpu", "float32")


@pytest.fixture
def alone(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alone:
    return Alone(base, tmp_path, monkeypatch)
