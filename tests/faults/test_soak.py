"""Some kills at random moments, of the fifty and more that `tests/faults/soak.py` deals out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.soak import Soak, plan

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")]


@pytest.fixture(autouse=True)
def thinker_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of its own, for here everything dies."""
    monkeypatch.setenv("THINKER_HOME", str(tmp_path))
    return tmp_path


def test_the_plan_is_the_seeds() -> None:
    assert plan(20, 3) == plan(20, 3) != plan(20, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills", "dashboard"), [("sft", 6, True), ("ahead", 3, False)])
def test_some_kills(thinker_home: Path, kind: str, kills: int, dashboard: bool) -> None:
    report = Soak(thinker_home, 30, kind, dashboard=dashboard).run(plan(kills, 7, longest=1.0, dashboard=dashboard))
    assert not report.problems
    assert sum(report.kills.values()) == kills and report.attempts > report.runs
    assert bool(report.pages) == dashboard
