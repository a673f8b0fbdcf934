"""Servers of judges and teachers: named, looked at over real HTTP, their keys kept apart from them, and chosen in the forms."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from engine import Engine, Recipe, keys, policy
from engine.errors import EndpointError, EngineError, KeyNeeded, NotAllowed, NotFound, RecipeError
from engine.judges import checked
from engine.training.rewards.asking import Asker
from tests.fakes.judge_server import JudgeServer


@pytest.fixture
def engine(database: str | None) -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture(autouse=True)
def no_keys_left() -> Iterator[None]:
    yield
    for owner, name in keys.held():
        if name.startswith("judge:"):
            keys.unhold(owner, name)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda body, number: '{"score": 7}', models=("wise", "quick"), key="sk-judge") as made:
        yield made


def test_a_server_is_named_and_looked_at(engine: Engine, server: JudgeServer) -> None:
    made = engine.judges.add("  My   judge ", f"{server.url}/chat/completions")
    assert (made.name, made.url, made.source, made.models, made.in_the_clear) == ("My judge", server.url, "", (), False)
    with pytest.raises(KeyNeeded, match="wants a key: who are you"):
        engine.judges.look(server.url)
    engine.judges.give_key(server.url, "sk-wrong")
    with pytest.raises(KeyNeeded, match="refused the key"):
        engine.judges.look(server.url)
    engine.judges.add("My judge", server.url, key=" sk-judge ")
    seen = engine.judges.look(server.url + "/")
    assert seen.models == ("quick", "wise") == engine.judges.models(server.url) and seen.source == "memory"
    assert engine.judges.models("http://elsewhere/v1") == ()
    again = engine.judges.add("Renamed", server.url)
    assert again.models == ("quick", "wise") and [one.name for one in engine.judges.all()] == ["Renamed"]
    # The very key that judges and teachers are asked with.
    assert Asker(engine.store, engine.owner).key(server.url) == "sk-judge"
    engine.judges.forget(server.url)
    assert engine.judges.all() == [] and engine.judges.key_source(server.url) == ""


def test_a_key_stays_while_another_server_of_its_host_is_named(engine: Engine) -> None:
    engine.judges.add("One", "https://judge.test/one/v1", key="sk-1")
    engine.judges.add("Two", "https://judge.test/two/v1")
    engine.judges.forget("https://judge.test/one/v1")
    assert engine.judges.all()[0].source == "memory"
    engine.judges.forget("https://judge.test/two/v1")
    assert engine.judges.key_source("https://judge.test/two/v1") == ""


def test_what_lists_no_models_can_be_used_all_the_same(engine: Engine) -> None:
    with JudgeServer(lambda body, number: "7") as bare:
        engine.judges.add("Bare", bare.url)
        assert engine.judges.look(bare.url).models == ()
    with pytest.raises(EndpointError, match="didn't answer: ConnectError"):
        engine.judges.look(bare.url)


def test_no_secret_is_kept_with_the_address(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("https://user:pw@judge.test/v1", "https://judge.test/v1?api_key=sk-1", "judge.test/v1", "ftp://judge.test", ""):
        with pytest.raises(RecipeError):
            engine.judges.add("One", url)
    assert checked(" https://judge.test/v1/chat/completions/ ") == "https://judge.test/v1"
    engine.judges.add("One", "https://judge.test/v1", key="sk-secret")
    assert "sk-secret" not in json.dumps(engine.store.setting("local", "judge_servers")) and "sk-secret" not in repr(engine.judges.all())
    monkeypatch.setenv("THINKER_KEY_OTHER_TEST", "sk-env")
    other = engine.judges.add("Other", "https://other.test/v1")
    assert (other.source, other.variable) == ("environment", "THINKER_KEY_OTHER_TEST")
    with pytest.raises(RecipeError, match="called 'one' already"):
        engine.judges.add("one", "https://third.test/v1")
    with pytest.raises(RecipeError, match="1 to 60"):
        engine.judges.add(" ", "https://third.test/v1")
    with pytest.raises(NotFound, match="no server is named"):
        engine.judges.forget("https://third.test/v1")
    assert engine.judges.add("Far", "http://far.test/v1").in_the_clear


def test_visitors_name_none(engine: Engine) -> None:
    engine.judges.add("One", "https://judge.test/v1", key="sk-1")
    with Engine(f"{policy.VISITOR}0a1b") as visitor:
        assert visitor.judges.all() == [] and not visitor.judges.allowed
        for refused in (
            lambda: visitor.judges.add("One", "https://judge.test/v1"),
            lambda: visitor.judges.give_key("https://judge.test/v1", "x"),
        ):
            with pytest.raises(NotAllowed):
                refused()
    with Engine("somebody else") as other:
        assert other.judges.all() == [] and other.judges.key_source("https://judge.test/v1") == ""


@pytest.mark.parametrize("kind", ["judge", "teacher", "judge of the proof"])
def test_a_run_that_waits_for_its_key_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("engine.judges.runner.ensure_runner", lambda *_: None)
    url = "https://judge.test/v1"
    spec = {"method": "distill", "distill": {"kind": "answers", "teacher": "wise", "teacher_url": url}}
    if kind == "judge":
        spec = {"method": "rl", "reward": {"parts": [{"kind": "judge", "rubric": "Polite.", "model": "wise", "url": url}]}}
    if kind == "judge of the proof":
        spec = {"evaluation": {"judge": [{"kind": "judge", "rubric": "Polite.", "model": "wise", "url": url}]}}
    job = engine.store.create_job(Recipe.make({**spec, "data": {"demo": "piglatin"}}))
    engine.store.claim_job("test", job_id=job.id)
    engine.store.transition(job.id, "needs_key", attempt=1, error=KeyNeeded("it wants a key", "Give it.").to_dict())
    assert engine.judges.give_key("https://other.test/v1", "sk-1") == 0 and engine.job(job.id).state == "needs_key"
    assert engine.judges.give_key(url, "sk-1") == 1 and engine.job(job.id).state == "queued"


def test_columns_to_score_by_are_those_of_the_data(engine: Engine, tmp_path: object) -> None:
    row = {"prompt": "2 + 2", "answer": "4", "tests": "assert True", "level": 3}
    kept = engine.datasets.add("sums.jsonl", (json.dumps(row) + "\n").encode() * 20)
    assert engine.rewards.columns({"data": {"dataset": kept.id}}) == ["level", "tests"]
    assert engine.rewards.columns({}) == []
    file = tmp_path / "sums.jsonl"  # type: ignore[operator]
    file.write_text((json.dumps(row) + "\n") * 20)
    assert {"level", "tests"} <= set(engine.rewards.columns({"data": {"path": str(file)}}))
    assert isinstance(engine.rewards.columns({"data": {"demo": "piglatin"}}), list)
    with Engine("somebody else") as other, pytest.raises(EngineError):
        other.rewards.columns({"data": {"dataset": kept.id}})
