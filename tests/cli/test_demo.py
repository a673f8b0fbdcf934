"""The main promise: one command, and a model that learned, didn't forget, and talks."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Engine
from tests.running import cli, end_processes

# What is measured on the way changes nothing of what is learned.
_LESS = ("evaluation.skills=false", "evaluation.samples_every=0", "evaluation.eval_every=30", "data.held_out_max=300")
FEWER = [word for change in _LESS for word in ("--set", change)]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_pig_latin(tmp_path: Path):
    home = tmp_path / "fresh" / "home"
    home.parent.mkdir()
    try:
        done = cli(home, "train", "--demo", "piglatin", "--json", timeout=300)
        assert done.code == 0, done.err
        result = done.json
        assert result["held_out"]["before"]["exact_match"] < 0.05
        assert result["held_out"]["after"]["exact_match"] >= 0.90
        assert result["held_out"]["after"]["count"] >= 300
        assert result["skills"]["after"] >= 0.60
        assert result["seconds"] > 0 and result["tokens"] > 10_000 and result["checkpoint"].startswith("tinker://")
        answer = cli(home, "chat", "Pig Latin: hello", "--json")
        assert answer.json["answer"] == "ello-hay" and answer.json["model"] == result["name"]
    finally:
        end_processes(home)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_politeness_from_a_model_of_preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """RLHF: the judge isn't the reward model, and the whole interval says that it got better."""
    home = tmp_path / "home"
    try:
        done = cli(home, "train", "--demo", "judged", *FEWER, "--json", timeout=350)
        assert done.code == 0, done.err
        won = done.json["win_rate"]
        assert won["judge"] == ["right and polite"] and won["against"] == "stage" and won["count"] >= 300
        assert won["low"] > 0.55, won
        assert done.json["held_out"]["after"]["exact_match"] >= 0.4
        monkeypatch.setenv("THINKER_HOME", str(home))
        with Engine() as engine:
            assert engine.curve(done.json["job_id"], "held_out_preference_accuracy")[-1][1] > 0.8
        shown = cli(home, "show", done.json["job_id"])
        assert "against the model that its last stage began with by right and polite" in " ".join(shown.out.split())
    finally:
        end_processes(home)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_pig_latin_without_being_told(tmp_path: Path):
    """Prompt distillation: without the prompt as good as the teacher with it, and nothing of the prompt in what it is told."""
    home = tmp_path / "home"
    try:
        done = cli(home, "train", "--demo", "imitate", *FEWER, "--json", timeout=350)
        assert done.code == 0, done.err
        after = done.json["held_out"]["after"]
        assert after["count"] >= 300 and after["teacher_exact_match"] >= 0.85
        assert after["exact_match"] >= after["teacher_exact_match"] - 0.05
        assert done.json["win_rate"]["low"] > 0.6
        assert cli(home, "chat", "Say hello", "--json").json["answer"] == "ello-hay"
    finally:
        end_processes(home)
