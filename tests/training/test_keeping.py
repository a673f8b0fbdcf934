"""Nothing gets lost: what real runs on nano keep and let go, that damage is put right, and that what is being done can be skipped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe, keys, paths, starts
from engine.endpoints import backups, saved
from engine.errors import EndpointLost, NotFound, StateError, StorageError
from engine.store import Job
from engine.training import loop, saving
from tests.running import until
from tests.server.harness import KEY, RunningServer
from tests.training.held import held

pytestmark = pytest.mark.timeout(240)
QUIET = {"proof": False, "skills": False, "samples_every": 0, "eval_every": 0}
WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture(scope="module")
def shouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "shouts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Shout {word}", "completion": f"{word.upper()}!"}) + "\n" for word in WORDS))
    return file


def recipe(file: Path, **changes: Any) -> Recipe:
    training = {"steps": 16, "batch_size": 8, "learning_rate": 2e-3}
    whole = {"data": {"path": str(file)}, "evaluation": QUIET, "training": training, "lora": {"rank": 8}}
    return Recipe.make({**whole, "checkpoints": {"every_steps": 2, "every_seconds": 0}}).merged(changes)


def steps(engine: Engine, job_id: str, kind: str) -> list[int]:
    return [c.step for c in engine.checkpoints(job_id) if c.kind == kind]


def folders(engine: Engine, job_id: str) -> dict[str, list[str]]:
    """What lies in the server's own folder for the run, whatever is noted."""
    found: dict[str, list[str]] = {}
    for file in (engine.job(job_id).folder.parents[1] / "checkpoints").glob(f"*/*/{job_id}-*"):
        found.setdefault(file.parent.name, []).append(file.name.split("-")[1].lstrip("0"))
    return {kind: sorted(names, key=int) for kind, names in found.items()}


def test_the_last_few_and_the_best_are_kept(engine: Engine, shouts: Path) -> None:
    # A rate that ruins what was learned, so that the best isn't the last.
    ruinous = {"learning_rate": 0.05, "schedule": "constant"}
    found = engine.run(recipe(shouts, training=ruinous, evaluation={"eval_every": 2}, checkpoints={"keep_last": 2}))
    losses = dict(engine.curve(found.job_id, "held_out_loss"))
    best = min((step for step in losses if step), key=losses.__getitem__)
    wanted = sorted({best, 14, 16})
    assert steps(engine, found.job_id, "weights") == wanted
    assert steps(engine, found.job_id, "sampler_weights") == list(range(2, 17, 2)), "what is to use stays: time travel stops there"
    assert folders(engine, found.job_id)["weights"] == [str(step) for step in wanted]
    assert backups.steps(found.job_id) == sorted({best, 16})
    taken = engine.keeping.of(found.job_id)
    assert taken.best == best and taken.backed_up == tuple(sorted({best, 16})) and not taken.undone
    weights = [c for c in engine.checkpoints(found.job_id) if c.kind == "weights"]
    assert taken.going_on == sum(c.bytes for c in weights) == sum(saved.weight(starts.folder_of(c.path)) for c in weights)
    assert (engine.job(found.job_id).id, taken.going_on + taken.to_use) in [(job.id, size) for job, size in engine.keeping.biggest(100)]


def test_the_best_that_an_earlier_stage_left_is_backed_up(engine: Engine, shouts: Path) -> None:
    """What follows stands on it, and not on the last that the stage saved."""
    ruinous = {"learning_rate": 0.05, "schedule": "constant", "keep_best": True}
    then = [{"method": "sft", "training": {"steps": 4, "learning_rate": 1e-5, "keep_best": False}}]
    found = engine.run(recipe(shouts, training=ruinous, evaluation={"eval_every": 2}, then=then))
    losses = {step: loss for step, loss in engine.curve(found.job_id, "held_out_loss") if 0 < step < 16}
    best = min(losses, key=losses.__getitem__)
    left = engine.store.last_checkpoint(found.job_id).loop_state["left"]["0"]
    assert left["step"] == best and best in backups.steps(found.job_id) and backups.has(left["weights_path"])


def test_what_is_pinned_stays(engine: Engine, shouts: Path) -> None:
    job = engine.launch(recipe(shouts, training={"steps": 40}, checkpoints={"keep_last": 1}))
    until(lambda: 2 in steps(engine, job.id, "weights"), 60)
    engine.keeping.pin(job.id, 2)
    until(lambda: engine.job(job.id).state == "done", 60)
    kept = steps(engine, job.id, "weights")
    # It may have been pruned before the pin came.
    assert kept in ([2, 40], [40]) and (2 in kept or 2 in steps(engine, job.id, "sampler_weights"))
    with pytest.raises(NotFound, match="no checkpoint at step 3"):
        engine.keeping.pin(job.id, 3)


