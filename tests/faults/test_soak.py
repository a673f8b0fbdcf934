"""Ten kills at random moments, of the fifty and more that `tests/faults/soak.py` deals out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.soak import Soak, plan, soak_recipe

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300), pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")]


@pytest.fixture(autouse=True)
def thinker_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of its own, for here everything dies."""
    monkeypatch.setenv("THINKER_HOME", str(tmp_path))
    return tmp_path


def test_the_plan_is_the_seeds() -> None:
    assert plan(20, 3) == plan(20, 3) != plan(20, 4)


def test_ten_kills(thinker_home: Path) -> None:
    report = Soak(thinker_home, soak_recipe(30)).run(plan(10, 7, longest=1.0))
    assert not report.problems
    assert sum(report.kills.values()) == 10 and report.attempts > report.runs
