"""Engine: what one person sees and may do, and work that goes on when the person's process is gone."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Engine, Recipe, models, paths
from engine.data import dataset
from engine.errors import DataError, ModelError, NotFound, RecipeError, StateError
from tests.running import ROOT, end_processes, environment, shouting, until

QUICK = {"steps": 12, "batch_size": 8, "learning_rate": 8e-3}


@pytest.fixture
def engine():
    with Engine() as engine:
        yield engine


@pytest.fixture
def queued(engine: Engine):
    """A job that nobody runs."""
    return engine.store.create_job(Recipe.make({"data": {"demo": "piglatin"}, "name": "mine"}), engine.owner)


def methods_with_ids() -> list[tuple[str, str]]:
    """Every public method that asks for a job or model by name, from the class itself."""
    found = []
    for name, method in inspect.getmembers(Engine, inspect.isfunction):
        asked = [parameter for parameter in inspect.signature(method).parameters if parameter in ("job_id", "name")]
        if not name.startswith("_") and asked and not name.startswith(("demo_", "explain_")):
            found.append((name, asked[0]))
    return found


def test_the_methods_that_take_ids_are_known():
    assert {"job", "result", "pause", "stop", "resume", "delete", "curve", "samples", "events", "log", "model", "chat"} <= {
        name for name, _ in methods_with_ids()
    }


@pytest.mark.parametrize(("name", "parameter"), methods_with_ids())
def test_what_belongs_to_others_is_not_there(engine: Engine, queued, name, parameter):
    engine.store.add_model("tuned", job_id=queued.id, base_model="nano", endpoint="local", sampler_path="tinker://a/b/c", renderer="chatml")
    arguments = {queued.id: {"curve": ["train_loss"]}.get(name, [])}
    with Engine(owner="somebody else") as other:
        for given, more in arguments.items():
            try:
                seen = getattr(other, name)(given, *more)
            except NotFound:
                continue
            assert name == "models" and seen == [], f"{name} shows what is somebody else's"
        if parameter == "name":
            with pytest.raises(NotFound):
                getattr(other, name)("tuned")
    assert engine.job(queued.id).state == "queued", "nothing was changed"


def test_lists_hold_ones_own_only(engine: Engine, queued):
    engine.store.add_model("tuned", job_id=queued.id, base_model="nano", endpoint="local", sampler_path="tinker://a/b/c", renderer="chatml")
    with Engine(owner="somebody else") as other:
        assert other.jobs() == [] and other.models() == []
        with pytest.raises(NotFound, match="no tuned model yet"):
            other.chat()
    assert [job.id for job in engine.jobs()] == [queued.id]
    assert engine.model(queued.id).name == engine.model("tuned").name == "tuned"


def test_a_job_without_a_model_or_result_says_so(engine: Engine, queued):
    with pytest.raises(NotFound, match="mine has no model: it is waiting its turn"):
        engine.model(queued.id)
    with pytest.raises(StateError, match="has no result yet"):
        engine.result(queued.id)


def test_delete_takes_the_folder_too(engine: Engine, queued):
    (paths.job_folder(queued.id) / "proof.json").write_text("{}")
    engine.delete(queued.id)
    assert not (paths.home() / "jobs" / queued.id).exists()
    with pytest.raises(NotFound):
        engine.job(queued.id)


def test_recipes(engine: Engine, tmp_path: Path):
    demo = engine.demo_recipe("piglatin", {"training": {"steps": 3}})
    assert demo.training.steps == 3 and demo.data.demo == "piglatin" and demo.base_model == "nano"
    recipe = engine.file_recipe(shouting(tmp_path / "loud.jsonl"), {"lora": {"rank": 4}})
    assert recipe.name == "loud" and recipe.lora.rank == 4 and recipe.training.learning_rate == 5e-3
    with pytest.raises(NotFound, match="nosuch"):
        engine.demo_recipe("nosuch")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({}, RecipeError),
        ({"data": {"path": "nosuch.jsonl"}}, DataError),
        ({"data": {"path": "empty.jsonl"}}, DataError),
        ({"data": {"demo": "nosuch"}}, NotFound),
        ({"data": {"demo": "piglatin"}, "endpoint": "moon"}, RecipeError),
        ({"data": {"demo": "piglatin"}, "base_model": "./nosuch"}, ModelError),
        ({"data": {"demo": "piglatin"}, "renderer": "llama3"}, ModelError),
    ],
)
@pytest.mark.parametrize("start", ["launch", "run"])
def test_what_can_not_work_never_becomes_a_job(engine: Engine, tmp_path: Path, monkeypatch, start, values, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(error):
        getattr(engine, start)(Recipe.make(values))
    assert engine.jobs() == [] and not list(paths.home().glob("servers/*")) and not (paths.home() / "runner.json").exists()


def test_paths_mean_the_same_from_any_folder(engine: Engine, tmp_path: Path, nothing_starts, monkeypatch):
    monkeypatch.chdir(shouting(tmp_path / "loud.jsonl").parent)
    recipe = engine.launch(Recipe.make({"data": {"path": "loud.jsonl"}, "base_model": str(models.nano_folder())})).recipe
    assert recipe.data.path == str(tmp_path / "loud.jsonl")
    assert recipe.base_model == "nano", "by its folder it's the same model"


def test_a_file_is_read_once_while_it_stays_as_it_is(engine: Engine, tmp_path: Path, nothing_starts, monkeypatch):
    reading, read = dataset.read_examples, []
    monkeypatch.setattr(dataset, "read_examples", lambda path, *rest: read.append(path) or reading(path, *rest))
    file = shouting(tmp_path / "loud.jsonl")
    engine.launch(engine.file_recipe(file))
    assert len(read) == 1
    recipe = engine.file_recipe(file, {"name": "again"})
    assert len(read) == 1
    file.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(DataError):
        engine.launch(recipe)


LAUNCHER = """
import json, sys, time
from engine import Engine, Recipe
engine = Engine()
print(engine.launch(Recipe.make(json.loads(sys.argv[1]))).id, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_work_goes_on_without_whoever_launched_it(engine: Engine, thinker_home: Path, tmp_path: Path):
    recipe = {
        "data": {"path": str(shouting(tmp_path / "loud.jsonl"))},
        "training": QUICK,
        "evaluation": {"skills": False, "max_new_tokens": 8, "samples_every": 6},
    }
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, json.dumps(recipe)],
        env=environment(thinker_home, THINKER_RUNNER_IDLE="1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        job_id = launcher.stdout.readline().strip()
        until(lambda: engine.job(job_id).state != "queued")
    finally:
        launcher.kill()
        launcher.wait(10)
        launcher.stdout.close()
    try:
        until(lambda: engine.job(job_id).state in ("done", "failed"))
        result = engine.result(job_id)
        assert (result.state, result.steps) == ("done", 12) and engine.job(job_id).attempt == 1
        assert result.held_out["after"]["loss"] < result.held_out["before"]["loss"]
        assert [step for step, _ in engine.curve(job_id, "train_loss")] == list(range(1, 13))
        assert [sample.step for sample in engine.samples(job_id) if sample.position == 0] == [0, 6, 12]
        assert {"attempt 1 begins", "attempt 1 ends: done"} <= {line["text"] for line in engine.log(job_id, 100)}
        assert engine.events(job_id)[-1].text == "done"
        with pytest.raises(StateError):
            engine.resume(job_id)
    finally:
        end_processes(thinker_home)
