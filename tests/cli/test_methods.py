"""`train` of a recipe of each method, small: from a file on disk to a model that the other commands know."""

from __future__ import annotations

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
