from __future__ import annotations

import threading
import time

import pytest

from engine.errors import StateError, StorageError
from engine.jobs import logs
from engine.store import LeaseLost
from tests.jobs import executors


def test_from_queue_to_done(store, recipe, make_runner, until):
    job = store.create_job(recipe)
    runner = make_runner(executors.count)
    runner.start()
    until(lambda: store.job(job.id).state == "done")
    done = store.job(job.id)
    assert (done.step, done.total_steps, done.tokens, done.attempt) == (20, 20, 200, 1)
    assert store.curve(job.id, "loss") == executors.reference(20)
    assert done.result == {"value": executors.reference(20)[-1][1]}
    assert len(store.samples(job.id)) == 20
    assert [c.step for c in store.checkpoints(job.id, "weights")] == [5, 10, 15, 20]
    until(lambda: runner.idle_seconds() > 0)
    texts = [line["text"] for line in logs.read_log(job.id)]
    assert texts[0] == "attempt 1 begins" and texts[-1] == "attempt 1 ends: done" and "checkpoint at step 10" in texts


def test_pause_and_resume_leave_one_clean_curve(store, recipe, make_runner, until, monkeypatch):
    monkeypatch.setenv("COUNT_DELAY", "0.1")
    job = store.create_job(recipe.merged({"training": {"steps": 40}}))
    make_runner(executors.count).start()
    until(lambda: store.job(job.id).step >= 7)
    store.set_control(job.id, "pause")
    until(lambda: store.job(job.id).state == "paused")
    paused_at = store.last_checkpoint(job.id).step
    assert store.last_checkpoint(job.id).reason == "pause" and store.curve(job.id, "loss")[-1][0] == paused_at
    monkeypatch.setenv("COUNT_DELAY", "0")
    store.resume(job.id)
    until(lambda: store.job(job.id).state == "done")
    assert store.curve(job.id, "loss") == executors.reference(40)
    assert [m.step for m in store.metrics(job.id)] == list(range(1, 41))
    assert [(a.why, a.start_step) for a in store.attempts(job.id)] == [("start", 0), ("resume", paused_at)]


def test_stop_keeps_what_was_learned(store, recipe, make_runner, until, monkeypatch):
    monkeypatch.setenv("COUNT_DELAY", "0.05")
    job = store.create_job(recipe)
    make_runner(executors.count).start()
    until(lambda: store.job(job.id).step >= 2)
    store.set_control(job.id, "stop")
    until(lambda: store.job(job.id).state == "stopped")
    assert store.last_checkpoint(job.id, "sampler_weights").reason == "stop"


def test_errors_that_were_expected(store, recipe, make_runner):
    job = make_runner(executors.bad_data).run_new(recipe)
    assert job.state == "failed"
    assert job.error == {
        "kind": "DataError", "message": "row 17 holds no answer.", "next_step": "Fill it in.", "where": "data.jsonl row 17",
    }  # fmt: skip


def test_a_full_disk_is_told_of(store, recipe, make_runner):
    job = make_runner(executors.no_room).run_new(recipe)
    assert job.state == "failed" and job.error["kind"] == "StorageError"
    assert "the disk is full: No space left" in job.error["message"] and "rollouts.jsonl" in job.error["message"]
    assert "Make room" in job.error["next_step"]


def test_errors_that_were_not(store, recipe, make_runner):
    job = make_runner(executors.surprise).run_new(recipe)
    assert job.state == "failed" and "ZeroDivisionError: key sk-*** divided" in job.error["message"]
    assert str(logs.log_file(job.id)) in job.error["next_step"]
    [line] = [line for line in logs.read_log(job.id) if line["level"] == "error"]
    assert "in surprise" in line["traceback"] and "abcdefgh" not in logs.log_file(job.id).read_text()


@pytest.mark.parametrize("outcome", ["finished", None, "done"])
def test_an_outcome_that_makes_no_sense_is_a_failure(store, recipe, make_runner, outcome):
    # A job that is still getting ready can't be done.
    assert make_runner(lambda run: outcome).run_new(recipe).state == "failed"


def test_a_lost_endpoint_is_survived(store, recipe, make_runner):
    job = make_runner(executors.lose_endpoint_twice).run_new(recipe)
    assert (job.state, job.attempt) == ("done", 3)
    assert store.curve(job.id, "loss") == executors.reference(20)
    assert [(a.why, a.start_step) for a in store.attempts(job.id)] == [("start", 0), ("restart", 10), ("restart", 15)]


def test_an_endpoint_that_is_always_lost_is_given_up(store, recipe, make_runner):
    job = make_runner(executors.lose_endpoint).run_new(recipe)
    assert job.state == "failed" and "the server is gone" in job.error["message"]
    assert [a.why for a in store.attempts(job.id)] == ["start", "restart", "restart", "restart"]


def test_a_run_that_lost_its_job_leaves_it_alone(store, recipe, make_runner):
    seen = []

    def execute(run):
        run.state("training")
        run.metrics(1, {"loss": 1.0})
        run.flush()
        store.transition(run.job_id, "interrupted", attempt=run.attempt)
        taken = store.claim_job("another", 60)
        seen.append(taken.attempt)
        with pytest.raises(LeaseLost):
            run.control()
        run.metrics(2, {"loss": 2.0})
        return "done"

    job = make_runner(execute).run_new(recipe)
    assert (job.state, job.lease_owner, job.attempt, seen) == ("preparing", "another", 2, [2])
    assert [m.step for m in store.metrics(job.id)] == [1]


