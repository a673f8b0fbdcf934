from __future__ import annotations

import math
import time

import pytest

from engine.errors import NotFound
from engine.store import Store
from tests.store.test_lifecycle import save


@pytest.fixture
def job(store, recipe):
    store.create_job(recipe)
    return store.claim_job("r", 15)


def losses(store, job, steps, base=0.0):
    store.add_metrics(job.id, job.attempt, [(step, "loss", base + step) for step in steps])


def test_one_clean_curve_over_attempts(store, job, clock):
    losses(store, job, range(1, 8))
    save(store, job, 5)
    clock.time += 16
    second = store.claim_job("r", 15)
    assert second.attempt == 2 and second.step == 5
    # Until the second attempt has written, the steps that were undone are gone already.
    assert [step for step, _ in store.curve(job.id, "loss")] == [1, 2, 3, 4, 5]
    losses(store, second, range(6, 10), base=100)
    clock.time += 16
    third = store.claim_job("r", 15)
    losses(store, third, range(6, 8), base=200)
    expected = [(s, float(s)) for s in range(1, 6)] + [(6, 206.0), (7, 207.0)]
    assert store.curve(job.id, "loss") == expected
    assert store.curve(job.id, "loss", after_step=5) == expected[5:]
    assert len(store.metrics(job.id)) == 7 + 4 + 2
    assert store.latest_metrics(job.id) == {"loss": 207.0}
    store.start_from(job.id, 3, 0)
    assert store.curve(job.id, "loss") == expected[5:]


def test_a_value_counts_once_an_attempt(store, job):
    losses(store, job, [1, 2])
    losses(store, job, [2, 3], base=50)
    assert store.curve(job.id, "loss") == [(1, 1.0), (2, 2.0), (3, 53.0)]


def test_increments_names_and_odd_numbers(store, job):
    store.add_metrics(job.id, 1, [(1, "loss", math.nan), (1, "lr", 0.5), (2, "loss", math.inf)])
    first = store.metrics(job.id)
    assert math.isnan(first[0].value) and first[2].value == math.inf and first[0].at == store.now()
    assert store.metrics(job.id, after_id=first[1].id) == first[2:]
    assert [m.name for m in store.metrics(job.id, names=["lr"])] == ["lr"]
    assert store.metric_names(job.id) == ["loss", "lr"]


def test_samples_are_clean_too(store, job, clock):
    def sample(attempt, step, answer):
        row = {"step": step, "position": 0, "prompt": "hi", "expected": "ay", "answer": answer, "correct": answer == "ay"}
        store.record(job.id, attempt, samples=[row])

    sample(1, 0, "no")
    sample(1, 10, "lost")
    clock.time += 16
    store.claim_job("r", 15)
    sample(2, 0, "no")
    sample(2, 10, "ay")
    assert [(s.step, s.answer, s.correct, s.attempt) for s in store.samples(job.id)] == [(0, "no", False, 2), (10, "ay", True, 2)]
    assert [s.step for s in store.samples(job.id, after_step=0)] == [10]


def test_text_that_no_database_keeps_as_it_is(store, job):
    row = {"step": 1, "position": 0, "prompt": "a\ud800b", "answer": "c\0d"}
    store.record(job.id, 1, samples=[row])
    store.set_fields(job.id, 1, stage="e\0", result={"text": "f\udfffg"})
    [sample] = store.samples(job.id)
    assert (sample.prompt, sample.answer, sample.expected, sample.correct) == ("a?b", "c\ufffdd", None, None)
    assert store.job(job.id).result == {"text": "f?g"} and store.job(job.id).stage == "e\ufffd"


def test_checkpoints(store, job):
    assert store.last_checkpoint(job.id) is None
    save(store, job, 5)
    save(store, job, 9)
    assert [(c.step, c.kind) for c in store.checkpoints(job.id)] == [
        (5, "weights"), (5, "sampler_weights"), (9, "weights"), (9, "sampler_weights"),
    ]  # fmt: skip
    last = store.last_checkpoint(job.id, "sampler_weights")
    assert (last.path, last.loop_state, last.renderer, last.reason) == ("s9", {"n": 9}, "chatml", "test")
    store.delete_checkpoint(job.id, store.last_checkpoint(job.id).id)
    assert store.last_checkpoint(job.id).step == 5
    with pytest.raises(NotFound):
        store.delete_checkpoint(job.id, 12345)


def test_a_long_run_is_cheap_to_watch(recipe):
    store = Store()
    store.create_job(recipe)
    job = store.claim_job("r", 600)
    for start in range(0, 100_000, 20_000):
        store.add_metrics(job.id, 1, [(step, name, 1.0) for step in range(start // 2, start // 2 + 10_000) for name in ("loss", "lr")])
    last_id = store.metrics(job.id, limit=1)[0].id + 99_990

    def poll():
        store.latest_metrics(job.id)
        return len(store.metrics(job.id, after_id=last_id)), len(store.curve(job.id, "loss", after_step=49_994))

    assert poll() == (9, 5)
    taken = []
    for _ in range(10):
        started = time.perf_counter()
        poll()
        taken.append(time.perf_counter() - started)
    assert min(taken) < 0.05
    store.close()
