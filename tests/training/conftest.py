"""One data directory with one server, shared by the tests that train for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine
from tests.running import end_processes
from tests.training import held


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The module's data directory."""
    home = tmp_path_factory.mktemp("slice") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")
        patch.setenv("THINKER_EXECUTE", held.EXECUTE)
        yield home
    end_processes(home)


@pytest.fixture(scope="module")
def in_place(place: Path) -> Iterator[pytest.MonkeyPatch]:
    """For fixtures of the module: THINKER_HOME is the module's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THINKER_HOME", str(place))
        yield patch


@pytest.fixture
def engine(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An Engine on the module's data directory."""
    monkeypatch.setenv("THINKER_HOME", str(place))
    with Engine() as engine:
        yield engine
