"""`train` of a recipe of each method, small: from a file on disk to a model that the other commands know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from engine import knowledge
from engine.recipe import METHODS
from tests.running import Done
from tests.training.test_methods import files
from tests.training.test_methods_elsewhere import short

__all__ = ["files"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_is_trained(call: Callable[..., Done], files: dict[str, Path], tmp_path: Path, method: str) -> None:
    asked = short(files, method).merged({"training": {"steps": 2}, "evaluation": {"proof": True, "skills": False}})
    file = tmp_path / f"{method}.yaml"
    file.write_text(asked.to_yaml(), encoding="utf-8")
    assert yaml.safe_load(file.read_text()).get("method", "sft") == method
    done = call("train", file, "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["state"] == "done" and told["checkpoint"].startswith("tinker://")
    first = knowledge.metric(knowledge.figures(method)[0])
    assert first.get("short", first["title"]).lower() in done.err.lower(), "what the method is judged by is told while it runs"
    shown = call("show", told["job_id"], "--json").json
    assert shown["recipe"]["method"] == method and knowledge.charts(method)[0] in shown["metrics"]
    assert asked.name in call("models").out


def test_a_run_that_waits_for_a_word_says_why(call: Callable[..., Done], tmp_path: Path) -> None:
    """A reward model of pairs that contradict one another is no better than chance."""
    shouts = [(f"word{number}", f"word{number}".upper()) for number in range(60)]
    pairs = [{"prompt": f"Say {pair[0]}", "chosen": text, "rejected": other} for pair in shouts for text, other in (pair, pair[::-1])]
    data, file = tmp_path / "pairs.jsonl", tmp_path / "recipe.yaml"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    asked = {"name": "doubtful", "method": "rlhf", "data": {"path": str(data)}, "reward_model": {"steps": 3}}
    asked |= {"training": {"steps": 2, "batch_size": 4}, "evaluation": {"proof": False, "samples_every": 0, "skills": False}}
    file.write_text(yaml.safe_dump(asked), encoding="utf-8")
    done = call("train", file)
    assert done.code == 0, done.err
    told = done.out + done.err
    assert "paused at step 3\nit asks: the reward model ranks only 50% of held-out pairs rightly" in told
    assert "go on with: python thinker.py resume" in told
