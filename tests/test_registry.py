"""Tuned models: what is known of them, and taking them away; their files are made here as the server lays them out."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, models, paths
from engine.errors import NotFound, StateError
from engine.store import Model, schema
from tests.app.conftest import Runs

RUN = "0a1b:train:0"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def saved(kind: str, name: str, **files: bytes) -> str:
    """A checkpoint's folder. -> its path."""
    folder = paths.folder("checkpoints", RUN.replace(":", "."), kind, name)
    for file, content in (
        {"adapter_model.safetensors": b"x" * 1000, "adapter_config.json": b"{}", "checkpoint.json": b"{}"} | files
    ).items():
        (folder / file).write_bytes(content)
    return f"tinker://{RUN}/{kind}/{name}"


def folder_of(path: str) -> Path:
    return paths.home() / "checkpoints" / path.removeprefix("tinker://").replace(":", ".")


@pytest.fixture
def model(engine: Engine) -> Model:
    """With a finished run and files."""
    job = Runs(engine).done("Tutor")
    engine.store.delete_model(engine.models()[0].id)
    found = {"sampler_path": saved("sampler_weights", "a"), "weights_path": saved("weights", "a", **{"optimizer.safetensors": b"y" * 500})}
    known = {"base_model": "nano", "endpoint": "local", "renderer": "chat_template", "system_prompt": "Be brief.", "stop": ["\n"]}
    return engine.store.add_model("My Tutor: 1", job_id=job.id, proof={"held_out": {"before": 1}}, **found, **known)


def test_all_that_is_known(engine: Engine, model: Model):
    about = engine.registry.about("My Tutor: 1")
    assert about.model == model and about.job is not None and about.job.name == "Tutor" and about.recipe is not None
    assert about.bytes == 2 * 1004 + 500 and about.files and not about.whole and about.held_out == {"before": 1}
    changes = {change.field: (change.value, change.default) for change in about.changes}
    assert changes["training.steps"] == (100, None) and changes["data.demo"] == ("piglatin", "") and "name" not in changes
    assert all(change.help for change in about.changes)


def test_what_is_left_when_run_and_files_are_gone(engine: Engine, model: Model):
    engine.delete(model.job_id)
    (folder_of(model.sampler_path) / "adapter_config.json").unlink()
    assert engine.registry.about(model.id).whole, "no adapter's settings: a whole model"
    for path in (model.sampler_path, model.weights_path):
        for file in folder_of(path).iterdir():
            file.unlink()
        folder_of(path).rmdir()
    about = engine.registry.about(model.id)
    assert (about.job, about.recipe, about.changes, about.bytes, about.files) == (None, None, [], 0, False)
    with pytest.raises(NotFound, match="files of this model are gone"):
        engine.registry.archive(model.id)
    engine.registry.delete(model.id)
    assert engine.models() == []


@pytest.mark.parametrize(
    "path", ["tinker://../sampler_weights/a", "tinker://a/sampler_weights/..", "/etc", "", "tinker://a/b/c/d", "tinker://a/weights/../../b"]
)
def test_paths_that_lead_elsewhere_have_no_files(engine: Engine, path: str):
    known = {"base_model": "nano", "endpoint": "local", "renderer": "auto"}
    made = engine.store.add_model("odd", job_id=None, sampler_path=path, weights_path=path, **known)
    about = engine.registry.about(made.id)
    assert (about.bytes, about.files) == (0, False)
    engine.registry.delete(made.id)


def test_finding(engine: Engine, model: Model):
    engine.registry.note(model.id, "for the Demo")
    assert engine.registry.find("tutor demo") == engine.registry.find("NANO") == engine.registry.find() != []
    assert engine.registry.find("tutor nothing") == []


def test_names_and_notes(engine: Engine, model: Model):
    registry = engine.registry
    assert registry.rename(model.id, "  Poet\n two ").name == "Poet two"
    for name in ("", "  ", "x" * 121):
        with pytest.raises(StateError):
            registry.rename(model.id, name)
    assert registry.note(model.id, " good \n").notes == "good"
    with pytest.raises(StateError, match="10,001"):
        registry.note(model.id, "x" * 10_001)


