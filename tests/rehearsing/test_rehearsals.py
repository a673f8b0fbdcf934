"""Rehearsals through the Engine: real small runs on a real server, what they stamp, what they find, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe, models, paths
from engine.errors import NotFound, RecipeError
from engine.rehearsing.report import Check
from engine.store import Rehearsal
from tests.fakes.openai_server import SayingServer
from tests.running import end_processes, shouting, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("rehearsals") / "home"
    yield home
    end_processes(home)


@pytest.fixture
def engine(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("THINKER_HOME", str(place))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with Engine() as made:
        yield made


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words.jsonl"
    return shouting(file)


def tried(engine: Engine, values: dict[str, Any]) -> tuple[Rehearsal, dict[str, Check]]:
    told: list[Check] = []
    found = engine.rehearsals.run(Recipe.make(values), told.append)
    assert told == engine.rehearsals.checks(found.id), "each look is told once, as it ended"
    return found, {f"{check.name}{check.stage or ''}": check for check in told}


def files_of(home: Path) -> set[str]:
    kept = ("thinker.db", "servers", "logs")
    return {str(file.relative_to(home)) for file in home.rglob("*") if file.is_file() and not str(file.relative_to(home)).startswith(kept)}


def test_a_chain_is_rehearsed_stamped_and_leaves_nothing(engine: Engine, words: Path) -> None:
    before = files_of(paths.home())
    then = [{"method": "rl", "training": {"steps": 300}}, {"method": "sft", "training": {"learning_rate": 1e-4}}]
    values = {
        "name": "Shout", "data": {"path": str(words)}, "training": {"steps": 400}, "then": then,
        "evaluation": {"previews": [{"prompt": "Shout hello", "expected": "HELLO!"}]}, "profile": "Concise answers",
    }  # fmt: skip
    found, checks = tried(engine, values)
    assert found.state == "passed", [vars(check) for check in checks.values() if check.state == "failed"]
    assert {"place", "model", "data1", "rendering1", "data3", "reward2", "learning", "stage1", "stage2", "stage3", "resume"} <= set(checks)
    assert checks["resume"].text.startswith("9 checkpoints") and "from update 2, 5, 8" in checks["resume"].text
    assert "9 updates in 3 stages" in checks["learning"].text
    assert "own answer scores 1" in checks["reward2"].text
    steps = found.report["steps"]
    assert [one["stage"] for one in steps] == [1, 2, 3] and steps[0]["steps"] == 400 and all(one["seconds"] > 0 for one in steps)
    assert "HELLO!" in {one["expected"] for one in found.report["answers"]}
    learned = [text for text, weight in found.report["rendered"][0]["pieces"] if weight]
    assert learned[0].startswith("WORD") and learned[0].endswith("<|end|>")
    assert engine.jobs() == [] and engine.models() == [] and engine.runs.totals()["runs"] == 0
    assert files_of(paths.home()) - before <= {"checkpoints/folder.id"}

    recipe = Recipe.make(values)
    assert engine.rehearsals.stamp(recipe) == found
    assert engine.rehearsals.stamp(recipe.merged({"name": "Another name"})) == found
    for change in ({"seed": 1}, {"training": {"learning_rate": 1e-3}}, {"then": then[:1]}, {"profile": ""}):
        assert engine.rehearsals.stamp(recipe.merged(change)) is None, change
    os.utime(words, (1, 1))
    assert engine.rehearsals.stamp(recipe) is None, "the file may hold something else by now"


@pytest.mark.parametrize("method", ["dpo", "kto", "rlhf", "distill"])
def test_every_method_stands_it(engine: Engine, method: str) -> None:
    extra = {"distill": {"kind": "on_policy", "teacher_prompt": "Answer in capitals."}} if method == "distill" else {}
    found, checks = tried(engine, {"method": method, "data": {"demo": "piglatin"}, "evaluation": {"skills": False}, **extra})
    assert found.state == "passed", [vars(check) for check in checks.values() if check.state == "failed"]
    assert checks["resume"].state == "ok" and checks["stage1"].state in ("ok", "care")


def test_the_stamp_of_a_run(engine: Engine, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.jobs.host.ensure_runner", lambda *_: None)
    recipe = Recipe.make({"data": {"path": str(words)}, "evaluation": {"proof": False, "skills": False, "samples_every": 0}})
    early = engine.launch(recipe)
    found = engine.rehearsals.run(recipe)
    late, other = engine.launch(recipe), engine.launch(recipe.merged({"seed": 3}))
    assert engine.rehearsals.stamp_of(late) == found
    assert engine.rehearsals.stamp_of(early) is None and engine.rehearsals.stamp_of(other) is None
    for job in (early, late, other):
        engine.stop(job.id)
        engine.delete(job.id)


def test_what_would_have_failed_is_named(engine: Engine, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps({"prompt": "x" * 3000, "completion": f"y{n}"}) + "\n" for n in range(20)), encoding="utf-8")
    found, checks = tried(engine, {"data": {"path": str(long)}})
    assert found.state == "failed" and engine.rehearsals.stamp(Recipe.make({"data": {"path": str(long)}})) is None
    assert "no training example has an answer within 1,024 tokens" in checks["rendering1"].text and checks["rendering1"].advice
    assert checks["learning"].state == "skipped" and not found.report["model"]

    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"a": "1"}\n{"a": "2"}\n', encoding="utf-8")
    found, checks = tried(engine, {"data": {"path": str(odd)}})
    assert found.state == "failed" and checks["data1"].state == "failed" and checks["data1"].where

    some = tmp_path / "some.jsonl"
    rows = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(20)] + [{"prompt": "no answer"}]
    some.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found, checks = tried(engine, {"data": {"path": str(some)}})
    assert found.state == "passed" and checks["data1"].state == "care" and "line 21" in checks["data1"].where


def test_a_reward_that_tells_nothing_apart_is_told(engine: Engine, words: Path) -> None:
    values = {"method": "rl", "data": {"path": str(words)}, "reward": {"parts": [{"kind": "length", "longest": 50}]}}
    _, checks = tried(engine, values)
    assert checks["reward1"].state == "care"


def test_a_judge_is_asked_first(engine: Engine, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = SayingServer(lambda body: "Verdict: 8" if len(body["messages"]) > 1 or "ok" not in body["messages"][-1]["content"] else "ok")
    part = {"kind": "judge", "model": "judge-1", "url": judge.chat_url, "rubric": "Loud is good."}
    values = {"method": "rl", "data": {"path": str(words)}, "reward": {"parts": [part]}, "evaluation": {"skills": False}}
    try:
        _, checks = tried(engine, values)
        assert checks["judge01"].state == "ok" and "says: ok" in checks["judge01"].text
        judge.refuse = (401, {"error": {"message": "who are you?"}})
        found, checks = tried(engine, values)
    finally:
        judge.close()
    assert found.state == "failed" and checks["judge01"].state == "failed" and "key" in checks["judge01"].text
    assert checks["learning"].state == "skipped" and "reward1" not in checks


def test_a_judge_of_the_proof_that_fails_is_told(engine: Engine, words: Path) -> None:
    judge = [{"kind": "exact", "expected": "nowhere"}]
    found, checks = tried(engine, {"data": {"path": str(words)}, "evaluation": {"skills": False, "judge": judge}})
    assert found.state == "passed" and checks["evaluation"].state == "care" and "no column 'nowhere'" in checks["evaluation"].text


def test_who_judges_the_proof_is_asked_too(engine: Engine, words: Path) -> None:
    judge = SayingServer(lambda body: "ok")
    part = {"kind": "judge", "model": "judge-1", "url": judge.chat_url, "rubric": "Loud is good."}
    judge.refuse = (401, {"error": {"message": "who are you?"}})
    try:
        found, checks = tried(engine, {"data": {"path": str(words)}, "evaluation": {"skills": False, "judge": [part]}})
    finally:
        judge.close()
    assert found.state == "failed" and checks["judge01"].state == "failed" and "key" in checks["judge01"].text
    assert checks["learning"].state == "skipped"


def test_it_goes_on_from_a_checkpoint(engine: Engine, words: Path) -> None:
    quick = {"training": {"steps": 2, "batch_size": 4}, "evaluation": {"proof": False, "skills": False, "samples_every": 0}}
    engine.run(Recipe.make({"name": "first", "data": {"path": str(words)}, **quick}))
    values = {"start": {"checkpoint": "first"}, "data": {"path": str(words)}, "lora": {"rank": 32}}
    found, checks = tried(engine, values)
    assert found.state == "passed" and "first, on nano" in checks["start"].text
    with pytest.raises(NotFound):
        engine.rehearsals.run(Recipe.make({**values, "start": {"checkpoint": "second"}}))


def test_in_the_background_and_stopped(engine: Engine, words: Path) -> None:
    recipe = Recipe.make({"data": {"path": str(words)}})
    begun = engine.rehearsals.start(recipe)
    assert begun.state == "running" and engine.rehearsals.latest(recipe).id == begun.id
    until(lambda: engine.rehearsals.get(begun.id).over, 120)
    assert engine.rehearsals.get(begun.id).state == "passed" and engine.rehearsals.stamp(recipe).id == begun.id

    again = engine.rehearsals.start(recipe)
    until(lambda: engine.rehearsals.checks(again.id), 60)
    stopped = engine.rehearsals.stop(again.id)
    assert stopped.state == "stopped" and engine.rehearsals.stop(again.id).state == "stopped"
    until(lambda: not (paths.home() / "rehearsals" / again.id).exists(), 30)
    assert engine.rehearsals.stamp(recipe) is None, "the newest one counts"


def test_one_that_is_killed_is_lost(engine: Engine, words: Path) -> None:
    begun = engine.rehearsals.start(Recipe.make({"data": {"path": str(words)}, "seed": 9}))
    pid = until(lambda: engine.rehearsals.get(begun.id).process, 60)["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.rehearsals.get(begun.id).over, 30)
    assert engine.rehearsals.get(begun.id).state == "lost"


def test_a_new_one_takes_the_place_of_one_that_runs(engine: Engine, words: Path) -> None:
    first = engine.rehearsals.start(Recipe.make({"data": {"path": str(words)}, "seed": 11}))
    second = engine.rehearsals.start(Recipe.make({"data": {"path": str(words)}, "seed": 12}))
    assert engine.rehearsals.get(first.id).state == "stopped"
    until(lambda: engine.rehearsals.get(second.id).over, 120)
    assert engine.rehearsals.get(second.id).state == "passed"


def test_a_recipe_without_data_is_refused(engine: Engine) -> None:
    with pytest.raises(RecipeError, match="names no data"):
        engine.rehearsals.start(Recipe())


def test_when_it_is_advised(engine: Engine) -> None:
    plan = engine.planner.plan(Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 50}}))
    assert engine.rehearsals.advised("local", plan.estimates) == ""
    long = engine.planner.plan(Recipe.make({"data": {"demo": "piglatin"}, "training": {"steps": 100_000}}))
    assert "takes about" in engine.rehearsals.advised("local", long.estimates)
    assert "charges" in engine.rehearsals.advised("tinker", plan.estimates)


def test_a_model_that_is_not_here_is_stood_in_for(engine: Engine, words: Path, tmp_path: Path) -> None:
    """A base model with its own tokenizer and a short context: rows are looked at with these, and nano learns."""
    import shutil

    folder = tmp_path / "other"
    shutil.copytree(models.nano_folder(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64, "hidden_size": 4096, "num_hidden_layers": 40}))
    found, checks = tried(engine, {"base_model": str(folder), "data": {"path": str(words)}, "training": {"steps": 2}})
    assert "of 64" in checks["rendering1"].text and found.report["model"] == "nano"
