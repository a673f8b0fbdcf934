"""A run as text, taken at its word: the command parses to the same recipe, and so does the file."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest

from engine import Engine, Recipe, cli
from engine.share import as_command, as_script, flat
from tests.running import shouting

ODD = {
    "name": 'It\'s "odd" $HOME `x` -- ü',
    "system_prompt": "Be loud.\nAnd 'brief'.",
    "stop": ["!", "a b"],
    "seed": 7,
    "renderer": "role_colon",
    "lora": {"rank": 8, "train_mlp": False},
    "training": {"steps": 2, "batch_size": 4, "learning_rate": 1e-5, "eps": 1e-9, "weight_decay": 0.05, "max_length": 96},
    "evaluation": {"proof": False, "samples_every": 0},
    "checkpoints": {"every_steps": 1},
}
CASES = [{}, ODD, {"training": {"steps": None, "epochs": 2.5}}, {"name": ""}, {"name": "-x", "training": {"steps": 3}}]
CHAIN = [
    {"method": "dpo", "training": {"learning_rate": 1e-5, "steps": 3}, "dpo": {"beta": 0.2}},
    {"method": "sft", "training": {"steps": 2}},
]
CASES += [{"training": {"steps": 2}, "then": CHAIN}, {"method": "rl", "reward": {"parts": [{"kind": "regex", "pattern": "^a: 'b'$"}]}}]
OF_PAIRS = [{"method": "dpo"}, {"method": "kto", "kto": {"bad_weight": 2.0}, "training": {"steps": 4, "patience": 3}}]
COLUMNS = {"data": {"mapping": {"prompt": "a: b"}}, "training": {"steps": 3}}


def parsed(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recipe:
    """What the command line makes of it."""
    words = shlex.split(command)
    assert words[:2] == ["python", "thinker.py"]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    capsys.readouterr()
    assert cli.main([*words[2:], "--dry-run", "--json"]) == 0
    return Recipe.make(json.loads(capsys.readouterr().out.strip().splitlines()[-1])["recipe"])


def test_a_data_set_of_the_library_goes_by_its_id(tmp_path: Path, monkeypatch, capsys) -> None:
    with Engine() as engine:
        kept = engine.datasets.add("shouts.jsonl", shouting(tmp_path / "shouts.jsonl"))
        recipe = engine.dataset_recipe(kept.id, {"training": {"batch_size": 8}})
    assert f"--dataset {kept.id}" in as_command(recipe)
    assert parsed(as_command(recipe), monkeypatch, capsys) == recipe


@pytest.mark.parametrize(
    ("source", "changes"), [*(("demo", case) for case in [*CASES, *OF_PAIRS]), *(("file", case) for case in [*CASES, COLUMNS])]
)
def test_each_form_is_the_same_recipe(source, changes, tmp_path: Path, monkeypatch, capsys) -> None:
    with Engine() as engine:
        if source == "demo":
            recipe = engine.demo_recipe("piglatin", changes)
        else:
            recipe = engine.file_recipe(shouting(tmp_path / "my data's.jsonl"), changes)
    assert parsed(as_command(recipe), monkeypatch, capsys) == recipe
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert Recipe.load(file) == recipe
    made: dict = {}
    exec(compile(as_script(recipe), "train.py", "exec"), {"__name__": "shared"} | made, made)
    assert Recipe.make(made["RECIPE"]) == recipe


def test_a_demo_as_it_is_takes_few_words() -> None:
    with Engine() as engine:
        assert as_command(engine.demo_recipe("piglatin")) == "python thinker.py train --demo piglatin"


def test_flat_has_every_field() -> None:
    values = flat(Recipe.make({"training": {"batch_size": 5}}))
    assert values["training.batch_size"] == 5 and values["lora.rank"] == 32 and values["name"] == ""
