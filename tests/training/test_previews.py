"""Previews: a person's own prompts on a real server, in time or passed over, where the run is or where its weights can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe, keys
from engine.errors import RecipeError
from engine.training.previews import FIRST_POSITION
from tests.running import shouting
from tests.server.harness import KEY, RunningServer

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
QUICK: dict[str, Any] = {"training": {"steps": 4, "batch_size": 4}, "lora": {"rank": 8}}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return shouting(tmp_path / "words.jsonl")


def recipe(words: Path, **evaluation: Any) -> Recipe:
    told = {"proof": False, "skills": False, "eval_every": 0, "samples_every": 2, "samples": 1, "max_new_tokens": 12, **evaluation}
    return Recipe.make({"data": {"path": str(words)}, "evaluation": told, **QUICK})


def test_they_are_answered_with_the_samples(engine: Engine, words: Path) -> None:
    previews = ["Shout hello", {"prompt": "Shout you", "expected": "YOU!"}]
    found = engine.run(recipe(words, previews=previews))
    said = [sample for sample in engine.samples(found.job_id) if sample.position >= FIRST_POSITION]
    assert [(one.step, one.position - FIRST_POSITION) for one in said] == [(step, place) for step in (0, 2, 4) for place in (0, 1)]
    assert {one.prompt for one in said} == {"Shout hello", "Shout you"}
    assert all((one.correct is None) == (one.expected is None) for one in said)
    assert len([sample for sample in engine.samples(found.job_id) if sample.position < FIRST_POSITION]) == 3
    speeds = engine.curve(found.job_id, "preview_tokens_per_second")
    assert [step for step, _ in speeds] == [0, 2, 4] and all(speed > 0 for _, speed in speeds)
    assert all(0 <= share <= 1 for _, share in engine.curve(found.job_id, "preview_exact_match"))


def test_alone_without_fixed_prompts(engine: Engine, words: Path) -> None:
    found = engine.run(recipe(words, samples=0, previews=["Shout hello"]))
    assert [sample.position for sample in engine.samples(found.job_id)] == [FIRST_POSITION] * 3


def test_one_that_takes_too_long_is_passed_over(engine: Engine, words: Path) -> None:
    found = engine.run(recipe(words, previews=["Shout hello"], preview_seconds=0.001, samples=0))
    assert found.state == "done" and found.steps == 4
    warnings = [line["text"] for line in engine.log(found.job_id) if line["level"] == "warning"]
    assert any("preview 1 took longer than 0.001 s at step" in text for text in warnings)


def test_one_that_does_not_fit_ends_no_run(engine: Engine, words: Path) -> None:
    found = engine.run(recipe(words, previews=["x" * 3000, "Shout hello"]))
    assert found.state == "done"
    assert {sample.position for sample in engine.samples(found.job_id) if sample.position >= FIRST_POSITION} == {FIRST_POSITION + 1}
    assert any("preview 1 is passed over" in line["text"] for line in engine.log(found.job_id, 200))


@contextmanager
def served(checkpoints: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another server as the endpoint `tinker`, which keeps its checkpoints there."""
    server = RunningServer(folder / "second", "--checkpoints", str(checkpoints))
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    keys.hold("local", "tinker", KEY)
    try:
        yield
    finally:
        keys.unhold("local", "tinker")
        server.stop()


def test_answered_at_another_endpoint_that_reads_the_same_weights(
    engine: Engine, words: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(place / "checkpoints", tmp_path, monkeypatch):
        found = engine.run(recipe(words, previews=["Shout hello"], preview_endpoint="tinker"))
    here = engine.run(recipe(words, previews=["Shout hello"]))
    told = [[one.answer for one in engine.samples(run.job_id) if one.position >= FIRST_POSITION] for run in (found, here)]
    assert len(told[0]) == 3 and told[0] == told[1], "the same weights say the same"
    log = [line["text"] for line in engine.log(found.job_id, 200)]
    assert any("where previews are answered" in text for text in log) and not any("passed over" in text for text in log)


def test_an_endpoint_that_keeps_its_own_is_refused_before_the_launch(
    engine: Engine, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path / "apart", tmp_path, monkeypatch), pytest.raises(RecipeError, match="keep their checkpoints apart"):
        engine.launch(recipe(words, previews=["Shout hello"], preview_endpoint="tinker"))
    assert not engine.jobs(search="words", states=("queued",))


def test_an_unknown_endpoint_is_refused(engine: Engine, words: Path) -> None:
    with pytest.raises(RecipeError, match="no endpoint 'moon'"):
        engine.launch(recipe(words, previews=["Shout hello"], preview_endpoint="moon"))
