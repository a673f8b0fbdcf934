"""Going on from what an earlier run had learned, for real: its weights are there at step 0, its shape is heeded, its line is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, Recipe
from engine.engine import Result
from engine.errors import NotFound, RecipeError
from engine.jobs import host
from tests.running import shouting, until

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, pytest.mark.usefixtures("quick_heirs")]
PLAIN = {"evaluation": {"skills": False, "samples_every": 0, "eval_every": 0, "max_new_tokens": 12}}
TRAINING = {"steps": 24, "batch_size": 8, "learning_rate": 8e-3, "schedule": "constant", "warmup": 0}


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shouting(tmp_path_factory.mktemp("data") / "loud.jsonl")


@pytest.fixture(scope="module")
def first(in_place, data_file: Path) -> Iterator[Result]:
    """An adapter of rank 8, without the attention layers, and a checkpoint on its way."""
    shape = {"lora": {"rank": 8, "train_attn": False}, "checkpoints": {"every_steps": 8}, "system_prompt": "Be loud."}
    with Engine() as engine:
        yield engine.run(engine.file_recipe(data_file, {**PLAIN, **shape, "training": TRAINING, "name": "first"}))


def losses(engine: Engine, job_id: str) -> list[float]:
    return [value for _, value in engine.curve(job_id, "train_loss")]


def test_it_begins_where_the_other_ended(first: Result, engine: Engine, data_file: Path) -> None:
    model = engine.model("first")
    recipe = engine.file_recipe(data_file, {**PLAIN, "start": "first", "training": {**TRAINING, "steps": 3}, "name": "second"})
    assert (recipe.lora.rank, recipe.lora.train_attn, recipe.system_prompt) == (8, False, "Be loud."), "as there"
    second = engine.run(recipe)
    assert second.held_out["before"]["loss"] == pytest.approx(first.held_out["after"]["loss"], rel=2e-3)
    assert second.held_out["before"]["exact_match"] == first.held_out["after"]["exact_match"]
    assert losses(engine, second.job_id)[0] < losses(engine, first.job_id)[0] / 4
    made = engine.model("second")
    assert made.parent == model.id and engine.job(second.job_id).recipe.start.checkpoint == model.id
    assert "loading first" in [event.text for event in engine.events(second.job_id)]
    about = engine.registry.about(made.id)
    assert about.parent is not None and about.parent.name == "first" and about.parent.model_id == model.id
    assert [child.id for child in engine.registry.about(model.id).children] == [made.id]
    engine.delete(second.job_id)
    assert engine.registry.about(made.id).parent == about.parent, "kept with the model, not with its run"


def test_a_checkpoint_on_the_way_with_the_optimizer_goes_on_as_that_run_did(first: Result, engine: Engine, data_file: Path) -> None:
    changes = {**PLAIN, "evaluation": {**PLAIN["evaluation"], "proof": False}, "training": {**TRAINING, "steps": 4, "batch_size": 36}}
    warm = engine.run(engine.file_recipe(data_file, {**changes, "start": {"checkpoint": f"{first.job_id}@8", "optimizer": True}}))
    cold = engine.run(engine.file_recipe(data_file, {**changes, "start": f"{first.job_id}@8"}))
    (with_memory, without) = (losses(engine, run.job_id) for run in (warm, cold))
    assert with_memory[0] == pytest.approx(without[0], rel=1e-3), "the same weights"
    assert with_memory[2] != pytest.approx(without[2], rel=1e-3), "other updates"
    path = next(c.path for c in engine.checkpoints(first.job_id) if c.step == 8 and c.kind == "weights")
    by_path = engine.run(engine.file_recipe(data_file, {**changes, "start": path}))
    assert losses(engine, by_path.job_id)[0] == pytest.approx(without[0], rel=1e-3)


def test_a_kill_changes_nothing(first: Result, engine: Engine, data_file: Path) -> None:
    changes = {"evaluation": {"proof": False, "skills": False, "samples_every": 0, "eval_every": 0}, "start": "first"}
    changes |= {"training": {**TRAINING, "steps": 60, "learning_rate": 1e-3}, "checkpoints": {"every_steps": 10}}
    whole = engine.run(engine.file_recipe(data_file, {**changes, "name": "whole"}))
    job = engine.launch(engine.file_recipe(data_file, {**changes, "name": "cut"}))
    until(lambda: len({c.step for c in engine.checkpoints(job.id)}) >= 1, 90)
    os.kill(until(host.runner_info)["pid"], signal.SIGKILL)

    def over() -> bool:
        engine.revive()
        return engine.job(job.id).state in ("done", "failed")

    until(over, 120)
    assert engine.job(job.id).state == "done" and engine.job(job.id).attempt > 1
    assert losses(engine, job.id) == pytest.approx(losses(engine, whole.job_id), rel=0, abs=1e-5)


def test_all_weights_go_on_too(in_place, engine: Engine, data_file: Path) -> None:
    changes = {**PLAIN, "full": True, "training": {**TRAINING, "steps": 12, "learning_rate": 1e-3}}
    one = engine.run(engine.file_recipe(data_file, {**changes, "name": "whole model"}))
    more = engine.file_recipe(data_file, {**PLAIN, "start": "whole model", "training": {**TRAINING, "steps": 2, "learning_rate": 1e-3}})
    assert more.full
    two = engine.run(more)
    assert two.held_out["before"]["loss"] == pytest.approx(one.held_out["after"]["loss"], rel=2e-3)
    with pytest.raises(RecipeError, match="is all weights"):
        engine.launch(more.merged({"full": False}))


def test_what_clashes_is_said(first: Result, engine: Engine, data_file: Path) -> None:
    plain = Recipe.make({"data": {"path": str(data_file)}, "start": "first"})
    for changes, said in (
        ({"lora": {"rank": 16}}, "first has rank 8, and the recipe says 16"),
        ({"base_model": "someone/else"}, "first stands on nano, and the recipe says someone/else"),
        ({"full": True}, "first is an adapter"),
        ({"start": "nobody"}, "no model nobody"),
        ({"start": f"{first.job_id}@9"}, "no checkpoint at step 9"),
        ({"start": first.checkpoint}, "for use only"),
        ({"start": "tinker://nobody/weights/none"}, "there is no checkpoint"),
        ({"start": "tinker://../weights/none"}, "no path of saved weights"),
    ):
        with pytest.raises((RecipeError, NotFound), match=said):
            engine.launch(plain.merged(changes))
    with pytest.raises(RecipeError, match="optimizer"):
        Recipe.make({"start": {"optimizer": True}})


def test_nobody_starts_from_anothers(first: Result, engine: Engine, data_file: Path) -> None:
    path = next(c.path for c in engine.checkpoints(first.job_id) if c.kind == "weights")
    model = engine.model("first")
    with Engine("somebody else") as other:
        for ref in (model.id, f"{first.job_id}@8", path):
            with pytest.raises(NotFound):
                other.launch(Recipe.make({"data": {"path": str(data_file)}, "start": ref}))


def test_the_planner_says_why(first: Result, engine: Engine, data_file: Path) -> None:
    found = engine.planner.suggest({"data": {"path": str(data_file)}, "start": {"checkpoint": "first"}})
    assert found.recipe.lora.rank == 8 and "first" in found.reasons["lora.rank"]["reason"]
    assert "base_model" in found.reasons
