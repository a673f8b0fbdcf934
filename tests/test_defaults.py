"""A person's own defaults: kept for them alone, refused where no recipe can have them, and what the planner starts from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, models
from engine.errors import ModelError, NotFound, RecipeError

ROWS = "\n".join(json.dumps({"prompt": f"word {n}", "completion": f"WORD {n}"}) for n in range(60)).encode()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def test_kept_for_one_person_and_put_back(engine: Engine) -> None:
    engine.defaults.set("training.batch_size", 4)
    with Engine("other") as other, Engine() as again:
        assert (other.defaults.get(), again.defaults.get()) == ({}, {"training.batch_size": 4})
    for nothing in (None, ""):
        engine.defaults.set("training.batch_size", 4)
        engine.defaults.set("training.batch_size", nothing)
        assert engine.defaults.get() == {}


def test_what_no_recipe_can_have_is_refused(engine: Engine) -> None:
    for field, value, kind in (
        ("training.batch_size", -1, RecipeError),
        ("training.max_length", 2, RecipeError),
        ("training.batch_size", "many", RecipeError),
        ("base_model", "./no/such/folder", ModelError),
        ("seed", 3, NotFound),
    ):
        with pytest.raises(kind):
            engine.defaults.set(field, value)
    assert engine.defaults.get() == {}


def test_the_planner_starts_from_them(engine: Engine, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models.nano_folder(), tmp_path / "mine"))
    engine.defaults.set("base_model", str(folder))
    engine.defaults.set("training.batch_size", 4)
    engine.defaults.set("training.max_length", 64)
    kept = engine.datasets.add("faq.jsonl", ROWS)
    found = engine.planner.suggest({"data": {"dataset": kept.id}})
    assert found.recipe.base_model == str(folder)
    assert (found.recipe.training.batch_size, found.recipe.training.max_length) == (4, 64)
    assert "settings" in found.reasons["training.batch_size"]["reason"]
    chosen = engine.planner.suggest({"data": {"dataset": kept.id}, "base_model": "nano", "training": {"batch_size": 16}}).recipe
    assert (chosen.base_model, chosen.training.batch_size, chosen.training.max_length) == ("nano", 16, 64)
    demo = engine.planner.suggest({"data": {"demo": "piglatin"}}).recipe
    assert demo.base_model == "nano" and demo.training.max_length is None
    with Engine("other") as other:
        theirs = other.datasets.add("faq.jsonl", ROWS)
        assert other.planner.suggest({"data": {"dataset": theirs.id}}).recipe.base_model == "nano"
