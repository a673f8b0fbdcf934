"""The endpoint `tinker` by URL and key: the official SDK against our own server, a whole run to its model and a chat with it; and
what is said of a bad key, an unknown model, a server that isn't there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, keys, places
from engine.endpoints import TINKER_KEY, remote, tinker_cloud
from engine.errors import EndpointError, KeyNeeded, ModelError, NotFound, RecipeError, StateError
from engine.jobs import host
from engine.jobs.runner import Runner
from engine.playground import Settings
from engine.store import Job
from tests.fakes.toll import Toll
from tests.running import files_with, until
from tests.server.harness import KEY, RunningServer

SHORT = {"endpoint": "tinker", "training": {"steps": 4, "batch_size": 4}, "evaluation": {"skills": False, "samples_every": 2, "samples": 1}}
REAL_KEY = os.environ.get("REAL_TINKER_KEY", "")
SHORT["data"] = {"held_out_max": 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


@pytest.fixture
def engine(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    with Engine() as made:
        yield made
    for owner, name in keys.held():
        keys.unhold(owner, name)


@pytest.mark.slow
def test_a_whole_run_and_a_chat_with_what_came_of_it(engine: Engine, thinker_home: Path) -> None:
    engine.keys.give("tinker", KEY)
    result = engine.run(engine.demo_recipe("piglatin", SHORT))
    assert result.state == "done" and result.steps == 4 and result.held_out["after"]
    job = engine.job(result.job_id)
    assert {point.kind for point in engine.checkpoints(job.id)} == {"weights", "sampler_weights"} and engine.samples(job.id)
    model = engine.models(job.id)[0]
    assert model.endpoint == "tinker" and not (thinker_home / "servers").exists(), "nothing was started here"

    playground = engine.playground
    speaker = playground.speaker(model.id)
    asking = playground.ask([speaker], [playground.messages([], 0, "Pig Latin: hello", Settings(max_tokens=8))], Settings(max_tokens=8))
    asking.wait()
    assert asking.answers[0].finish in ("stop", "length") and asking.answers[0].text and asking.answers[0].error is None
    assert playground.probabilities(speaker, [{"role": "user", "content": "Pig Latin: hello"}], "ello-hay")
    stops = list(engine.travel.ask(job.id, "Pig Latin: hello", max_tokens=4))
    assert stops[0].step == 0 and stops[-1].step == 4
    with engine.chat(model.name) as chat:
        assert chat.reply([{"role": "user", "content": "Pig Latin: hello"}], max_tokens=4)
    assert files_with(KEY, thinker_home) == []


@pytest.mark.slow
def test_paused_and_resumed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    engine.keys.give("tinker", KEY)
    recipe = engine.demo_recipe("piglatin", {**SHORT, "training": {"steps": 30, "batch_size": 4}, "evaluation": {"proof": False}})

    def pause(job: Job) -> None:
        def soon() -> None:
            until(lambda: engine.job(job.id).step >= 3)
            engine.pause(job.id)

        threading.Thread(target=soon, daemon=True).start()

    job = engine.run_job(recipe, on_start=pause)
    assert job.state == "paused" and 3 <= job.step < 30
    engine.resume(job.id)
    job = Runner(engine.store, host.resolve()).run_one(job.id)
    assert (job.state, job.step) == ("done", 30)
    assert [step for step, _ in engine.curve(job.id, "train_loss")] == list(range(1, 31))


@pytest.mark.slow
@pytest.mark.parametrize(("status", "state", "word"), [(402, "paused", "payment"), (401, "needs_key", "key")])
def test_an_account_that_is_closed_during_a_run(
    engine: Engine, server: RunningServer, monkeypatch: pytest.MonkeyPatch, status: int, state: str, word: str
) -> None:
    """The SDK alone would wait for an hour; the run rests with the reason, and goes on when that is seen to."""
    toll = Toll(server.url)
    monkeypatch.setenv("TINKER_BASE_URL", toll.url)
    monkeypatch.setattr(remote, "ASK_EVERY", 0.2)
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    engine.keys.give("tinker", KEY)
    changes = {**SHORT, "training": {"steps": 30, "batch_size": 4}, "evaluation": {"proof": False}, "checkpoints": {"every_steps": 5}}
    job = engine.launch(engine.demo_recipe("piglatin", changes))

    def close() -> None:
        until(lambda: engine.job(job.id).step >= 7)
        toll.closed = status

    threading.Thread(target=close, daemon=True).start()
    began = time.monotonic()
    job = Runner(engine.store, host.resolve()).run_one(job.id)
    assert job.state == state, engine.log(job.id, 3)
    assert word in job.error["message"] and time.monotonic() - began < 60
    assert toll.refused and 5 <= engine.store.last_checkpoint(job.id).step < 30
    toll.closed = 0
    engine.resume(job.id)
    job = Runner(engine.store, host.resolve()).run_one(job.id)
    toll.close()
    assert (job.state, job.step, job.error) == ("done", 30, None)
    assert [step for step, _ in engine.curve(job.id, "train_loss")] == list(range(1, 31))


@pytest.mark.skipif(not REAL_KEY, reason="REAL_TINKER_KEY holds no key for the real cloud")
def test_the_real_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs a few cents: the smallest model that is listed with a price, two updates, a sample, a chat, and nothing left behind."""
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Engine() as engine:
        engine.keys.give("tinker", REAL_KEY)
        try:
            assert "to train" in engine.keys.check("tinker")
            offers = [offer for offer in engine.remotes.offers("tinker") if offer.trainable]
            priced = [(price.train, offer.name) for offer in offers if (price := engine.spending.price("tinker", offer.name))]
            model = os.environ.get("REAL_TINKER_MODEL") or min(priced)[1]
            values = {
                **SHORT,
                "base_model": model,
                "training": {"steps": 2, "batch_size": 2, "learning_rate": 1e-4},
                "data": {"held_out_max": 2},
            }
            values |= {"budget": {"max_dollars": 0.5}, "lora": {"rank": 8}}
            result = engine.run(engine.demo_recipe("piglatin", values))
            job = engine.job(result.job_id)
            spent = engine.spending.of(job)
            assert job.state == "done" and result.steps == 2 and spent.dollars is not None and spent.dollars < 0.5
            tuned = engine.models(job.id)[0]
            with engine.chat(tuned.name) as chat:
                assert isinstance(chat.reply([{"role": "user", "content": "Pig Latin: hello"}], max_tokens=4), str)
            kept = [one for one in engine.stored.listed("tinker") if one.job_id == job.id]
            assert {one.kind for one in kept} == {"weights", "sampler_weights"} and all(one.page for one in kept)
            for one in kept:
                engine.stored.delete("tinker", one.path)
            assert not [one for one in engine.stored.listed("tinker") if one.job_id == job.id]
        finally:
            engine.keys.forget("tinker")


