"""What Thinker knows: complete, in step with the recipe and the data, and right where it computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from engine import knowledge
from engine.data import demos, load_data
from engine.errors import NotFound
from engine.recipe import Recipe, fields


def test_every_method_of_a_recipe_is_explained():
    assert set(knowledge.methods()) == set(get_args(Recipe.model_fields["method"].annotation))
    for entry in knowledge.methods().values():
        assert {"title", "term", "meaning", "use_when", "not_when", "needs", "flow", "watch", "goes_wrong", "source"} <= set(entry)
        assert set(entry["watch"]) <= set(knowledge.metrics())


def test_every_metric_says_what_it_means_and_what_to_do():
    of_the_proof = {"exact_match", "token_f1", "perplexity", "skills"}
    of_the_run = {"train_loss", "held_out_loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert of_the_proof | of_the_run <= set(knowledge.metrics())
    for name, entry in knowledge.metrics().items():
        assert entry["title"] and entry["meaning"] and entry["healthy"] and isinstance(entry["unit"], str), name
        assert entry["better"] in ("up", "down", "neither"), name
        assert entry["red_flags"] and all(flag["sign"] and flag["action"] for flag in entry["red_flags"]), name


@pytest.mark.parametrize("name", demos.names())
def test_every_demo_is_a_recipe_and_tells_the_truth_about_its_data(name):
    entry = knowledge.demo(name)
    assert entry["title"] and entry["task"] and entry["learns"] and entry["expect"] and entry["try"]
    recipe = Recipe.make(entry["recipe"])
    assert recipe.data.demo == name
    data = load_data(recipe)
    assert entry["examples"] == {"train": len(data.train), "replay": data.replay_count, "held_out": len(data.held_out)}
    advised = knowledge.recommend({}, recipe.base_model)["training.learning_rate"]["value"]
    assert recipe.training.learning_rate == pytest.approx(advised)


@pytest.mark.parametrize("name", list(knowledge.sets()))
def test_an_example_set_for_a_method_is_told_as_demos_are_and_offered_as_none(name):
    entry = knowledge.demo(name)
    assert entry["title"] and entry["task"] and entry["learns"] and entry["expect"] and entry["try"] and name not in knowledge.demos()
    assert any(name in json.dumps(shown["recipe"]) for shown in knowledge.method_demos().values())
    data = load_data(Recipe.make(entry["recipe"]))
    assert entry["examples"] == {"train": len(data.train), "replay": data.replay_count, "held_out": len(data.held_out)}


def test_demos_and_data_sets_are_the_same():
    assert sorted(knowledge.demos()) == demos.names()


def test_preference_pairs_are_described_and_never_offered_as_a_demo():
    folder = Path(demos.__file__).parent
    described = {file for entry in knowledge.pairs().values() for file in entry["files"].values()}
    assert described == {path.name for path in folder.glob("*pairs.jsonl")}
    for entry in knowledge.pairs().values():
        assert entry["title"] and entry["format"] and entry["learns"] and entry["expect"]
        for part, file in entry["files"].items():
            rows = [json.loads(line) for line in (folder / file).read_text(encoding="utf-8").splitlines()]
            assert len(rows) == entry["examples"][part]
            assert all(set(row) == {"prompt", "chosen", "rejected"} for row in rows)


# The tinker-cookbook's table of get_lr for LoRA.
@pytest.mark.parametrize(
    ("model_type", "hidden", "rate"),
    [("qwen3", 4096, 4.73e-4), ("llama", 2048, 4.91e-4), ("llama", 4096, 2.86e-4), ("llama", 8192, 1.66e-4)],
)
def test_the_learning_rate_formula(model_type, hidden, rate):
    advice = knowledge.recommend({"model_type": model_type, "hidden_size": hidden})["training.learning_rate"]
    assert advice["value"] == pytest.approx(rate, rel=0.005)
    assert advice["reason"] and "cookbook" in advice["source"]
    full = knowledge.recommend({"model_type": model_type, "hidden_size": hidden}, lora=False)["training.learning_rate"]
    assert full["value"] == pytest.approx(rate / 10, rel=0.005)


def test_a_family_without_a_formula_gets_the_more_careful_rate():
    large = knowledge.recommend({"model_type": "gemma", "hidden_size": 4096})["training.learning_rate"]
    small = knowledge.recommend({"model_type": "gemma", "hidden_size": 1024})["training.learning_rate"]
    assert large["value"] == pytest.approx(2.86e-4, rel=0.005)
    assert small["value"] == pytest.approx(5e-4 * (2000 / 1024) ** 0.0775, rel=1e-6)
    assert "gemma" in large["reason"]
    nested = knowledge.recommend({"text_config": {"model_type": "gemma", "hidden_size": 4096}})["training.learning_rate"]
    assert nested["value"] == large["value"]
    assert knowledge.recommend({})["training.learning_rate"]["value"] == pytest.approx(5e-4)


def test_every_recommendation_is_a_field_of_the_recipe_with_reason_and_source():
    names = {field["name"] for field in fields()}
    for name, advice in knowledge.recommend({}).items():
        assert name in names and advice["reason"] and advice["source"]


def test_what_is_not_known_is_named():
    for lookup, kind in ((knowledge.method, "method"), (knowledge.metric, "metric"), (knowledge.demo, "demo")):
        with pytest.raises(NotFound, match=f"no {kind} called 'nonesuch'"):
            lookup("nonesuch")


def test_callers_cannot_change_what_is_known():
    knowledge.demo("piglatin")["recipe"]["training"]["steps"] = 1
    knowledge.metrics()["train_loss"]["title"] = "changed"
    assert knowledge.demo("piglatin")["recipe"]["training"]["steps"] > 1
    assert knowledge.metric("train_loss")["title"] == "Training loss"
