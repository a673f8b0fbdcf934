"""Two dashboards on one database, in real processes with the runners that they start: no job is run twice, none is left lying."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.recipe import Recipe
from engine.store import Store
from tests.jobs import executors
from tests.running import ROOT, end_processes, until

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="the signals are POSIX's")]
JOBS = 10
LAUNCH = """
import time
from engine import Engine, Recipe
from engine.jobs import host
with Engine() as engine:
    host.ensure_runner()
    while not host.runner_info():
        time.sleep(0.05)
    print("ready", flush=True)
    input()
    recipe = Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 20}})
    for _ in range(%d):
        engine.launch(recipe)
"""
Start = Callable[..., subprocess.Popen]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that all share."""
    return f"sqlite:///{tmp_path / 'shared.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Start]:
    """A process on a data directory of its own, `name`, and the shared database."""
    started: list[subprocess.Popen] = []

    def process(name: str, *command: str, **more: str) -> subprocess.Popen:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        about = {"THINKER_HOME": str(home), "THINKER_DATABASE_URL": url, "PYTHONPATH": str(ROOT), "THINKER_RUNNER_IDLE": "60", **more}
        about["THINKER_EXECUTE"] = "tests.jobs.executors:count"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *command], cwd=ROOT, env={**os.environ, **about}, **pipes))
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.communicate()
    for home in tmp_path.iterdir():
        if home.is_dir():
            end_processes(home)


def runner(start: Start, name: str, delay: str) -> subprocess.Popen:
    return start(name, "-m", "engine.jobs.host", "--lease", "2", COUNT_DELAY=delay)


@pytest.mark.parametrize("homes", [("one", "two"), ("one", "one")], ids=["two machines", "one machine"])
def test_each_job_runs_once(start: Start, url: str, homes: tuple[str, str], tmp_path: Path) -> None:
    dashboards = [start(home, "-c", LAUNCH % JOBS, COUNT_DELAY="0.01") for home in homes]
    for dashboard in dashboards:
        assert dashboard.stdout.readline() == "ready\n"
    for dashboard in dashboards:
        dashboard.stdin.write("\n")
        dashboard.stdin.flush()
    for dashboard in dashboards:
        assert dashboard.wait(60) == 0
    with closing(Store(url)) as store:
        until(lambda: len(store.jobs(states=("done",), limit=100)) == 2 * JOBS, 60)
        ran = []
        for job in store.jobs(limit=100):
            [attempt] = store.attempts(job.id)
            assert (attempt.why, attempt.ended) == ("start", "done")
            assert store.curve(job.id, "loss") == executors.reference(20)
            assert len(store.metrics(job.id)) == len(store.samples(job.id)) == 20
            ran += [home for home in set(homes) if (tmp_path / home / "jobs" / job.id).exists()]
        assert len(ran) == 2 * JOBS and set(ran) == set(homes)


def test_one_that_slept_past_its_lease_writes_nothing_over_its_heir(start: Start, url: str) -> None:
    """Stopped in mid-step, its job taken over and finished elsewhere, then woken: what it still has to say is nobody's."""
    with closing(Store(url)) as store:
        job = store.create_job(Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 60}}))
        sleeper = runner(start, "one", "0.03")
        until(lambda: store.job(job.id).step >= 12)
        sleeper.send_signal(signal.SIGSTOP)
        runner(start, "two", "0.03")
        until(lambda: store.job(job.id).attempt == 2 and store.job(job.id).step >= 20)
        sleeper.send_signal(signal.SIGCONT)
        until(lambda: store.job(job.id).state == "done", 60)
        before = (store.metrics(job.id), store.samples(job.id), store.checkpoints(job.id), store.job(job.id))
        assert store.curve(job.id, "loss") == executors.reference(60)
        assert [(a.why, a.ended) for a in store.attempts(job.id)] == [("start", "lost"), ("recovery", "done")]
        assert [checkpoint.step for checkpoint in store.checkpoints(job.id)] == sorted([*range(5, 61, 5)] * 2)
        # It takes other work all the same, and is none the worse for it.
        later = [store.create_job(Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 20}})) for _ in range(4)]
        until(lambda: all(store.job(one.id).state == "done" for one in later), 60)
        assert all(len(store.attempts(one.id)) == 1 and store.curve(one.id, "loss") == executors.reference(20) for one in later)
        assert sleeper.poll() is None
        assert before == (store.metrics(job.id), store.samples(job.id), store.checkpoints(job.id), store.job(job.id))
