"""Servers named by URL: kept without their keys, probed and tried out for real, trained on, told apart from those that can do less."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, endpoints, keys, places
from engine.endpoints import named, remote, saved
from engine.errors import EndpointError, KeyNeeded, ModelError, NotAllowed, NotFound, PaymentNeeded, RecipeError, StateError
from engine.jobs import host
from tests.running import files_with
from tests.server.harness import KEY, RunningServer

SHORT = {"training": {"steps": 3, "batch_size": 4}, "data": {"held_out_max": 4}}
SHORT["evaluation"] = {"skills": False, "proof": False, "eval_every": 0, "samples_every": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("lab"))
    yield made
    made.stop()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    with Engine() as made:
        yield made
    for owner, name in keys.held():
        keys.unhold(owner, name)


Answer = Callable[[str], tuple[int, Any]]


@pytest.fixture
def other() -> Iterator[Callable[[Answer], str]]:
    """Servers of other makes: `answer` gives each path below /api/v1 (or beside it) its status and body."""
    made: list[ThreadingHTTPServer] = []

    def make(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path.removeprefix("/api/v1/").partition("?")[0])
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        made.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=made[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{made[-1].server_address[1]}"

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


@pytest.mark.slow
def test_named_probed_and_trained_on(engine: Engine, server: RunningServer, thinker_home: Path) -> None:
    made = engine.remotes.add("lab", f"{server.url}/api/v1/", key=KEY)
    assert (made.url, made.key, made.abilities, made.seen_at) == (server.url, True, (), None)
    found = engine.remotes.probe("lab")
    assert found.models == ("nano",) and {ability.name: ability.has for ability in found.abilities} == {
        "checkpoints": True, "chat": True, "losses": True, "full": True,
    }  # fmt: skip
    assert "cross_entropy" in next(ability.told for ability in found.abilities if ability.name == "losses")
    place = next(place for place in engine.planner.places() if place.name == "lab")
    assert place.ready and "1 model to train, up to 1,024 tokens at once" in repr(place.checks)
    assert engine.planner.models_at("lab") == ["nano"] and engine.planner.trains_all_weights("lab")

    result = engine.run(engine.demo_recipe("piglatin", {**SHORT, "endpoint": "lab"}))
    job = engine.job(result.job_id)
    assert (job.state, job.endpoint, engine.place(job.endpoint)) == ("done", "lab", "lab")
    assert not (thinker_home / "servers").exists() and engine.spending.of(job).dollars is None
    session = server.http().post("sessions/search", json={"limit": 5, "user_metadata": {"job": job.id}}).json()["sessions"]
    assert [found["user_metadata"]["attempt"] for found in session] == ["1"], "the session says which run it was"
    assert files_with(KEY, thinker_home) == []


@pytest.mark.slow
def test_what_isnt_told_is_tried_out(engine: Engine, server: RunningServer, other: Callable[[Answer], str]) -> None:
    from engine.endpoints import trial

    found = trial.run(server.url, KEY, "nano")
    assert found == {"losses": list(trial.LOSSES), "full": True}
    with pytest.raises(EndpointError) as caught:
        trial.run(server.url, KEY, "moon")
    assert KEY not in str(caught.value)
    engine.remotes.add("lab", server.url, key=KEY)
    assert {ability.name: ability.has for ability in engine.remotes.try_out("lab").abilities}["full"] is True
    with pytest.raises(ModelError, match="doesn't train moon"):
        engine.remotes.try_out("lab", "moon")


def test_a_server_that_can_do_less(engine: Engine, other: Callable[[Answer], str]) -> None:
    """One that lists models, and nothing else."""

    def answer(path: str) -> tuple[int, Any]:
        models = [{"model_name": "Qwen/Qwen3-0.6B", "max_context_length": 2048}, {"model_name": "for-chats", "trainable": False}]
        return (200, {"supported_models": models}) if path == "get_server_capabilities" else (404, {"detail": "Not Found"})

    engine.remotes.add("plain", other(answer), needs_key=False)
    found = engine.remotes.probe("plain")
    assert found.models == ("Qwen/Qwen3-0.6B",) and found.key is None
    assert {ability.name: ability.has for ability in found.abilities} == {"checkpoints": False, "chat": False, "losses": None, "full": None}
    assert [(offer.name, offer.context, offer.trainable) for offer in engine.remotes.offers("plain")] == [
        ("Qwen/Qwen3-0.6B", 2048, True), ("for-chats", None, False),
    ]  # fmt: skip
    recipe = engine.demo_recipe("piglatin", {**SHORT, "endpoint": "plain", "base_model": "Qwen/Qwen3-0.6B"})
    with pytest.raises(RecipeError, match="takes 2,048 tokens at once there, and 4,000"):
        engine.launch(recipe.merged({"training": {"max_length": 4000}}))
    with pytest.raises(RecipeError, match="answers alone"):
        engine.launch(recipe.merged({"evaluation": {"max_new_tokens": 2048}}))
    with pytest.raises(RecipeError, match="adapters"):
        engine.launch(recipe.merged({"full": True}))
    assert engine.jobs() == []


def test_a_context_too_long_is_said_before_the_launch(engine: Engine, other: Callable[[Answer], str]) -> None:
    models = {"supported_models": [{"model_name": "nano", "max_context_length": 24}]}
    url = other(lambda path: (200, models) if path == "get_server_capabilities" else (404, {}))
    engine.remotes.add("small", url, needs_key=False)
    recipe = engine.demo_recipe("piglatin", {**SHORT, "endpoint": "small", "evaluation": {"max_new_tokens": 8}})
    plan = engine.planner.plan(recipe)
    assert plan.figures["max_length"] == 24 and plan.figures["truncated"] > 0 and any("24 tokens" in told.text for told in plan.warnings)
    stopped = engine.planner.plan(recipe.merged({"training": {"max_length": 100}})).warnings[0]
    assert (stopped.level, stopped.field) == ("stop", "training.max_length") and "24 tokens at once" in stopped.text


@pytest.mark.parametrize(
    ("status", "error"), [(401, KeyNeeded), (403, KeyNeeded), (402, PaymentNeeded), (500, EndpointError), (404, NotFound)]
)
def test_refusals(engine: Engine, other: Callable[[Answer], str], status: int, error: type[Exception]) -> None:
    engine.remotes.add("lab", other(lambda path: (status, {"message": "no"})), key=KEY)
    with pytest.raises(error) as caught:
        engine.remotes.probe("lab")
    assert KEY not in str(caught.value)
    place = next(place for place in places.look() if place.name == "lab")
    assert not place.ready
    if status == 402:
        assert "asks for payment" in place.checks[-1].found
        with pytest.raises(PaymentNeeded):
            engine.launch(engine.demo_recipe("piglatin", {**SHORT, "endpoint": "lab"}))


def test_names_and_urls(engine: Engine, thinker_home: Path) -> None:
    for name in ("local", "tinker", "Lab", "", "a b", "-x", "x" * 41, "../up"):
        with pytest.raises(RecipeError, match=r"server's name|is taken"):
            engine.remotes.add(name, "http://127.0.0.1:1")
    for url in (
        "",
        "not a url",
        "ftp://x",
        "http://",
        "http://user:secret@host",
        "https://host/?key=tml-x",
        "https://host#f",
        "http://" + "x" * 500,
    ):
        with pytest.raises(RecipeError) as caught:
            engine.remotes.add("lab", url)
        assert "secret" not in str(caught.value)
    with pytest.raises(StateError, match="begin with tml-"):
        engine.remotes.add("lab", "http://127.0.0.1:1", key="sk-no")
    assert engine.remotes.all() == [] and not (thinker_home / named.FILE).exists()
    engine.remotes.add("lab", "http://far.example:8000", key=KEY)
    assert engine.remotes.all()[0].in_the_clear and engine.keys.state("lab").present
    assert "read on the way" in repr(next(place for place in places.look(ask=False) if place.name == "lab").checks)
    # Another place gets no key that was given for the first.
    engine.remotes.add("lab", "https://else.example")
    assert not engine.keys.state("lab").present and not engine.remotes.all()[0].in_the_clear
    with pytest.raises(KeyNeeded, match="lab"):
        engine.launch(engine.demo_recipe("piglatin", {"endpoint": "lab"}))
    engine.remotes.forget("lab")
    assert engine.remotes.all() == [] and "lab" not in (thinker_home / named.FILE).read_text()
    with pytest.raises(RecipeError, match="no endpoint 'lab'"):
        engine.launch(engine.demo_recipe("piglatin", {"endpoint": "lab"}))
    with pytest.raises(NotFound):
        engine.remotes.forget("lab")


def test_a_key_from_the_environment(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKER_KEY_MY_LAB", KEY)
    engine.remotes.add("my-lab", "http://127.0.0.1:9")
    assert engine.keys.state("my-lab").source == "environment" and engine.remotes.all()[0].key is True


def test_one_that_runs_wait_for_isnt_forgotten(engine: Engine, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    engine.remotes.add("lab", server.url, key=KEY)
    job = engine.launch(engine.demo_recipe("piglatin", {**SHORT, "endpoint": "lab"}))
    with pytest.raises(StateError, match="waiting its turn"):
        engine.remotes.forget("lab")
    engine.stop(job.id)
    engine.remotes.forget("lab")


def test_whose_they_are(engine: Engine) -> None:
    engine.remotes.add("lab", "http://127.0.0.1:9", needs_key=False)
    with Engine("ann") as ann:
        assert ann.remotes.all() == [] and not [place for place in ann.planner.places() if place.name == "lab"]
        with pytest.raises(RecipeError, match="no endpoint"):
            ann.launch(ann.demo_recipe("piglatin", {"endpoint": "lab"}))
    with Engine("visitor-1") as visitor:
        assert not visitor.remotes.allowed and visitor.remotes.all() == []
        with pytest.raises(NotAllowed, match="by URL"):
            visitor.remotes.add("mine", "http://127.0.0.1:9")
        with pytest.raises(RecipeError, match="no endpoint"):
            visitor.launch(visitor.demo_recipe("piglatin", {"endpoint": "lab"}))
        with pytest.raises(NotFound):
            visitor.remotes.probe("lab")


def test_billing_that_ends_during_a_run_is_noticed(engine: Engine, other: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would wait for an hour; what waits with it looks for itself."""
    paid = True

    def answer(path: str) -> tuple[int, Any]:
        return (200, {"supported_models": [{"model_name": "nano"}]}) if paid else (402, {"detail": "billing"})

    engine.remotes.add("lab", other(answer), needs_key=False)
    monkeypatch.setattr(remote, "ASK_EVERY", 0.0)
    there = remote.start("nano", Path(), "local", "lab")
    there.ready(lambda _: None)
    assert there.alive()
    paid = False
    with pytest.raises(PaymentNeeded, match="nothing left"):
        there.alive()


