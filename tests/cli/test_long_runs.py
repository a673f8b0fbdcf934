"""Runs that are interrupted, paused, stopped and followed from other terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK
from tests.running import Done, cli, command, environment, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C can't be sent to another process there")
LONG = [*QUICK, "--steps", "100", "--set", "evaluation.proof=false", "--set", "evaluation.samples_every=0"]


class Foreground:
    """`train` in a process of its own, as in a terminal."""

    def __init__(self, place: Path, *arguments: str):
        self.process = subprocess.Popen(
            command("train", "loud.jsonl", *LONG, *arguments),
            env=environment(place),
            cwd=place.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> Done:
        out, err = self.process.communicate(timeout=60)
        return Done(self.process.returncode, out, err)


def newest(call, **expected) -> dict | None:
    job = call("jobs", "--json", "--limit", "1").json["jobs"][0]
    return job if all(job[name] == value for name, value in expected.items()) else None


@pytest.mark.slow
def test_ctrl_c_pauses_and_resume_finishes(call, trained, place: Path, monkeypatch):
    run = Foreground(place, "--name", "paused", "--json")
    until(lambda: (job := newest(call, name="paused")) and job["step"] > 5)
    run.interrupt()
    done = run.end()
    assert done.code == 0, done.err
    assert done.json["state"] == "paused" and 5 < done.json["step"] < 100
    assert "pausing after this step" in done.err and f"resume {done.json['job_id']}" in done.err and "Traceback" not in done.err
    job_id, step = done.json["job_id"], done.json["step"]
    kept = call("show", job_id, "--json").json["checkpoints"]
    assert {(checkpoint["kind"], checkpoint["step"]) for checkpoint in kept} == {("weights", step), ("sampler_weights", step)}

    monkeypatch.setenv("THINKER_RUNNER_IDLE", "1")
    resumed = call("resume", job_id)
    assert resumed.code == 0 and f"watch {job_id}" in resumed.out
    watched = call("watch", job_id, "--json")
    assert watched.code == 0 and watched.json["state"] == "done" and watched.json["step"] == 100
    assert "finished at step 100" in watched.err
    metrics = call("show", job_id, "--json").json
    assert metrics["attempt"] == 2 and metrics["result"]["steps"] == 100
    assert call("chat", "Shout word7", "--model", "paused", "--max-tokens", "8").out.strip() == "WORD7!"


@pytest.mark.slow
def test_a_second_ctrl_c_gives_up_and_nothing_is_stuck(call, trained, place: Path):
    run = Foreground(place, "--name", "given up", "--set", "checkpoints.every_steps=3")
    until(lambda: (job := newest(call, name="given up")) and job["step"] > 5)
    run.interrupt()
    time.sleep(0.01)
    run.interrupt()
    done = run.end()
    assert done.code in (0, 130) and "Traceback" not in done.err
    job = until(lambda: newest(call, state="paused"))
    assert job["id"] in done.out and "resume" in done.out
    # What the last checkpoint holds can be kept without running again.
    assert call("stop", job["id"]).code == 0
    assert newest(call)["state"] == "stopped"
    assert "given up" in [model["name"] for model in call("models", "--json").json["models"]]
    assert call("delete", job["id"]).code == 0


@pytest.mark.slow
def test_in_the_background(call, trained, place: Path, monkeypatch):
    monkeypatch.setenv("THINKER_RUNNER_IDLE", "1")
    started = cli(place, "train", "loud.jsonl", *LONG, "--name", "behind", "--background", "--json", THINKER_RUNNER_IDLE="1")
    job_id = started.json["job_id"]
    assert started.json["state"] == "queued" and f"watch {job_id}" in started.err
    until(lambda: newest(call)["step"] > 3)
    assert call("delete", job_id).code == 1, "not while it runs"
    assert call("pause", job_id, "--json").json["state"] in ("pausing", "paused")
    until(lambda: newest(call, state="paused"))
    call("resume", job_id)
    until(lambda: newest(call, state="training"))
    assert call("stop", job_id).code == 0
    watched = call("watch", job_id)
    assert watched.code == 0 and "stopped early at step" in watched.out
    assert call("chat", "Shout word7", "--model", job_id, "--max-tokens", "8").out.startswith("WORD")
    folder = place / "jobs" / job_id
    assert folder.exists() and call("delete", job_id).code == 0 and not folder.exists()


def test_a_run_that_fails_says_so(call, trained, place: Path):
    """The rows have gone missing between the check and the run: before the job is there to be taken, for a runner may be waiting."""
    file = place.parent / "vanishing.jsonl"
    program = "import sys; from engine import Engine, Recipe; from engine.store import Store\n"
    program += "print(Store().create_job(Recipe.make({'data': {'path': sys.argv[1]}})).id)"
    made = subprocess.run([sys.executable, "-c", program, str(file)], env=environment(place), capture_output=True, text=True, check=True)
    job_id = made.stdout.strip()
    watched = cli(place, "watch", job_id, "--json", THINKER_RUNNER_IDLE="1")
    assert watched.code == 1 and watched.json["state"] == "failed" and watched.json["error"]["kind"] == "DataError"
    assert "vanishing.jsonl" in watched.err and "no such file" in watched.err
