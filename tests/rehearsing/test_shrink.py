"""A recipe and its rows made small: what stays, what is cut, and that every kind of recipe can be made small at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.data import load_data
from engine.models import nano_folder
from engine.recipe import METHODS, Recipe
from engine.rehearsing.shrink import BATCH, STEPS, reader, shrunk, stand_in
from engine.rendering import get_renderer, load_tokenizer


def small(values: dict, **how: bool) -> Recipe:
    return shrunk(Recipe.make(values), "nano", start=how.get("start", False), teacher=how.get("teacher", True))


def test_what_says_how_it_behaves_stays() -> None:
    values = {
        "name": "Mine", "base_model": "some/model", "endpoint": "tinker", "renderer": "qwen3", "method": "rl", "seed": 7,
        "training": {"steps": 900, "batch_size": 128, "learning_rate": 2e-4, "schedule": "cosine", "patience": 3, "max_length": 4000},
        "rl": {"group_size": 16, "loss": "ppo", "updates": 4, "kl": 0.05}, "lora": {"rank": 64, "train_mlp": False},
        "reward": {"parts": [{"kind": "numeric"}, {"kind": "length", "longest": 5, "weight": 0.5}]},
        "evaluation": {"eval_every": 50, "samples_every": 0, "max_new_tokens": 900}, "budget": {"max_tokens": 10},
    }  # fmt: skip
    found = small(values)
    assert (found.base_model, found.endpoint, found.renderer, found.method, found.seed) == ("nano", "local", "auto", "rl", 7)
    assert (found.training.steps, found.training.batch_size, found.training.patience) == (STEPS, BATCH, None)
    assert (found.training.learning_rate, found.training.schedule) == (2e-4, "cosine")
    assert (found.rl.loss, found.rl.kl, found.rl.updates, found.rl.group_size) == ("ppo", 0.05, 2, 4)
    assert found.reward == Recipe.make(values).reward
    assert (found.lora.rank, found.lora.train_mlp) == (8, False)
    assert (found.evaluation.eval_every, found.evaluation.samples_every, found.evaluation.max_new_tokens) == (1, 0, 16)
    assert found.budget.max_tokens is None and found.checkpoints.every_steps == 1


def test_every_stage_is_made_small() -> None:
    then = [
        {"method": "dpo", "training": {"steps": 500, "learning_rate": 1e-5, "batch_size": 64}},
        {"method": "rlhf", "rl": {"group_size": 32}},
    ]
    found = small({"data": {"demo": "piglatin"}, "training": {"epochs": 4}, "then": then})
    stages = [stage.recipe for stage in found.stages()]
    assert [stage.method for stage in stages] == ["sft", "dpo", "reward_model", "rl"]
    assert all(stage.training.steps == STEPS and stage.training.batch_size <= BATCH for stage in stages)
    assert stages[1].training.learning_rate == 1e-5 and stages[3].rl.group_size == 4 and stages[2].reward_model.go_on


def test_a_teacher_elsewhere_is_stood_in_for() -> None:
    values = {"method": "distill", "data": {"demo": "piglatin"}, "distill": {"kind": "on_policy", "teacher": "big/model"}}
    assert small(values, teacher=False).distill.teacher == "" and small(values, teacher=False).distill.teacher_prompt
    assert small(values, teacher=True).distill.teacher == "big/model"
    later = small({"data": {"demo": "piglatin"}, "then": [{"method": "distill", "distill": values["distill"]}]}, teacher=False)
    assert later.stages()[1].recipe.distill.teacher == ""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_made_small(method: str) -> None:
    teacher, code = {"teacher_prompt": "Be brief. " * 200}, "def loss(logprobs, weights, row):\n    return 0.0, [0.0 for _ in logprobs]"
    extra = {"distill": {"distill": teacher}, "own_loss": {"own_loss": {"code": code}}}.get(method, {})
    found = small({"method": method, "data": {"demo": "piglatin"}, **extra})
    assert found.method == method and len(found.distill.teacher_prompt) <= 200


def test_long_rows_are_cut_so_that_they_fit(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    talk = [{"role": role, "content": f"{role} {n} " + "é" * 3000} for n in range(6) for role in ("user", "assistant")]
    rows = [{"messages": [{"role": "system", "content": "s" * 5000}, *talk]} for _ in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = Recipe.make({"data": {"path": str(file), "held_out_fraction": 0.2}})
    found = reader(load_data, "nano")(recipe)
    renderer = get_renderer("auto", load_tokenizer(nano_folder()))
    assert 2 <= len(found.train) <= 8
    for example in found.train:
        (row,) = renderer.examples(example.messages)[-1:]
        assert len(row.tokens) < 700 and row.completion_tokens and example.messages[0]["role"] == "system"


def test_pairs_stay_pairs_and_what_is_expected_stays_whole(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    same = "a" * 2000
    rows = [{"prompt": f"p{n}", "chosen": same + "x", "rejected": same + "y"} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = reader(load_data, "nano")(Recipe.make({"method": "dpo", "data": {"path": str(file)}}))
    assert all(example.rejected != example.answer and len(example.answer) < 600 for example in found.train)
    found = reader(load_data, "nano")(Recipe.make({"method": "rl", "data": {"path": str(file)}}))
    assert found.train[0].answer == same + "x"


def test_the_stand_in() -> None:
    assert stand_in(Recipe()) == "nano" and stand_in(Recipe.make({"base_model": "no/such-model"})) == "nano"
    copy = str(nano_folder())
    assert stand_in(Recipe.make({"base_model": copy})) == copy
