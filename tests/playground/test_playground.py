"""Conversations: who can be talked to, what they are shown, how answers come, and what happens when they don't."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from engine import Engine, endpoints
from engine.errors import EndpointError, NotFound, StateError
from engine.playground import Asking, Playground, Settings, Speaker
from tests.app.conftest import Runs
from tests.fakes.openai_server import SayingServer
from tests.running import end_processes, server_records, until

NANO = "base:nano"


def finished(asking: Asking) -> list[str]:
    for _ in asking.updates(0.01):
        pass
    return [answer.text for answer in asking.answers]


def ask(playground: Playground, *refs: str, prompt: str = "hello there", settings: Settings | None = None) -> Asking:
    settings = settings or Settings()
    who = [playground.speaker(ref) for ref in refs]
    return playground.ask(who, [playground.messages([], side, prompt, settings) for side in range(len(who))], settings)


def failure(asking: Asking) -> Exception:
    finished(asking)
    assert asking.answers[0].finish == "failed" and asking.answers[0].error is not None
    return asking.answers[0].error


def test_who_can_be_talked_to(engine: Engine):
    runs, playground = Runs(engine), engine.playground
    assert [speaker.ref for speaker in playground.speakers()] == [NANO]
    job = runs.done("Tutor")
    runs.saved(runs.running("Busy"), 10, "schedule")
    busy = engine.jobs(search="Busy")[0]
    model = engine.models()[0]
    assert [speaker.ref for speaker in playground.speakers()] == [model.id, NANO, f"{busy.id}@10"]
    tuned = playground.speaker(model.id)
    assert tuned == playground.speaker("Tutor") == playground.speaker(job.id)
    assert (tuned.name, tuned.path, tuned.renderer, tuned.single) == ("Tutor", model.sampler_path, "chat_template", True)
    checkpoint = playground.speaker(f"{busy.id}@10")
    assert checkpoint.name == "Busy, step 10" and checkpoint.path.endswith(f"{busy.id}-10") and checkpoint.kind == "checkpoint"
    for ref in ("base:someone/else", "base:/etc", "nobody", "", f"{busy.id}@11", "zzz@1"):
        with pytest.raises(NotFound):
            playground.speaker(ref)


def test_prompts_worth_asking(engine: Engine):
    playground = engine.playground
    tried = engine.demos()["piglatin"]["try"]
    assert playground.prompts(playground.speaker(NANO)) == tried
    job = Runs(engine).done("Tutor")
    assert playground.prompts(playground.speaker(job.id)) == tried
    own = engine.store.create_job(engine.demo_recipe("piglatin", {"data": {"demo": "", "path": "mine.jsonl"}}))
    assert playground.prompts(replace(playground.speaker(job.id), job_id=own.id)) == []


def test_two_answer_at_once(engine: Engine, server: SayingServer):
    Runs(engine).done("Tutor")
    asking = ask(engine.playground, NANO, "Tutor", settings=Settings(temperature=0.5, top_p=0.9, max_tokens=7, seed=3))
    assert finished(asking) == ["echo: hello there"] * 2
    assert {answer.finish for answer in asking.answers} == {"stop"} and [answer.tokens for answer in asking.answers] == [3, 3]
    paths = {body["model"] for body in server.bodies}
    assert paths == {"nano", engine.models()[0].sampler_path}
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (0.5, 0.9, 7, 3)
    assert body["authorization"] == "Bearer secret" and body["messages"] == [{"role": "user", "content": "hello there"}]


def test_an_answer_grows_and_can_be_stopped(engine: Engine, server: SayingServer):
    server.go_on.clear()
    asking = ask(engine.playground, NANO)
    until(lambda: asking.answers[0].text == "echo:")
    began = time.monotonic()
    asking.close()
    assert time.monotonic() - began < 20
    assert (asking.answers[0].text, asking.answers[0].finish) == ("echo:", "stopped")
    assert server.gone.wait(30), "the server hears that nobody listens"
    asking.close()


def test_stopping_before_anything_was_said(engine: Engine, server: SayingServer):
    asking = ask(engine.playground, NANO)
    asking.close()
    assert asking.answers[0].finish in ("stopped", "stop") and asking.answers[0].error is None


def test_refusals_say_what_to_do(engine: Engine, server: SayingServer):
    server.refuse = 400, {"error": {"message": "the prompt fills the context", "code": "context_length_exceeded"}}
    with pytest.raises(StateError, match="Begin a new chat"):
        raise failure(ask(engine.playground, NANO))
    server.refuse = 404, {"error": {"message": "no such model"}}
    with pytest.raises(NotFound, match="files of this model are gone"):
        raise failure(ask(engine.playground, NANO))
    server.refuse = 500, {"nothing": "known"}
    with pytest.raises(EndpointError, match="the server answered 500"):
        raise failure(ask(engine.playground, NANO))
    server.refuse, server.break_off = None, True
    asking = ask(engine.playground, NANO)
    assert isinstance(failure(asking), EndpointError) and asking.answers[0].text == "echo: hello there", "what was said stays"


def test_a_server_that_went_is_started_anew(engine: Engine, server: SayingServer, monkeypatch: pytest.MonkeyPatch):
    assert finished(ask(engine.playground, NANO)) == ["echo: hello there"]
    other = SayingServer(lambda body: "here again")
    monkeypatch.setattr(endpoints, "start", lambda *_: other)
    server.close()  # it seems alive, as a server does that is ending just now
    assert finished(ask(engine.playground, NANO)) == ["here again"]
    other.lives = False
    third = SayingServer(lambda body: "and again")
    monkeypatch.setattr(endpoints, "start", lambda *_: third)
    assert finished(ask(engine.playground, NANO)) == ["and again"]
    other.close(), third.close()


def test_a_server_that_can_not_start(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    def start(*_: object):
        raise EndpointError("no room", "Make some.")

    monkeypatch.setattr(endpoints, "start", start)
    with pytest.raises(EndpointError, match="no room"):
        raise failure(ask(engine.playground, NANO))
    monkeypatch.setattr(endpoints, "start", lambda *_: 1 / 0)
    with pytest.raises(EndpointError, match="ZeroDivisionError"):
        raise failure(ask(engine.playground, NANO))


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "  "}], [{"role": "user", "content": "x" * 200_001}]])
def test_what_can_not_be_asked(engine: Engine, messages):
    playground = engine.playground
    with pytest.raises(StateError):
        playground.ask([playground.speaker(NANO)], [messages], Settings())


@pytest.mark.parametrize("wrong", [{"temperature": 3}, {"top_p": 0}, {"max_tokens": 0}, {"seed": -1}])
def test_settings_have_limits(wrong):
    with pytest.raises(StateError, match="has to be"):
        Settings(**wrong)
    assert Settings.read(wrong, Settings(seed=5)) == Settings(seed=5)
    assert Settings.read({"temperature": 1.0, "unheard of": 1}, Settings()).temperature == 1.0


def test_conversations_are_kept(engine: Engine, server: SayingServer):
    playground, settings = engine.playground, Settings(system_prompt="Be brief.", remember=True)
    who = [playground.speaker(NANO)]
    conversation = playground.begin("hello", who, settings)
    for prompt in ("hello", "and you?"):
        messages = playground.messages(playground.turns(conversation.id), 0, prompt, settings)
        asking = playground.ask(who, [messages], settings)
        finished(asking)
        playground.keep(conversation.id, prompt, asking.answers)
    with Engine() as later:
        again = later.playground
        kept = again.conversation(conversation.id)
        assert [one.id for one in again.conversations()] == [conversation.id]
        assert again.speakers_of(kept) == who and again.settings_of(kept, who) == settings
        turns = again.turns(conversation.id)
        assert [turn.answers[0]["text"] for turn in turns] == ["echo: hello", "echo: and you?"]
    said = [(message["role"], message["content"]) for message in server.bodies[1]["messages"]]
    assert said == [("system", "Be brief."), ("user", "hello"), ("assistant", "echo: hello"), ("user", "and you?")]
    assert playground.messages(turns, 0, "x", Settings(remember=False)) == [{"role": "user", "content": "x"}]
    assert playground.messages(turns, 1, "x", Settings()) == [{"role": "user", "content": "x"}], "it answered nothing so far"
    assert playground.take_back(conversation.id, turns[-1].id) == "and you?"
    assert playground.rename(conversation.id, "Greetings").title == "Greetings"
    with pytest.raises(StateError):
        playground.rename(conversation.id, "  ")
    playground.set_up(conversation.id, who * 2, settings)
    assert len(playground.speakers_of(playground.conversation(conversation.id))) == 2
    playground.delete(conversation.id)
    assert playground.conversations() == []


def test_what_suits_a_speaker(engine: Engine):
    nano = engine.playground.speaker(NANO)
    other = Speaker("base:big", "big", "base", "big")
    assert not engine.playground.settings_of(None, [nano]).remember
    assert engine.playground.settings_of(None, [other]).remember and not engine.playground.settings_of(None, [other, nano]).remember


def test_what_is_somebody_elses_is_not_there(engine: Engine):
    job = Runs(engine).done("Tutor")
    model, playground = engine.models()[0], engine.playground
    conversation = playground.begin("secret", [playground.speaker(NANO)], Settings())
    turn = playground.keep(conversation.id, "secret", [])
    with Engine(owner="somebody else") as other:
        theirs = other.playground
        assert theirs.conversations() == [] and [speaker.ref for speaker in theirs.speakers()] == [NANO]
        for refused in (
            lambda: theirs.conversation(conversation.id),
            lambda: theirs.turns(conversation.id),
            lambda: theirs.keep(conversation.id, "mine", []),
            lambda: theirs.take_back(conversation.id, turn.id),
            lambda: theirs.set_up(conversation.id, [], Settings()),
            lambda: theirs.rename(conversation.id, "mine"),
            lambda: theirs.delete(conversation.id),
            *(lambda ref=ref: theirs.speaker(ref) for ref in (model.id, model.name, job.id, f"{job.id}@100")),
        ):
            with pytest.raises(NotFound):
                refused()
    assert playground.turns(conversation.id)[0].prompt == "secret"


def test_probabilities_are_those_of_the_answer_alone(engine: Engine, server: SayingServer):
    playground = engine.playground
    nano = playground.speaker(NANO)
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]
    tokens = playground.probabilities(nano, messages, "ab", top=2)
    body = server.bodies[-1]
    assert (body["max_tokens"], body["echo"], body["logprobs"]) == (0, True, 2)
    assert [token.text for token in tokens] == [str(token) for token in body["prompt"][-len(tokens) :]]
    assert 2 <= len(tokens) < len(body["prompt"]) / 2
    assert tokens[0].probability == pytest.approx(0.5) and [chance for _, chance in tokens[0].best] == pytest.approx([0.5, 0.5])
    server.refuse = 400, {"error": {"message": "too long", "code": "context_length_exceeded"}}
    with pytest.raises(StateError):
        playground.probabilities(nano, messages, "ab")


@pytest.mark.slow
def test_with_the_real_server(engine: Engine, thinker_home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    playground = engine.playground
    try:
        asking = ask(playground, NANO, prompt="Echo hello")
        stages = set()
        for _ in asking.updates(0.02):
            stages.add(asking.answers[0].stage)
        answer = asking.answers[0]
        assert answer.error is None and answer.finish == "stop" and answer.text == "hello" and answer.tokens > 1
        assert "loading model weights" in stages
        tokens = playground.probabilities(playground.speaker(NANO), [{"role": "user", "content": "Echo hello"}], answer.text)
        assert "".join(token.text for token in tokens).startswith("hello")
        assert all(0 < token.probability <= 1 and token.best[0][1] >= token.probability - 1e-6 for token in tokens)
        assert len(server_records(thinker_home)) == 1, "one server for all of it"
        assert isinstance(failure(ask(playground, NANO, prompt="word " * 6000)), StateError)
    finally:
        end_processes(thinker_home)


def test_an_answer_is_kept_whether_anybody_looks_or_not(engine: Engine, server: SayingServer):
    playground = engine.playground
    conversation = playground.begin("hello there", [playground.speaker(NANO)], Settings())
    server.go_on.clear()
    exchange = playground.exchange(conversation.id, "hello there", ask(playground, NANO))
    assert playground.under_way(conversation.id) is exchange
    server.go_on.set()
    (turn,) = until(lambda: playground.turns(conversation.id))
    assert turn.answers[0]["text"] == "echo: hello there"
    exchange.settle()
    assert len(playground.turns(conversation.id)) == 1, "kept once"
    until(lambda: playground.under_way(conversation.id) is None)


def test_settling_ends_an_answer_and_a_conversation_may_be_gone_by_then(engine: Engine, server: SayingServer):
    playground = engine.playground
    conversation = playground.begin("hello there", [playground.speaker(NANO)], Settings())
    server.go_on.clear()
    asking = ask(playground, NANO)
    exchange = playground.exchange(conversation.id, "hello there", asking)
    until(lambda: asking.answers[0].text)
    exchange.settle()
    assert playground.turns(conversation.id)[0].answers[0]["finish"] == "stopped" and playground.under_way(conversation.id) is None
    second = playground.exchange(conversation.id, "hello there", ask(playground, NANO))
    playground.delete(conversation.id)
    with pytest.raises(NotFound):
        second.settle()
    with pytest.raises(NotFound):
        playground.under_way(conversation.id)