def test_a_limit_in_gigabytes(engine: Engine, shouts: Path) -> None:
    plain = engine.run(recipe(shouts, checkpoints={"keep_last": None}))
    taken = engine.keeping.of(plain.job_id)
    assert steps(engine, plain.job_id, "weights") == list(range(2, 17, 2))
    most = taken.to_use + taken.going_on * 0.4
    found = engine.run(recipe(shouts, checkpoints={"keep_last": None, "max_gb": most / 1e9}))
    now = engine.keeping.of(found.job_id)
    assert now.going_on + now.to_use <= most
    assert steps(engine, found.job_id, "weights") == [12, 14, 16] and len(steps(engine, found.job_id, "sampler_weights")) == 8
    least = engine.run(recipe(shouts, checkpoints={"keep_last": None, "max_gb": 1e-6}))
    assert steps(engine, least.job_id, "weights") == steps(engine, least.job_id, "sampler_weights") == [16]
    log = [line["text"] for line in engine.log(least.job_id)]
    assert any("older checkpoints" in line and "max_gb" in line for line in log)


def test_tidying_a_run_at_rest(engine: Engine, shouts: Path) -> None:
    found = engine.run(recipe(shouts, checkpoints={"keep_last": None}))
    engine.keeping.pin(found.job_id, 6)
    later = recipe(shouts, start={"checkpoint": f"{found.job_id}@4"}, training={"steps": 2})
    waiting = engine.store.create_job(later, reserve_for="nobody", reserve_s=600)
    pruned = engine.keeping.tidy(found.job_id)
    assert steps(engine, found.job_id, "weights") == [4, 6, 16] and pruned.count == 5 and pruned.bytes > 0 and not pruned.trouble
    engine.stop(waiting.id)
    assert engine.keeping.tidy(found.job_id, samplers=True).count == 7
    assert steps(engine, found.job_id, "weights") == steps(engine, found.job_id, "sampler_weights") == [6, 16]
    model = engine.models(found.job_id)[0]
    assert starts.folder_of(model.sampler_path) and starts.folder_of(model.weights_path)
    assert engine.keeping.tidy(found.job_id, samplers=True).count == 0


def test_a_running_run_keeps_order_itself(engine: Engine, shouts: Path) -> None:
    job = engine.store.create_job(recipe(shouts), reserve_for="nobody", reserve_s=600)
    with pytest.raises(StateError, match="waiting its turn"):
        engine.keeping.tidy(job.id)
    engine.stop(job.id)


@pytest.fixture(scope="module")
def straight(in_place: pytest.MonkeyPatch, shouts: Path) -> list[tuple[int, float]]:
    """The curve of a run that nothing disturbs."""
    with Engine() as engine:
        return engine.curve(engine.run(recipe(shouts)).job_id, "train_loss")


def paused(engine: Engine, wanted: Recipe) -> Job:
    """A run that was paused in the middle."""
    job = engine.launch(held(wanted, 6))
    until(lambda: engine.job(job.id).step >= 6, 90)
    engine.pause(job.id)
    until(lambda: engine.job(job.id).state == "paused", 60)
    return engine.job(job.id)


def gone_on(engine: Engine, job: Job) -> Job:
    engine.resume(job.id)
    until(lambda: engine.job(job.id).state in ("done", "failed"), 90)
    return engine.job(job.id)


def ruin(folder: Path, how: str) -> None:
    if how == "gone":
        shutil.rmtree(folder)
        return
    if how == "run gone":
        shutil.rmtree(folder.parents[1])
        return
    file = folder / {"flipped": "adapter_model.safetensors", "optimizer": "optimizer.safetensors"}[how]
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


@pytest.mark.parametrize("how", ["gone", "flipped", "optimizer", "run gone"])
def test_a_damaged_checkpoint_is_put_back(engine: Engine, shouts: Path, straight: list[tuple[int, float]], how: str) -> None:
    job = paused(engine, recipe(shouts, checkpoints={"keep_last": None}))
    last = engine.store.last_checkpoint(job.id)
    folder = starts.folder_of(last.path)
    ruin(folder, how)
    told = engine.diagnosis.of(job.id)
    assert told.resumes_at == job.step and told.can_resume
    assert any(sign.area == "checkpoint" and "backup is whole" in sign.says for sign in told.signs)
    assert gone_on(engine, job).state == "done"
    assert [a.start_step for a in engine.store.attempts(job.id)] == [0, job.step], "not a step was done again"
    curve = engine.curve(job.id, "train_loss")
    assert [step for step, _ in curve] == list(range(1, 17))
    assert [value for _, value in curve] == pytest.approx([value for _, value in straight], rel=0, abs=1e-5)
    assert saved.sound(folder) and any("put back from its backup" in line["text"] for line in engine.log(job.id, 200))