def test_a_lost_lease_is_noticed_by_a_loop_that_only_asks(store, recipe, make_runner):
    def execute(run):
        store.transition(run.job_id, "interrupted", attempt=run.attempt)
        while True:
            run.control()
            time.sleep(0.01)

    assert make_runner(execute).run_new(recipe).state == "interrupted"


def test_a_heart_beats_while_a_step_takes_long(store, recipe, make_runner, until):
    go_on = threading.Event()

    def execute(run):
        run.state("training")
        run.metrics(1, {"loss": 3.0})
        go_on.wait(20)
        return "done"

    job = store.create_job(recipe)
    make_runner(execute, lease_s=1.5, renew_s=0.1).start()
    until(lambda: store.metrics(job.id))
    time.sleep(2)
    assert store.claim_job("another") is None
    go_on.set()
    until(lambda: store.job(job.id).state == "done")


def test_a_heart_beats_on_while_nothing_can_be_written(store, recipe, make_runner, monkeypatch):
    def refuse(*arguments, **named):
        raise RuntimeError("something nobody thought of")

    def execute(run):
        run.state("training")
        with monkeypatch.context() as patch:
            patch.setattr(run, "tick", refuse)
            time.sleep(1.5)
            run.control()
            assert store.claim_job("another") is None
        return "done"

    assert make_runner(execute, lease_s=1.5, renew_s=0.1).run_new(recipe).state == "done"


def test_a_runner_that_closes_leaves_its_jobs_to_the_next(store, recipe, make_runner, until, monkeypatch):
    monkeypatch.setenv("COUNT_DELAY", "0.02")
    job = store.create_job(recipe.merged({"training": {"steps": 30}}))
    first = make_runner(executors.count)
    first.start()
    until(lambda: store.last_checkpoint(job.id))
    first.stop(wait=5)
    assert store.job(job.id).state == "interrupted"
    make_runner(executors.count).start()
    until(lambda: store.job(job.id).state == "done")
    assert store.curve(job.id, "loss") == executors.reference(30)
    assert [(a.why, a.ended) for a in store.attempts(job.id)] == [("start", "interrupted"), ("recovery", "done")]


def test_closing_shuts_out_a_thread_that_does_not_listen(store, recipe, make_runner, until):
    go_on, problems = threading.Event(), []

    def execute(run):
        run.state("training")
        go_on.wait(20)
        try:
            run.stage("still here")
        except LeaseLost as error:
            problems.append(error)
            raise
        return "done"

    job = store.create_job(recipe)
    runner = make_runner(execute)
    runner.start()
    until(lambda: store.job(job.id).state == "training")
    runner.stop(wait=0.2)
    assert store.job(job.id).state == "interrupted"
    go_on.set()
    until(lambda: problems)
    until(lambda: runner.idle_seconds() > 0)
    assert store.job(job.id).state == "interrupted"


def test_a_database_that_fails_in_the_foreground_is_told_of(store, recipe, make_runner, monkeypatch):
    def refuse(*arguments, **named):
        raise StorageError("The database refused: disk full.")

    def execute(run):
        run.state("training")
        monkeypatch.setattr(store, "record", refuse)
        monkeypatch.setattr(store, "transition", refuse)
        run.metrics(1, {"loss": 1.0})
        return "done"

    with pytest.raises(StorageError, match="disk full"):
        make_runner(execute).run_new(recipe)


def test_ctrl_c_in_the_foreground_pauses(store, recipe, make_runner):
    def execute(run):
        run.state("training")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_runner(execute).run_new(recipe)
    [job] = store.jobs()
    assert (job.state, job.lease_owner) == ("paused", None)


def test_the_foreground_and_others(store, recipe, make_runner):
    background = make_runner(executors.count)
    background.start()
    started = []
    job = make_runner(executors.count).run_new(recipe, on_start=started.append)
    assert job.state == "done" and started[0].id == job.id
    with pytest.raises(StateError, match="done"):
        background.run_one(job.id)


def test_several_at_once(store, recipe, make_runner, until):
    together = threading.Barrier(3, timeout=20)

    def execute(run):
        run.state("training")
        together.wait()
        return "done"

    made = [store.create_job(recipe) for _ in range(3)]
    make_runner(execute, max_jobs=3).start()
    until(lambda: all(store.job(job.id).state == "done" for job in made))


def test_one_at_a_time_in_order(store, recipe, make_runner, until):
    order, inside = [], []

    def execute(run):
        inside.append(1)
        assert len(inside) == 1
        order.append(run.job_id)
        run.state("training")
        time.sleep(0.05)
        inside.pop()
        return "done"

    made = [store.create_job(recipe).id for _ in range(3)]
    make_runner(execute).start()
    until(lambda: all(store.job(job_id).state in ("done", "failed") for job_id in made))
    assert order == made and all(store.job(job_id).state == "done" for job_id in made)


def test_a_checkpoint_that_cannot_be_used(store, recipe, make_runner):
    first = make_runner(lambda run: executors.count(run) and "paused").run_new(recipe)
    assert first.state == "paused"
    older = store.checkpoints(first.id, "weights")[1]

    def execute(run):
        run.resume_from(older)
        return executors.count(run)

    store.resume(first.id)
    job = make_runner(execute).run_one(first.id)
    assert job.state == "done" and store.curve(job.id, "loss") == executors.reference(20)
    assert store.attempts(job.id)[-1].start_step == older.step == 10
