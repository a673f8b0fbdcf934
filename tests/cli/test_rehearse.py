"""`thinker rehearse` and `thinker profiles`, for people and with --json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.running import shouting


@pytest.mark.slow
def test_a_recipe_is_rehearsed(place: Path, call, tmp_path: Path) -> None:
    words = shouting(tmp_path / "words.jsonl")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: Loud\ndata: {{path: {words}}}\ntraining: {{steps: 200}}\nthen: [{{method: rl}}]\n", encoding="utf-8")
    done = call("rehearse", recipe)
    assert done.code == 0, done.err
    for expected in (
        "✓ As nano sees it (stage 1)",
        "✓ Learning, small, on nano",
        "6 updates in 2 stages",
        "stage 1: 200 updates",
        "rehearsed:",
    ):
        assert expected in done.out, done.out
    assert done.out.index("Where it runs") < done.out.index("Saved, paused and gone on")
    values = call("rehearse", recipe, "--json").json
    assert values["state"] == "passed" and values["model"] == "nano" and {check["state"] for check in values["checks"]} <= {"ok", "care"}
    assert "Loud" not in call("jobs").out


def test_what_would_fail_is_said_and_is_the_exit_code(call, tmp_path: Path) -> None:
    long = tmp_path / "long.json"
    long.write_text(json.dumps([{"prompt": "x" * 4000, "completion": "y"}] * 12), encoding="utf-8")
    done = call("rehearse", long, fresh=True)
    assert done.code == 1 and "✗ As nano sees it" in done.out and "Raise max_length, or shorten the examples." in done.out
    assert "correct what is marked" in done.out
    assert call("rehearse", fresh=True).code == 1


def test_profiles_are_listed(call) -> None:
    assert "JSON only" in call("profiles", fresh=True).out
    profiles = call("profiles", "--json", fresh=True).json["profiles"]
    assert [profile["name"] for profile in profiles] == ["Concise answers", "JSON only"] and profiles[1]["stop"] == ["\n"]