def test_a_backup_stays_where_the_new_one_isnt_whole(engine: Engine, tmp_path: Path) -> None:
    def saved_at(name: str, content: bytes, noted: bytes) -> str:
        folder = paths.folder("checkpoints", "made", "weights", name)
        (folder / "adapter_model.safetensors").write_bytes(content)
        about = {"digests": {"adapter_model.safetensors": hashlib.sha256(noted).hexdigest()}}
        (folder / "checkpoint.json").write_text(json.dumps(about))
        return f"tinker://made/weights/{name}"

    whole, damaged = saved_at("first", b"one", b"one"), saved_at("second", b"broken", b"two")
    assert backups.keep("j", 4, {"weights": whole}) and not backups.keep("j", 4, {"weights": damaged})
    assert backups.steps("j") == [4] and backups.has(whole) and not backups.has(damaged)
    assert backups.size("j") == saved.weight(starts.folder_of(whole))


def test_without_a_backup_an_earlier_checkpoint_does(engine: Engine, shouts: Path, straight: list[tuple[int, float]]) -> None:
    job = paused(engine, recipe(shouts))
    backups.forget_job(job.id)
    states = [c for c in engine.checkpoints(job.id) if c.kind == "weights"]
    ruin(starts.folder_of(states[-1].path), "flipped")
    told = engine.diagnosis.of(job.id)
    assert told.resumes_at == states[-2].step
    assert any(sign.area == "checkpoint" and sign.ok is False and "damaged or gone" in sign.says for sign in told.wrong)
    assert gone_on(engine, job).state == "done"
    assert [a.start_step for a in engine.store.attempts(job.id)] == [0, states[-2].step]
    curve = engine.curve(job.id, "train_loss")
    assert [value for _, value in curve] == pytest.approx([value for _, value in straight], rel=0, abs=1e-5)
    assert states[-1].path not in {c.path for c in engine.checkpoints(job.id)}
    assert starts.folder_of(states[-1].path) is None, "what was undone is done away with"


def test_nothing_whole_is_left(engine: Engine, shouts: Path) -> None:
    job = paused(engine, recipe(shouts))
    shutil.rmtree(starts.folder_of(engine.store.last_checkpoint(job.id).path).parents[1])
    backups.forget_job(job.id)
    failed = gone_on(engine, job)
    assert failed.state == "failed" and "none of the run's checkpoints is whole" in failed.error["message"]
    told = engine.diagnosis.of(job.id)
    assert told.resumes_at is None and {"why", "checkpoint"} <= {sign.area for sign in told.wrong}


def test_a_model_that_vanished_is_put_back_for_a_chat(engine: Engine, shouts: Path) -> None:
    found = engine.run(recipe(shouts, name="vanishing", training={"steps": 4}))
    model = engine.models(found.job_id)[0]
    shutil.rmtree(starts.folder_of(model.sampler_path))
    with engine.chat("vanishing") as chat:
        assert isinstance(chat.reply([{"role": "user", "content": "Shout hello"}], max_tokens=8), str)
    assert saved.sound(starts.folder_of(model.sampler_path))
    engine.registry.delete(model.id)
    with pytest.raises(StorageError, match="no whole backup"):
        backups.put_back(model.sampler_path)
    assert backups.size(found.job_id) == 0, "what was deleted on purpose doesn't come back"


