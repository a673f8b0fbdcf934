"""Drafts, presets and the planner, through the Engine and the real store."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from engine import Engine, Recipe, knowledge
from engine.errors import NotFound, RecipeError, StateError
from engine.recipe import fields


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture
def stranger() -> Iterator[Engine]:
    with Engine(owner="somebody else") as made:
        yield made


def rows(count: int) -> bytes:
    return "\n".join(json.dumps({"prompt": f"word {n}", "completion": f"WORD {n}"}) for n in range(count)).encode()


def test_a_draft_outlives_its_process_and_is_its_owners(engine: Engine, stranger: Engine) -> None:
    assert engine.drafts.get().goal == ""
    engine.drafts.update(goal="answer", step=3)
    engine.drafts.update(step=1)
    engine.drafts.change("training.batch_size", 8)
    with Engine() as again:
        draft = again.drafts.get()
    assert (draft.goal, draft.step, draft.reached) == ("answer", 1, 3)
    assert draft.changes == {"training": {"batch_size": 8}}
    assert stranger.drafts.get().changes == {}
    assert engine.drafts.change("training.batch_size", None).changes == {}
    engine.drafts.discard()
    engine.drafts.discard()
    assert engine.drafts.get().goal == ""


def test_a_draft_keeps_nothing_that_no_recipe_can_have(engine: Engine) -> None:
    engine.drafts.change("training.batch_size", 8)
    with pytest.raises(RecipeError, match="batch_size"):
        engine.drafts.change("training.batch_size", 0)
    assert engine.drafts.get().changes == {"training": {"batch_size": 8}}


def test_presets(engine: Engine, stranger: Engine) -> None:
    recipe = Recipe.make({"name": "One", "data": {"demo": "piglatin"}, "lora": {"rank": 8}})
    kept = engine.presets.save("  Small   one ", recipe)
    assert kept.name == "Small one"
    loaded = engine.presets.load("Small one")
    assert loaded["lora"]["rank"] == 8 and not {"data", "name"} & set(loaded)
    assert engine.presets.save("Small one", recipe.merged({"lora": {"rank": 4}})).id == kept.id
    assert engine.presets.load(kept.id)["lora"]["rank"] == 4
    engine.presets.save("Other", recipe)
    with pytest.raises(StateError, match="already"):
        engine.presets.rename(kept.id, "Other")
    assert engine.presets.rename(kept.id, "Smaller").name == "Smaller"
    with pytest.raises(RecipeError):
        engine.presets.save("  ", recipe)
    assert stranger.presets.list() == []
    for refused in (stranger.presets.load, stranger.presets.delete, lambda name: stranger.presets.rename(name, "mine")):
        with pytest.raises(NotFound):
            refused(kept.id)
    engine.presets.delete(kept.id)
    assert [preset.name for preset in engine.presets.list()] == ["Other"]


def test_the_demo_is_suggested_as_it_is(engine: Engine) -> None:
    found = engine.planner.suggest({"data": {"demo": "piglatin"}})
    assert found.recipe == engine.demo_recipe("piglatin")
    assert "4,478 examples" in found.reasons["lora.rank"]["reason"]


def test_a_file_gets_what_suits_it_and_what_was_chosen_stays(engine: Engine) -> None:
    kept = engine.datasets.add("words.jsonl", rows(500)).id
    found = engine.planner.suggest({"data": {"dataset": kept}, "training": {"batch_size": 16}})
    assert found.recipe.name == "words"
    assert found.recipe.training.batch_size == 16 and found.reasons["training.batch_size"]["value"] == 32
    assert found.recipe.training.learning_rate == 5e-3
    assert found.recipe.training.steps == found.reasons["training.steps"]["value"] == 100
    assert engine.planner.suggest({"data": {"dataset": kept}, "training": {"steps": 7}}).recipe.training.steps == 7
    full = engine.planner.suggest({"data": {"dataset": kept}, "full": True})
    assert full.recipe.training.learning_rate == 1e-3 and "lora.rank" not in full.reasons
    with pytest.raises(RecipeError, match="no data"):
        engine.planner.suggest({})


def test_a_data_set_is_planned_with_as_its_file_and_only_by_its_owner(engine: Engine, stranger: Engine) -> None:
    kept = engine.datasets.add("words.csv", b"frage,antwort\n" + b"".join(b"Q%d,A%d\n" % (n, n) for n in range(20)) + b"Q,\n")
    with pytest.raises(StateError, match="which columns"):
        engine.planner.suggest({"data": {"dataset": kept.id}})
    engine.datasets.remap(kept.id, "prompt_completion", {"prompt": "frage", "completion": "antwort"})
    recipe = engine.planner.suggest({"data": {"dataset": kept.id}}).recipe
    figures = engine.planner.figures(recipe)
    assert (figures["file"], figures["format"], figures["rows"]) == ("words.csv", "prompt_completion", 21)
    assert figures["columns"] == {"prompt": "frage", "completion": "antwort"}
    assert [problem["place"] for problem in figures["problems"]] == ["row 22, antwort"]
    for ask in (stranger.planner.figures, stranger.planner.preview, stranger.planner.plan, stranger.launch):
        with pytest.raises(NotFound):
            ask(recipe)


def test_a_plan(engine: Engine) -> None:
    kept = engine.datasets.add("words.jsonl", rows(30)).id
    plan = engine.planner.plan(engine.planner.suggest({"data": {"dataset": kept}}).recipe)
    assert [estimate.name for estimate in plan.estimates] == ["time", "memory", "money"]
    assert "table" in plan.estimates[0].assumptions[1]
    assert (plan.figures["train"], plan.figures["held_out"]) == (27, 3)
    assert any("only 27 examples" in concern.text for concern in plan.warnings)


def test_speed_is_measured_where_it_can_be(engine: Engine) -> None:
    for tokens in (1000, 3000, 9000):
        job = engine.store.create_job(engine.demo_recipe("piglatin"))
        claimed = engine.store.claim_job("test", job_id=job.id)
        assert claimed is not None
        engine.store.transition(job.id, "training", attempt=claimed.attempt)
        progress = {"step": 100, "total_steps": 100, "tokens": tokens, "training_seconds": 10.0}
        engine.store.record(job.id, claimed.attempt, progress=progress)
        engine.store.transition(job.id, "evaluating", attempt=claimed.attempt)
        engine.store.transition(job.id, "done", attempt=claimed.attempt)
    time = engine.planner.plan(engine.demo_recipe("piglatin")).estimates[0]
    assert time.assumptions[1] == "300 tokens a second (the median of 3 earlier runs of this model here)"


def test_what_the_model_sees(engine: Engine) -> None:
    seen = engine.planner.preview(engine.demo_recipe("piglatin"))
    assert len(seen) == 5
    (asked, learned_first), (answer, learned) = seen[0].pieces
    assert (learned_first, learned) == (False, True)
    assert asked.startswith("<|user|>") and asked.endswith("<|assistant|>") and answer.endswith("<|end|>")


def test_a_changed_file_is_read_anew(engine: Engine, tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(rows(20))
    recipe = Recipe.make({"data": {"path": str(file)}})
    assert engine.planner.figures(recipe)["rows"] == 20
    file.write_bytes(rows(30))
    assert engine.planner.figures(recipe)["rows"] == 30
    assert engine.planner.columns(recipe.data) == ["prompt", "completion"]


def test_places_and_goals(engine: Engine) -> None:
    place, elsewhere = engine.planner.places()
    assert elsewhere.name == "tinker" and not elsewhere.ready
    assert place.name == "local" and {check.label for check in place.checks} >= {"Memory", "Disk", "GPU"}
    for goal in engine.planner.goals().values():
        like = knowledge.shapes()[engine.planner.shape(goal["method"])]["row"].keys()
        assert engine.explain_method(goal["method"]) and {"prompt"} <= goal["row"].keys() <= like


def test_every_field_says_what_it_takes() -> None:
    kinds = {field["name"]: field["kind"] for field in fields()}
    assert kinds["full"] == kinds["lora.train_mlp"] == "bool"
    wanted = {"training.steps": "int", "training.schedule": "choice", "stop": "list", "data.mapping": "mapping"}
    assert {name: kinds[name] for name in wanted} == wanted
    assert Recipe.parse(Recipe.make({"full": True}).to_yaml()).full
    for text in ("[1", "just words"):
        with pytest.raises(RecipeError):
            Recipe.parse(text)