def test_what_a_server_offers_is_asked_for_once(engine: Engine, other: Callable[[Answer], str]) -> None:
    """A page looks at it several times in a row; another server isn't asked for what is wrong with a run at this one."""
    asked: list[str] = []

    def of(name: str) -> Answer:
        models = {"supported_models": [{"model_name": "Qwen/Qwen3-0.6B", "max_context_length": 2048}]}
        return lambda path: (asked.append(f"{name} {path}"), (200, models) if path == "get_server_capabilities" else (404, {}))[1]

    for name in ("one", "two"):
        engine.remotes.add(name, other(of(name)), needs_key=False)
    for _ in range(3):
        assert engine.planner.models_at("one") == ["Qwen/Qwen3-0.6B"]
        assert engine.planner.about_model("one", "Qwen/Qwen3-0.6B") == ["takes up to 2,048 tokens at once (context)"]
    assert asked.count("one get_server_capabilities") <= 2, asked
    job = engine.store.create_job(engine.demo_recipe("piglatin", {**SHORT, "endpoint": "one", "base_model": "Qwen/Qwen3-0.6B"}))
    assert any(sign.area == "endpoint" and sign.ok for sign in engine.diagnosis.of(job.id).signs)
    assert not [one for one in asked if one.startswith("two")], asked


def test_a_server_of_another_make_keeps_its_own_checkpoints(engine: Engine, other: Callable[[Answer], str]) -> None:
    """What it says of a path that it doesn't know is in its own words."""
    url = other(lambda path: (404, {"detail": "Not Found"}))
    engine.remotes.add("plain", url, needs_key=False)
    assert endpoints.storage("plain", engine.owner) == url
    assert not saved.whole("plain", engine.owner, "tinker://a/weights/b")
