from __future__ import annotations

import threading

import pytest

from engine.errors import NotFound, StateError
from engine.jobs.runner import Runner
from engine.store import LeaseLost
from tests.jobs import executors


def save(store, job, step):
    common = {"step": step, "reason": "test", "loop_state": {"n": step}, "renderer": "chatml"}
    rows = [{**common, "kind": kind, "path": f"{kind[0]}{step}"} for kind in ("weights", "sampler_weights")]
    store.record(job.id, job.attempt, checkpoints=rows)


def test_a_job_from_queue_to_done(store, recipe, clock):
    made = store.create_job(recipe)
    assert (made.state, made.name, made.attempt, made.recipe) == ("queued", "piglatin sft", 1, recipe)
    job = store.claim_job("r1", 15)
    assert (job.id, job.state, job.lease_owner, job.lease_until) == (made.id, "preparing", "r1", clock() + 15)
    assert store.claim_job("r2") is None
    store.set_fields(job.id, 1, stage="loading")
    store.transition(job.id, "training", attempt=1, total_steps=10)
    store.progress(job.id, 1, step=5, total_steps=10, tokens=640, training_seconds=2.5)
    clock.time += 7
    store.transition(job.id, "evaluating", attempt=1)
    store.set_fields(job.id, 1, result={"exact_match": 0.9})
    store.set_fields(job.id, 1, result={"seconds": 7})
    store.transition(job.id, "done", attempt=1)
    done = store.job(job.id)
    assert (done.state, done.step, done.tokens, done.training_seconds, done.finished_at) == ("done", 5, 640, 2.5, clock())
    assert done.result == {"exact_match": 0.9, "seconds": 7} and done.lease_owner is None and done.stage == "" and done.fraction == 0.5
    [attempt] = store.attempts(job.id)
    assert (attempt.why, attempt.start_step, attempt.end_step, attempt.ended) == ("start", 0, 5, "done")
    assert [e.text for e in store.events(job.id)] == ["preparing", "loading", "training", "evaluating", "done"]
    assert done.to_dict()["recipe"]["data"]["demo"] == "piglatin"


def test_moves_that_the_table_lacks_are_refused(store, recipe):
    store.create_job(recipe)
    job = store.claim_job("r")
    with pytest.raises(StateError, match=r"\(preparing\): it can't become done"):
        store.transition(job.id, "done", attempt=1)
    assert store.job(job.id).state == "preparing"


def test_pause_resume_stop(store, recipe):
    job = store.create_job(recipe)
    store.claim_job("r")
    store.transition(job.id, "training", attempt=1)
    assert store.set_control(job.id, "pause").state == "pausing"
    assert store.poll_control(job.id, 1) == "pause"
    assert store.transition(job.id, "evaluating", attempt=1).state == "pausing"
    with pytest.raises(StateError):
        store.set_control(job.id, None)
    save(store, job, 4)
    store.transition(job.id, "paused", attempt=1)
    paused = store.job(job.id)
    assert (paused.state, paused.control, paused.finished_at) == ("paused", None, None)
    with pytest.raises(StateError):
        store.set_control(job.id, "pause")
    assert store.resume(job.id).attempt == 2
    with pytest.raises(StateError):
        store.resume(job.id)
    again = store.claim_job("r")
    assert (again.attempt, again.step, store.attempts(job.id)[-1].why) == (2, 4, "resume")
    store.set_control(job.id, "pause")
    assert store.set_control(job.id, "stop").control == "stop"
    store.transition(job.id, "stopped", attempt=2)
    assert store.job(job.id).finished_at is not None
    assert store.set_control(store.create_job(recipe).id, "stop").state == "stopped"


