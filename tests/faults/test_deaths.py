"""Servers and runners killed in the middle of a run: it goes on by itself, as if nothing had been."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest

from engine import platforms
from engine.recipe import Recipe
from engine.server.checkpoints import CheckpointPath, CheckpointStore
from engine.store import Job
from tests.faults.conftest import STEPS, Place

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and RLIMIT_FSIZE are POSIX's")]
Curve = list[tuple[int, float]]


def assert_as_if_nothing_had_been(place: Place, job: Job, straight: Curve) -> None:
    """No step twice, none missing, each loss the same; every checkpoint whole."""
    curve = place.engine.curve(job.id, "train_loss")
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([value for _, value in curve], [value for _, value in straight], rtol=0, atol=1e-5)
    assert_loadable(place, job, [4, 8, 12])
    found = place.engine.job(job.id)
    assert (found.step, found.total_steps) == (STEPS, STEPS)


def assert_loadable(place: Place, job: Job, at: list[int]) -> None:
    noted = place.engine.checkpoints(job.id)
    assert sorted({checkpoint.step for checkpoint in noted}) == at and len(noted) == 2 * len(at)
    folder = place.home / "checkpoints"
    assert not list(folder.glob("*/*/.*")), "a draft was left behind"
    store = CheckpointStore(folder)
    for checkpoint in noted:
        path = CheckpointPath.parse(checkpoint.path)
        info, tensors = store.load_adapter(path)
        assert info.steps == checkpoint.step and tensors
        if checkpoint.kind == "weights":
            assert {int(value) for name, value in store.load_optimizer(path).items() if name.endswith(".step")} == {checkpoint.step}


def ends(place: Place, job: Job) -> list[tuple[str, int, str | None]]:
    return [(attempt.why, attempt.start_step, attempt.ended) for attempt in place.engine.store.attempts(job.id)]


@pytest.mark.parametrize(
    ("moment", "at", "resumes"),
    [
        ("inside forward_backward", 7, 4),
        ("before optim_step", 10, 8),
        ("adapter written", 2, 4),
        ("before the rename", 2, 4),
        ("before optim_step", 2, 0),
    ],
)
def test_the_server_dies(place: Place, recipe: Recipe, straight: Curve, moment: str, at: int, resumes: int) -> None:
    first = place.server()
    place.plan(moment, at)
    job = place.launch(recipe)
    place.until_state(job, "done")
    assert place.happened and place.server() != first
    assert ends(place, job) == [("start", 0, "lost"), ("restart", resumes, "done")]
    assert_as_if_nothing_had_been(place, job, straight)
    assert any("server ended" in event.text for event in place.engine.events(job.id))


def test_the_runner_dies(place: Place, recipe: Recipe, straight: Curve) -> None:
    place.plan("slow", seconds=0.25)
    job = place.launch(recipe)
    place.until(lambda: place.engine.job(job.id).step >= 5)
    server, runner = place.server(), place.runner()
    os.kill(runner, signal.SIGKILL)
    place.until(lambda: not platforms.process_alive(runner))
    place.all_well()
    assert place.runner() != runner
    place.until_state(job, "done")
    assert ends(place, job) == [("start", 0, "lost"), ("recovery", 4, "done")]
    assert_as_if_nothing_had_been(place, job, straight)
    assert place.server() == server, "a server that lives is used again"


def test_pause_and_resume(place: Place, recipe: Recipe, straight: Curve) -> None:
    place.plan("slow", seconds=0.25)
    job = place.launch(recipe)
    place.until(lambda: place.engine.job(job.id).step >= 3)
    place.engine.pause(job.id)
    paused = place.until_state(job, "paused").step
    assert 3 <= paused < STEPS
    place.all_well()
    place.engine.resume(job.id)
    place.until_state(job, "done")
    assert ends(place, job) == [("start", 0, "paused"), ("resume", paused, "done")]
    curve = place.engine.curve(job.id, "train_loss")
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([value for _, value in curve], [value for _, value in straight], rtol=0, atol=1e-5)
    assert_loadable(place, job, sorted({4, 8, STEPS, paused}))


def test_stop_keeps_a_usable_model(place: Place, recipe: Recipe, straight: Curve) -> None:
    place.plan("slow", seconds=0.25)
    job = place.launch(recipe.merged({"name": "stopped early"}))
    place.until(lambda: place.engine.job(job.id).step >= 3)
    place.engine.stop(job.id)
    stopped = place.until_state(job, "stopped").step
    place.all_well()
    assert 3 <= stopped < STEPS
    curve = place.engine.curve(job.id, "train_loss")
    np.testing.assert_allclose([value for _, value in curve], [value for _, value in straight[:stopped]], rtol=0, atol=1e-5)
    assert_loadable(place, job, sorted({step for step in (4, 8) if step < stopped} | {stopped}))
    model = place.engine.model("stopped early")
    assert model.sampler_path == [c for c in place.engine.checkpoints(job.id) if c.kind == "sampler_weights"][-1].path
    with place.engine.chat("stopped early") as chat:
        assert isinstance(chat.reply([{"role": "user", "content": "Pig Latin: hello"}], max_tokens=16), str)


def test_the_disk_is_full(place: Place, recipe: Recipe, straight: Curve) -> None:
    server = place.server()
    place.plan("disk full", 2)
    job = place.launch(recipe)
    failed = place.until(lambda: (now := place.engine.job(job.id)).state in ("failed", "done") and now)
    assert failed.state == "failed"
    told = f"{failed.error['message']} {failed.error['next_step']}"
    assert "couldn't be saved" in told and "Make room" in told and str(place.home) in told
    assert_loadable(place, job, [4])
    place.all_well()
    place.engine.resume(job.id)
    place.until_state(job, "done")
    assert ends(place, job) == [("start", 0, "failed"), ("resume", 4, "done")]
    assert_as_if_nothing_had_been(place, job, straight)
    assert place.server() == server, "the server bore it"


def test_the_runners_disk_is_full_for_a_while(place: Place, recipe: Recipe, straight: Curve) -> None:
    """Database, log, meter and all: what was reported meanwhile is written once there is room, or the run says why it rests."""
    place.plan("slow", seconds=0.2)
    job = place.launch(recipe)
    place.until(lambda: place.engine.job(job.id).step >= 5)
    place.plan("runner's disk full", bytes=512)
    time.sleep(2)
    place.all_well()
    found = place.until_state(job, "done", "failed", "paused")
    if found.state != "done":
        told = f"{found.error['message']} {found.error['next_step']}"
        assert "disk" in told and "room" in told, found.error
        place.engine.resume(job.id)
        place.until_state(job, "done")
    assert_as_if_nothing_had_been(place, job, straight)
