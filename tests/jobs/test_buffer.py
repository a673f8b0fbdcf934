from __future__ import annotations

import time

import pytest

from engine.errors import StorageError
from engine.jobs.buffer import MetricsBuffer
from engine.jobs.run import JobRun
from engine.store import Store


class CountingStore(Store):
    """A real store that counts its batches, and whose disk can be full."""

    batches = 0
    full = False

    def record(self, *arguments, **named):
        if self.full:
            raise StorageError("The database refused: disk full.")
        self.batches += 1
        return super().record(*arguments, **named)


@pytest.fixture
def counting(recipe, database):
    store = CountingStore()
    store.create_job(recipe)
    yield store
    store.close()


@pytest.fixture
def job(counting):
    return counting.claim_job("r", 60)


def test_many_numbers_few_transactions(counting, job):
    buffer = MetricsBuffer(counting, job.id, 1, size=100, seconds=60)
    for step in range(1, 251):
        buffer.add_metrics(step, {"loss": step})
    assert counting.batches == 2 and len(counting.curve(job.id, "loss")) == 200
    buffer.flush()
    buffer.flush()
    assert counting.batches == 3 and len(counting.curve(job.id, "loss")) == 250


def test_what_waits_for_long_is_written(counting, job):
    buffer = MetricsBuffer(counting, job.id, 1, size=100, seconds=0.05)
    buffer.add_metrics(1, {"loss": 1})
    assert counting.batches == 0
    time.sleep(0.06)
    buffer.flush_if_due()
    assert counting.curve(job.id, "loss") == [(1, 1.0)]


def test_a_value_is_written_once(counting, job):
    buffer = MetricsBuffer(counting, job.id, 1)
    buffer.add_metrics(1, {"loss": 1})
    buffer.add_metrics(1, {"loss": 2})
    buffer.flush()
    buffer.add_metrics(1, {"loss": 3})
    buffer.flush()
    assert counting.curve(job.id, "loss") == [(1, 1.0)] and len(counting.metrics(job.id)) == 1


def test_a_full_disk_loses_nothing(counting, job):
    buffer = MetricsBuffer(counting, job.id, 1, seconds=60)
    buffer.add_metrics(1, {"loss": 1})
    buffer.add_sample({"step": 1, "position": 0, "prompt": "p", "expected": None, "answer": "a", "correct": None})
    counting.full = True
    with pytest.raises(StorageError):
        buffer.flush()
    buffer.add_metrics(2, {"loss": 2})
    counting.full = False
    buffer.flush()
    assert counting.curve(job.id, "loss") == [(1, 1.0), (2, 2.0)] and len(counting.samples(job.id)) == 1


def test_a_checkpoint_takes_what_was_reported_along(counting, job):
    run = JobRun(counting, job)
    run.metrics(1, {"loss": 1})
    run.progress(1, 20, 10, 0.5)
    saved = {"reason": "steps", "loop_state": {}, "renderer": "chatml"}
    counting.full = True
    with pytest.raises(StorageError):
        run.checkpoint(1, weights_path="w", **saved)
    assert counting.last_checkpoint(job.id) is None
    counting.full = False
    run.checkpoint(1, weights_path="w", sampler_path="s", **saved)
    assert counting.batches == 1 and counting.job(job.id).step == 1
    assert counting.curve(job.id, "loss") == [(1, 1.0)] and len(counting.checkpoints(job.id)) == 2


def test_a_database_that_is_away_for_a_while_does_not_end_a_run(counting, job, monkeypatch):
    run = JobRun(counting, job)
    counting.set_control(job.id, "pause")
    assert run.control() == "pause"

    def away(*arguments):
        raise StorageError("The database refused: server closed.")

    with monkeypatch.context() as patch:
        patch.setattr(CountingStore, "poll_control", away)
        counting.full = True
        run.metrics(1, {"loss": 1})
        time.sleep(0.6)
        run.metrics(2, {"loss": 2})
        assert run.control() == "pause"
    counting.full = False
    run.flush()
    assert counting.curve(job.id, "loss") == [(1, 1.0), (2, 2.0)]


def test_control_is_cheap_to_ask(counting, job, monkeypatch):
    asked = []
    monkeypatch.setattr(CountingStore, "poll_control", lambda self, *a: asked.append(a))
    run = JobRun(counting, job)
    started = time.monotonic()
    while len(asked) < 3:
        run.control()
    assert time.monotonic() - started >= 0.4, "five times a second at the most"