def test_whoever_lost_the_lease_can_write_no_more(store, recipe, clock):
    job = store.create_job(recipe)
    store.claim_job("r1", 15)
    store.transition(job.id, "training", attempt=1)
    clock.time += 10
    assert store.renew_lease(job.id, "r1", 1, 15)
    clock.time += 14
    assert store.claim_job("r2") is None
    clock.time += 2
    taken = store.claim_job("r2", 15)
    assert (taken.attempt, taken.lease_owner, taken.state) == (2, "r2", "preparing")
    assert not store.renew_lease(job.id, "r1", 1, 15)
    for write in (
        lambda: store.add_metrics(job.id, 1, [(1, "loss", 1.0)]),
        lambda: store.transition(job.id, "done", attempt=1),
        lambda: save(store, job, 1),
        lambda: store.set_fields(job.id, 1, stage="x"),
        lambda: store.set_fields(job.id, 1, result={}),
        lambda: store.poll_control(job.id, 1),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert [(a.why, a.ended) for a in store.attempts(job.id)] == [("start", "lost"), ("recovery", None)]


def test_a_job_that_gets_no_further_is_given_up(store, recipe, clock):
    job = store.create_job(recipe)
    for attempt in range(1, 5):
        claimed = store.claim_job("r", 15)
        assert claimed.attempt == attempt
        store.progress(job.id, attempt, step=3, total_steps=10, tokens=0, training_seconds=0.0)
        clock.time += 16
    assert store.claim_job("r", 15) is None
    failed = store.job(job.id)
    assert failed.state == "failed" and "cut off 4 times and got no further than step 3" in failed.error["message"]
    store.resume(job.id)
    assert store.claim_job("r", 15).attempt == 5


def test_a_job_that_gets_on_between_cuts_is_not_given_up(store, recipe, clock):
    job = store.create_job(recipe)
    for attempt in range(1, 9):
        assert store.claim_job("r", 15).attempt == attempt
        store.progress(job.id, attempt, step=attempt, total_steps=10, tokens=0, training_seconds=0.0)
        clock.time += 16


def test_restarts_in_the_same_hands(store, recipe):
    store.create_job(recipe)
    job = store.claim_job("r")
    save(store, job, 2)
    for attempt in (2, 3, 4, 5, 6):
        again = store.restart(job.id, "r", attempt - 1, "the server died")
        if attempt < 6:
            assert (again.attempt, again.step, again.lease_owner, again.state) == (attempt, 2, "r", "preparing")
    assert again.state == "failed" and "the server died" in again.error["message"]
    assert [a.why for a in store.attempts(job.id)] == ["start", "restart", "restart", "restart", "restart"]


def test_a_restart_heeds_what_was_asked(store, recipe):
    store.create_job(recipe)
    job = store.claim_job("r")
    store.set_control(job.id, "pause")
    assert store.restart(job.id, "r", 1, "gone").state == "paused"
    assert store.resume(job.id).attempt == 2


def test_a_request_outlives_a_cut(store, recipe, clock):
    job = store.create_job(recipe)
    store.claim_job("r", 15)
    store.set_control(job.id, "stop")
    clock.time += 16
    assert store.claim_job("r", 15) is None
    assert store.job(job.id).state == "stopped"


def test_a_reserved_job_waits_for_its_runner(store, recipe, clock):
    job = store.create_job(recipe, reserve_for="mine", reserve_s=30)
    assert store.claim_job("other") is None
    assert store.claim_job("mine", job_id=job.id).id == job.id
    late = store.create_job(recipe, reserve_for="gone", reserve_s=30)
    clock.time += 31
    assert store.claim_job("mine", job_id=late.id).id == late.id


def test_each_job_is_claimed_once(store, open_store, recipe):
    made = {store.create_job(recipe).id for _ in range(12)}
    claimed: list[str] = []

    def claim(name):
        own = open_store()
        while (job := own.claim_job(name, 600)) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=claim, args=(f"r{n}",)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert sorted(claimed) == sorted(made)


def test_a_runner_works_on_each_database(open_store, recipe):
    store = open_store()
    job = Runner(store, executors.lose_endpoint_twice).run_new(recipe.merged({"training": {"steps": 20}}))
    assert job.state == "done" and store.curve(job.id, "loss") == executors.reference(20)
    assert [line.step for line in store.samples(job.id)] == list(range(1, 21))


def test_others_see_nothing(store, recipe):
    job = store.create_job(recipe, owner="ann")
    for look in (
        store.job, store.find_job, store.resume, store.delete_job, store.metrics, store.samples, store.checkpoints, store.last_checkpoint,
        store.events, store.attempts, store.metric_names, lambda i, **o: store.set_control(i, "stop", **o),
        lambda i, **o: store.curve(i, "loss", **o), store.latest_metrics,
    ):  # fmt: skip
        with pytest.raises(NotFound):
            look(job.id)
        with pytest.raises(NotFound):
            look(job.id, owner="bob")
    assert store.jobs() == [] and [j.id for j in store.jobs(owner="ann")] == [job.id] == [j.id for j in store.jobs(owner=None)]
    assert store.job(job.id, owner="ann").state == "queued"


def test_find_list_search_delete(store, recipe, clock):
    made = []
    for name in ("Alpha", "beta 100%", "beta two"):
        clock.time += 1
        made.append(store.create_job(recipe.merged({"name": name})))
    alpha, percent, two = made
    assert [j.name for j in store.jobs()] == ["beta two", "beta 100%", "Alpha"]
    assert [j.name for j in store.jobs(limit=1, offset=1)] == ["beta 100%"]
    assert [j.name for j in store.jobs(search="BETA")] == ["beta two", "beta 100%"]
    assert [j.name for j in store.jobs(search="%")] == ["beta 100%"]
    assert store.find_job(alpha.id[:8]).id == alpha.id == store.find_job(alpha.id).id
    with pytest.raises(NotFound):
        store.find_job("")
    claimed = store.claim_job("r")
    assert claimed.id == alpha.id
    assert [j.name for j in store.jobs(states={"preparing"})] == ["Alpha"]
    with pytest.raises(StateError, match="Stop it first"):
        store.delete_job(alpha.id)
    store.delete_job(two.id)
    with pytest.raises(NotFound):
        store.job(two.id)
