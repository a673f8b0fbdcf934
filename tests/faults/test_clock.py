"""Clocks that are set by hours while a run is on: in real runners and servers, whose time of day jumps (tests/faults/inject)."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.recipe import Recipe
from engine.store import Store
from tests.faults.conftest import ROOT, STEPS, Place
from tests.jobs import executors
from tests.running import until

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="the other faults here are POSIX's")]
HOURS = 3600.0
COUNT = "tests.jobs.executors:count"


def test_a_run_goes_on_as_if_nothing_had_been(place: Place, recipe: Recipe, straight: list[tuple[int, float]]) -> None:
    """Forwards by five hours, then back by nine: nothing counts as dead, idle, due, too late or too dear."""
    wanted = recipe.merged({"checkpoints": {"every_steps": 0, "every_seconds": 600}, "budget": {"max_minutes": 60}})
    place.plan("slow", seconds=0.3)
    server, runner = place.server(), place.runner()
    job = place.launch(wanted)
    place.until(lambda: place.engine.job(job.id).step >= 3)
    place.plan("slow", seconds=0.3, shift=5 * HOURS)
    place.until(lambda: place.engine.job(job.id).step >= 7)
    place.plan("slow", seconds=0.3, shift=-4 * HOURS)
    done = place.until_state(job, "done")
    [attempt] = place.engine.store.attempts(job.id)
    assert (attempt.why, attempt.ended) == ("start", "done")
    curve = place.engine.curve(job.id, "train_loss")
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([value for _, value in curve], [value for _, value in straight], rtol=0, atol=1e-5)
    assert {checkpoint.step for checkpoint in place.engine.checkpoints(job.id)} == {STEPS}, "no ten minutes had passed"
    assert (place.server(), place.runner()) == (server, runner)
    assert 0 < done.training_seconds < 60
    # The next job finds both as they were.
    place.plan("none", shift=-4 * HOURS)
    place.until_state(place.launch(recipe), "done")
    assert (place.server(), place.runner()) == (server, runner)


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen]]:
    """Runners on data directories of their own, with one database and one clock."""
    started: list[subprocess.Popen] = []

    def start(name: str, url: str) -> subprocess.Popen:
        home = tmp_path / name
        home.mkdir()
        inject = os.pathsep.join([str(ROOT / "tests" / "faults" / "inject"), str(ROOT)])
        about = {"THINKER_HOME": str(home), "THINKER_DATABASE_URL": url, "FAULT_PLAN": str(tmp_path / "plan.json"), "PYTHONPATH": inject}
        command = [sys.executable, "-m", "engine.jobs.host", "--execute", COUNT, "--lease", "5", "--idle", "60"]
        started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **about, "COUNT_DELAY": "0.1"}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nobody_takes_what_another_still_carries(
    request: pytest.FixtureRequest, runners: Callable[[str, str], subprocess.Popen], tmp_path: Path, database: str
) -> None:
    """To a runner whose clock jumps, the leases of all others look run out, until they are renewed; a dead one's is taken all the same."""
    url = f"sqlite:///{tmp_path / 'shared.db'}" if database == "sqlite" else request.getfixturevalue("postgres_url")
    plan = tmp_path / "plan.json"

    def set_clock(hours: float) -> None:
        plan.with_suffix(".draft").write_text(f'{{"moment": "none", "shift": {hours * HOURS}}}')
        os.replace(plan.with_suffix(".draft"), plan)

    with closing(Store(url)) as store:
        recipe = Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 80}})
        processes = [runners(name, url) for name in ("one", "two")]
        until(lambda: all((tmp_path / name / "runner.json").exists() for name in ("one", "two")))
        # One is at work, the other looks for some twice a second.
        job = store.create_job(recipe)
        until(lambda: store.job(job.id).step >= 5)
        set_clock(5)
        time.sleep(1.5)
        set_clock(-4)
        time.sleep(1.5)
        found = store.job(job.id)
        assert (found.state, found.attempt) == ("training", 1)
        next(process for process in processes if f"-{process.pid}-" in found.lease_owner).kill()
        until(lambda: store.job(job.id).state == "done", 60)
        assert [(a.why, a.ended) for a in store.attempts(job.id)] == [("start", "lost"), ("recovery", "done")]
        assert store.curve(job.id, "loss") == executors.reference(80)
    if database == "sqlite":
        with closing(sqlite3.connect(tmp_path / "shared.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
