"""What holds for every test: the user's own data, keys, caches and network are out of reach."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import platforms

pytest_plugins = ("tests.databases", "tests.elsewhere")
FOREIGN = ("TINKER_", "THINKER_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "OPENAI_", "RUNPOD_", "STREAMLIT_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY")

NOT_FAST = {"browser", "faults", "slow"}
# What is run side by side (tests/__main__.py). Two of them mostly wait, and leave the first their time; so each takes about as long.
PARTS = ("that compute", "that wait", "in a browser")
BUSY = ("models", "rehearsing", "server", "training")

_fallback_home = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help=f"leave out the tests marked {', '.join(sorted(NOT_FAST))}")
    parser.addoption("--part", choices=PARTS, help="only these, one of the parts of all tests")
    parser.addoption("--long", action="store_true", help="with the tests marked long too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unwanted = (NOT_FAST if config.getoption("--fast") else set()) | (set() if config.getoption("--long") else {"long"})
    part = config.getoption("--part")
    fast = config.getoption("--fast")
    wanted = [item for item in items if not unwanted & _marks(item) and part in (None, _part(item, fast=fast))]
    if len(wanted) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
        items[:] = wanted


def _marks(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()}


def _part(item: pytest.Item, *, fast: bool) -> str:
    """The one that the test belongs to, among all or among the fast ones."""
    marks = _marks(item)
    if "browser" in marks:
        return PARTS[2]
    waits = "faults" in marks or ((fast or "slow" in marks) and item.path.parent.name not in BUSY)
    return PARTS[1] if waits else PARTS[0]


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module is imported: the hub's library reads its settings once, at import.
    for name in list(os.environ):
        if name.upper().startswith(FOREIGN) or name.upper() in PROXIES:
            del os.environ[name]
    # Threads of PyTorch that wait in a loop would take the cores from the tests beside them: five times as long, measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # For what is read or written by fixtures that live longer than one test.
    config.stash[_fallback_home] = home = tempfile.mkdtemp(prefix="thinker-tests-")
    os.environ.update(THINKER_HOME=home, HF_HOME=os.path.join(home, "hub"), HF_HUB_OFFLINE="1", TINKER_TELEMETRY="0")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _fallback_home in config.stash:
        shutil.rmtree(config.stash[_fallback_home], ignore_errors=True)


@pytest.fixture(autouse=True)
def thinker_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of this one test."""
    home = tmp_path / "thinker_home"
    monkeypatch.setenv("THINKER_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def no_key_stays() -> Iterator[None]:
    """Keys are held by the process: what a test gave is gone after it."""
    held = lambda: sys.modules["engine.keys"].held() if "engine.keys" in sys.modules else {}  # noqa: E731
    before = held()
    yield
    for owner, name in held().keys() - before.keys():
        sys.modules["engine.keys"].unhold(owner, name)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No runner: -> the times that one was asked for."""
    from engine.jobs import host

    asked: list[str] = []
    monkeypatch.setattr(host, "ensure_runner", lambda *_: asked.append("asked"))
    return asked


@pytest.fixture
def quick_heirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that died is followed after some seconds, where it would be a quarter of a minute."""
    monkeypatch.setenv("THINKER_RUNNER_LEASE", "4")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser to drive. Without one the test is skipped, except in CI, where it fails."""
    found = platforms.find_chromium()
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("there is no Chromium, and in CI the browser tests have to run")
    if found is None:
        pytest.skip("no Chromium, Chrome or Edge on this machine")
    return found
