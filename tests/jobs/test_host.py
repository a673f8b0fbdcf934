from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from engine import paths, platforms
from engine.jobs import host, logs
from engine.store import Store
from tests.jobs import executors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COUNT = "tests.jobs.executors:count"


@pytest.fixture
def start_host():
    started: list[subprocess.Popen] = []

    def start(*options: str, **env: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "engine.jobs.host", "--execute", COUNT, "--lease", "1.5", *options]
        started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


@pytest.fixture(autouse=True)
def no_host_stays():
    yield
    host.stop_inline()
    for child in host._started.values():
        child.kill()
        child.wait(10)
    host._started.clear()


@pytest.mark.faults
def test_killed_twice_and_the_curve_is_whole(store, recipe, start_host, until):
    job = store.create_job(recipe.merged({"training": {"steps": 60}}))
    for furthest in (7, 23):
        process = start_host(COUNT_DELAY="0.1")
        until(lambda furthest=furthest: store.job(job.id).step >= furthest and store.last_checkpoint(job.id))
        process.kill()
        process.wait(10)
    start_host()
    until(lambda: store.job(job.id).state == "done")
    assert store.curve(job.id, "loss") == executors.reference(60)
    assert [sample.step for sample in store.samples(job.id)] == list(range(1, 61))
    attempts = store.attempts(job.id)
    assert [(a.why, a.ended) for a in attempts] == [("start", "lost"), ("recovery", "lost"), ("recovery", "done")]
    assert attempts[1].start_step >= 5 and attempts[2].start_step >= 20


def test_two_hosts_on_one_data_directory(store, recipe, start_host, until):
    first = start_host("--idle", "30")
    until(host.runner_info)
    second = start_host("--idle", "30")
    assert second.wait(60) == 0 and first.poll() is None
    assert host.runner_info()["pid"] == first.pid
    job = store.create_job(recipe)
    until(lambda: store.job(job.id).state == "done")
    first.kill()
    first.wait(10)
    assert host.runner_info() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_polite_end_interrupts_and_the_next_host_goes_on(store, recipe, start_host, until):
    job = store.create_job(recipe.merged({"training": {"steps": 40}}))
    process = start_host(COUNT_DELAY="0.1")
    until(lambda: store.last_checkpoint(job.id))
    platforms.terminate(process.pid)
    assert process.wait(60) == 0
    assert store.job(job.id).state == "interrupted"
    assert not (paths.home() / "runner.json").exists()
    start_host()
    until(lambda: store.job(job.id).state == "done")
    assert store.curve(job.id, "loss") == executors.reference(40)


def test_started_on_demand_and_gone_when_idle(store, recipe, until, monkeypatch):
    monkeypatch.setenv("THINKER_RUNNER_IDLE", "0.6")
    job = store.create_job(recipe)
    threads = [threading.Thread(target=host.ensure_runner, args=(COUNT,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    until(lambda: store.job(job.id).state == "done")
    [child] = host._started.values()
    assert child.wait(60) == 0
    again = store.create_job(recipe)
    host.ensure_runner(COUNT)
    until(lambda: store.job(again.id).state == "done")


HOLDER = """
import sys, time
from engine import paths, platforms
handle = (paths.home() / "runner.lock").open("ab")
assert platforms.lock_file(handle)
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.faults
def test_asked_for_while_a_killed_runner_still_ends(store, recipe, until):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        job = store.create_job(recipe)
        host.ensure_runner(COUNT)
        host.ensure_runner(COUNT)
        assert not host._started and paths.home() in host._watched
        time.sleep(0.7)
        assert store.job(job.id).state == "queued"
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()
    until(lambda: store.job(job.id).state == "done")


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_asked_for_at_the_very_moment_of_a_kill(store, recipe, until):
    host.ensure_runner(COUNT)
    for _ in range(4):
        until(lambda: host.runner_info())
        pid = host.runner_info()["pid"]
        # The job is made first: from the kill to the call nothing may pass.
        job = store.create_job(recipe.merged({"training": {"steps": 3}}))
        platforms.kill(pid)
        host.ensure_runner(COUNT)
        until(lambda job=job: store.job(job.id).state == "done")
        until(lambda pid=pid: (host.runner_info() or {"pid": pid})["pid"] != pid)


@pytest.mark.faults
def test_the_watch_starts_nothing_where_nothing_waits(store, monkeypatch, until):
    monkeypatch.setattr(host, "_WATCH_S", 1.0)
    handle = host._take_lock()
    host.ensure_runner(COUNT)
    handle.close()
    until(lambda: paths.home() not in host._watched)
    assert not host._started and host.runner_info() is None


def test_a_job_that_comes_as_the_host_leaves_is_still_run(store, recipe, monkeypatch):
    real, late = host.Runner.stop, []

    def stop(self, *arguments):
        real(self, *arguments)
        if not late:
            late.append(store.create_job(recipe).id)

    monkeypatch.setattr(host.Runner, "stop", stop)
    assert host.serve(COUNT, idle_s=0.1)
    assert store.job(late[0]).state == "done"


def test_inline(store, recipe, until, monkeypatch):
    monkeypatch.setenv("THINKER_RUNNER", "inline")
    monkeypatch.setenv("THINKER_EXECUTE", COUNT)
    host.ensure_runner()
    host.ensure_runner()
    assert host.runner_info()["pid"] == os.getpid()
    job = store.create_job(recipe)
    until(lambda: store.job(job.id).state == "done")
    assert sum(thread.name == "runner" for thread in threading.enumerate()) == 1
    assert not host.serve(COUNT, idle_s=0.1)


def test_code_that_cannot_be_imported_fails_the_job_alone(store, recipe):
    job = store.create_job(recipe)
    assert host.serve("no.such.module:execute", idle_s=0.1)
    failed = store.job(job.id)
    assert failed.state == "failed" and "ModuleNotFoundError" in failed.error["message"]


def test_a_database_that_refuses_ends_the_host_with_a_reason(start_host, capfd):
    (paths.home() / "thinker.db").write_bytes(b"no database" * 1000)
    assert start_host().wait(60) == 1
    assert "damaged or no database" in capfd.readouterr().err
    assert "damaged" in logs.read_log()[-1]["text"]


def test_the_host_loads_nothing_heavy():
    program = "import sys, engine.jobs.host; print([m for m in ('torch', 'tinker', 'transformers', 'streamlit') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.faults
def test_what_a_killed_machine_leaves_the_other_takes_up(postgres_url, monkeypatch, recipe, start_host, until, tmp_path):
    """Runners with data directories of their own, and one database."""
    monkeypatch.setenv("THINKER_DATABASE_URL", postgres_url)
    with closing(Store()) as store:
        job = store.create_job(recipe.merged({"training": {"steps": 60}}))
        first = start_host("--idle", "60", THINKER_HOME=str(tmp_path / "one"), COUNT_DELAY="0.1")
        until(lambda: store.job(job.id).step >= 12)
        start_host("--idle", "60", THINKER_HOME=str(tmp_path / "two"))
        holder = store.job(job.id).lease_owner
        first.kill()
        first.wait(60)
        until(lambda: store.job(job.id).state == "done")
        assert store.job(job.id).lease_owner is None and holder
        assert store.curve(job.id, "loss") == executors.reference(60)
        assert [(a.why, a.ended) for a in store.attempts(job.id)] == [("start", "lost"), ("recovery", "done")]