def test_the_key_is_asked_for_first(engine: Engine) -> None:
    with pytest.raises(KeyNeeded, match="isn't there"):
        engine.launch(engine.demo_recipe("piglatin", SHORT))
    assert engine.jobs() == [] and not engine.keys.state("tinker").present
    place = next(found for found in engine.planner.places() if found.name == "tinker")
    assert not place.ready and [check.met for check in place.checks] == [True, False]
    with pytest.raises(KeyNeeded):
        remote.start("nano", Path(), "local")


def test_a_bad_key_is_told(engine: Engine) -> None:
    engine.keys.give("tinker", "tml-not-the-right-one-at-all")
    with pytest.raises(KeyNeeded, match="refused the key") as caught:
        engine.launch(engine.demo_recipe("piglatin", SHORT))
    assert "tml-not" not in str(caught.value)
    with pytest.raises(KeyNeeded, match="refused"):
        engine.keys.check("tinker")
    place = next(found for found in places.look() if found.name == "tinker")
    assert "refused" in place.checks[-1].found and not place.ready


def test_a_good_key_is_told_too(engine: Engine) -> None:
    engine.keys.give("tinker", f"  '{KEY}'\n")
    assert engine.keys.check("tinker") == "127.0.0.1 takes it and offers 1 model to train"
    assert remote.models("tinker", "local") == ["nano"]
    found = places.look()
    assert [place.name for place in found if place.ready][-1] == "tinker" and found[0].name == "local"


def test_an_unknown_model_is_told(engine: Engine) -> None:
    engine.keys.give("tinker", KEY)
    with pytest.raises(ModelError, match=r"doesn't train Qwen/Qwen3-8B.*nano"):
        engine.launch(engine.demo_recipe("piglatin", {**SHORT, "base_model": "Qwen/Qwen3-8B"}))
    with pytest.raises(RecipeError, match="no endpoint"):
        engine.launch(engine.demo_recipe("piglatin", {**SHORT, "endpoint": "moon"}))


def test_a_server_that_isnt_there_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.keys.give("tinker", KEY)
    for url in ("http://127.0.0.1:9", "http://127.0.0.1:9/services/x/", "not a url"):
        monkeypatch.setenv("TINKER_BASE_URL", url)
        with pytest.raises(EndpointError, match="can't be reached"):
            engine.launch(engine.demo_recipe("piglatin", SHORT))


def test_something_else_that_answers_is_told(engine: Engine, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.keys.give("tinker", KEY)
    monkeypatch.setenv("TINKER_BASE_URL", f"{server.url}/elsewhere")
    with pytest.raises(NotFound, match="status 404"):
        engine.keys.check("tinker")


@pytest.mark.parametrize("value", ["", "   ", "sk-something-else", "tml-with space", "tml-\x00", "tml-ü", "tml-" + "x" * 2000])
def test_what_cant_be_a_key_isnt_taken(engine: Engine, value: str) -> None:
    with pytest.raises(StateError) as caught:
        engine.keys.give("tinker", value)
    assert not value.strip() or value.strip() not in str(caught.value)
    assert not engine.keys.state("tinker").present


def test_the_url_is_the_sdks_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinker.lib.base_url import DEFAULT_BASE_URL

    assert tinker_cloud.url() == DEFAULT_BASE_URL == tinker_cloud.DEFAULT_URL
    monkeypatch.setenv("TINKER_BASE_URL", "https://elsewhere.example/x/")
    assert tinker_cloud.url() == "https://elsewhere.example/x" and remote.address("tinker", "local").host == "elsewhere.example"
    assert TINKER_KEY.variable == "TINKER_API_KEY"