def test_the_zip_is_what_peft_loads(engine: Engine, model: Model):
    packed = zipfile.ZipFile(io.BytesIO(engine.registry.archive(model.id)))
    assert packed.testzip() is None
    names = {"adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.yaml"}
    assert set(packed.namelist()) == {f"My-Tutor-1/{name}" for name in names}
    read_me = packed.read("My-Tutor-1/README.md").decode()
    assert "PeftModel" in read_me and "> Be brief." in read_me and "`nano`" in read_me
    assert "piglatin" in packed.read("My-Tutor-1/recipe.yaml").decode()


def test_deleting_takes_the_files_and_leaves_the_run(engine: Engine, model: Model):
    job = engine.job(model.job_id)
    row = {"step": 100, "kind": "weights", "path": model.weights_path, "reason": "end", "loop_state": {}, "renderer": "chat_template"}
    engine.store.transition(job.id, "done", attempt=job.attempt) if job.state != "done" else None
    before = len(engine.checkpoints(job.id))
    shared = engine.store.add_model(
        "other", job_id=None, sampler_path=model.sampler_path, base_model="nano", endpoint="local", renderer="auto"
    )
    engine.registry.delete(model.id)
    assert folder_of(model.sampler_path).exists(), "another model stands on it"
    assert not folder_of(model.weights_path).exists()
    assert len(engine.checkpoints(job.id)) == before and row["path"] not in {found.path for found in engine.checkpoints(job.id)}
    engine.registry.delete(shared.id)
    assert not folder_of(model.sampler_path).exists() and engine.job(job.id).state == "done"


@pytest.mark.parametrize("ref", ["{id}", "{path}", "{job}@100"])
def test_a_run_that_begins_with_it_keeps_it(engine: Engine, model: Model, ref: str):
    job = engine.job(model.job_id)
    row = {"step": 100, "kind": "weights", "path": model.weights_path, "reason": "end", "loop_state": {}, "renderer": "chat_template"}
    with engine.store.write() as connection:
        connection.execute(schema.checkpoints.insert().values(**row | {"loop_state": "{}"}, job_id=job.id, attempt=job.attempt, at=0.0))
    start = {"checkpoint": ref.format(id=model.id, path=model.weights_path, job=job.id)}
    engine.store.create_job(engine.demo_recipe("piglatin").merged({"name": "Next", "start": start}))
    with pytest.raises(StateError, match="Next is waiting its turn and goes on from it"):
        engine.registry.delete(model.id)


def test_a_run_that_may_need_the_files_keeps_them(engine: Engine):
    runs = Runs(engine)
    job = runs.running()
    known = {"base_model": "nano", "endpoint": "local", "renderer": "auto"}
    made = engine.store.add_model("early", job_id=job.id, sampler_path=saved("sampler_weights", "b"), **known)
    with pytest.raises(StateError, match="Stop it first"):
        engine.registry.delete(made.id)
    assert folder_of(made.sampler_path).exists()


def test_base_models(engine: Engine, model: Model, tmp_path: Path):
    nano = engine.registry.bases()[0]
    context = json.loads((models.nano_folder() / "config.json").read_text())["max_position_embeddings"]
    assert (nano.name, nano.tuned, nano.context) == ("nano", 1, context) and nano.bytes > 1_000_000
    known = {"endpoint": "local", "renderer": "auto", "job_id": None}
    engine.store.add_model("x", base_model="some/model", sampler_path="x", **known)
    engine.store.add_model("y", base_model=str(tmp_path / "gone"), sampler_path="y", **known)
    kinds = {base.name: (base.kind, base.bytes) for base in engine.registry.bases()}
    assert kinds["some/model"] == ("from the Hugging Face hub", None) and "gone" in kinds[str(tmp_path / "gone")][0]


def test_what_is_somebody_elses_is_not_there(engine: Engine, model: Model):
    with Engine(owner="somebody else") as other:
        registry = other.registry
        assert registry.find() == [] and [base.name for base in registry.bases()] == ["nano"] and registry.bases()[0].tuned == 0
        for refused in (
            lambda: registry.about(model.id),
            lambda: registry.rename(model.name, "mine"),
            lambda: registry.note(model.id, "mine"),
            lambda: registry.archive(model.id),
            lambda: registry.delete(model.id),
        ):
            with pytest.raises(NotFound):
                refused()
    assert engine.registry.about(model.id).model == model