def test_a_disk_that_is_nearly_full(engine: Engine, shouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: how much is free is asked of the system."""
    usage = shutil.disk_usage(shouts)
    free = iter([usage.free] * 4 + [10_000_000] * 100)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    with pytest.raises(StorageError, match="the disk is nearly full: 10 MB are free") as caught:
        engine.run(recipe(shouts, checkpoints={"keep_last": None}))
    assert "resume" in caught.value.next_step and "is safe" in caught.value.message
    job = engine.jobs(limit=1)[0]
    assert job.state == "failed" and steps(engine, job.id, "weights") == [8], "what could go went first"
    told = engine.diagnosis.of(job.id)
    why = next(sign for sign in told.signs if sign.area == "why")
    assert why.changes["checkpoints"]["keep_last"] == 1 and told.resumes_at == 8
    home = job.folder.parents[1]
    monkeypatch.undo()
    monkeypatch.setenv("THINKER_HOME", str(home))
    assert gone_on(engine, job).state == "done"


LONG = " ".join(["the quick brown fox jumps over the lazy dog"] * 20)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many and so long held-out examples that measuring on them takes its time."""
    folder = tmp_path_factory.mktemp("slow")
    rows = [json.dumps({"prompt": f"Tell {number}", "completion": f"{number} {LONG}"}) for number in range(1040)]
    (folder / "train.jsonl").write_text("\n".join(rows[:40]))
    (folder / "held_out.jsonl").write_text("\n".join(rows[40:]))
    return folder


def test_skipping_what_is_being_measured(engine: Engine, slow: Path) -> None:
    data = {"path": str(slow / "train.jsonl"), "held_out_path": str(slow / "held_out.jsonl"), "held_out_max": 1000}
    evaluation = {"proof": True, "skills": False, "eval_every": 4, "max_new_tokens": 200}
    job = engine.launch(recipe(slow / "train.jsonl", data=data, evaluation=evaluation, training={"steps": 6}))
    skipped = []

    def over() -> bool:
        now = engine.job(job.id)
        if "skip" in engine.requests(now):
            try:
                skipped.append(engine.skip(job.id).skips)
            except StateError:
                pass
        return now.state in ("done", "failed")

    until(over, 200)
    done = engine.job(job.id)
    assert done.state == "done" and done.step == 6 and not done.skips and done.control is None
    asked = set(skipped)
    assert {"the proof before training", "the proof after training"} <= asked, skipped
    assert done.result["held_out"] == {"before": None, "after": None}
    assert [step for step, _ in engine.curve(job.id, "train_loss")] == list(range(1, 7))
    measured = {step for step, _ in engine.curve(job.id, "held_out_loss")}
    assert "the held-out numbers" not in asked or len(measured) < 3
    assert engine.models(job.id)[0].proof is None and steps(engine, job.id, "weights")[-1] == 6
    assert any(line["text"] == "skipped: the proof after training" for line in engine.log(job.id, 100))
    with pytest.raises(StateError, match="nothing to skip"):
        engine.skip(job.id)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


def test_at_an_endpoint_elsewhere(
    engine: Engine, shouts: Path, cloud: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there is pruned, saved twice and gone on from by the endpoint's own API."""
    monkeypatch.setenv("THINKER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TINKER_BASE_URL", cloud.url)
    monkeypatch.setenv("THINKER_RUNNER", "inline")
    with Engine() as mine:
        mine.keys.give("tinker", KEY)
        try:
            job = paused(mine, recipe(shouts, endpoint="tinker", training={"steps": 60}, checkpoints={"keep_last": 2}))
            there = [one.path for one in mine.stored.listed("tinker") if one.kind == "weights"]
            noted = [c for c in mine.checkpoints(job.id) if c.kind == "weights"]
            spare = noted[-1].loop_state["spare"]
            assert set(there) == {c.path for c in noted} | set(spare.values()) and len(noted) == 2
            assert all(c.bytes for c in noted) and list(spare) == [str(job.step)]
            saved.discard("tinker", "local", noted[-1].path)
            assert not saved.whole("tinker", "local", noted[-1].path) and saved.whole("tinker", "local", spare[str(job.step)])
            assert any("was saved twice" in sign.says for sign in mine.diagnosis.of(job.id).signs)
            assert gone_on(mine, job).state == "done"
            assert [a.start_step for a in mine.store.attempts(job.id)] == [0, job.step]
            assert [step for step, _ in mine.curve(job.id, "train_loss")] == list(range(1, 61))
        finally:
            from engine.jobs import host

            host.stop_inline()
            for owner, name in keys.held():
                keys.unhold(owner, name)


def test_cut_off_between_the_last_checkpoint_and_the_end(engine: Engine, shouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to learn, and it is done all the same."""
    end, cuts = loop.finish, []

    def finish(*about: Any) -> None:
        if not cuts:
            cuts.append(about)
            raise EndpointLost("the server ended while saying goodbye")
        end(*about)

    monkeypatch.setattr(loop, "finish", finish)
    found = engine.run(recipe(shouts, training={"steps": 4}))
    assert cuts and found.state == "done" and [s for s, _ in engine.curve(found.job_id, "train_loss")] == [1, 2, 3, 4]
    assert [(a.why, a.start_step, a.ended) for a in engine.store.attempts(found.job_id)] == [("start", 0, "lost"), ("restart", 4, "done")]
