"""The main promise: one command, and a model that learned, didn't forget, and talks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import cli, end_processes


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
