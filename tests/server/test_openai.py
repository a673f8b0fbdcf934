"""OpenAI's API by its official client, against the real server; what it says is held against the Tinker wire's answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import httpx
import openai
import pytest
import tinker
from tinker import types

from engine.rendering import get_renderer, load_tokenizer
from tests.server.harness import KEY, NANO, RunningServer, batch, text_tokens
from tests.server.raw import Session, rows

REVERSE = [{"role": "user", "content": "Reverse: hello"}]
LONG = "import os\n"  # nano goes on from this until it is stopped


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def tuned(service: tinker.ServiceClient) -> str:
    """The path of a checkpoint that was trained a little, with another renderer than the base model's own."""
    training = service.create_lora_training_client(base_model="nano", rank=4, seed=3).result()
    training.forward_backward(batch(), "cross_entropy").result(timeout=60)
    training.optim_step(types.AdamParams(learning_rate=1e-2)).result(timeout=60)
    return training.save_weights_for_sampler("talk", user_metadata={"renderer": "role_colon"}).result(timeout=60).path


def chat(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "nano", "messages": REVERSE, "temperature": 0, "max_tokens": 40, **more})


def streamed(chunks: Any) -> dict[int, str]:
    """Text by choice."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            said = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (said or "")
    return texts


def sampled(service: tinker.ServiceClient, prompt: list[int], **params: Any) -> types.SampledSequence:
    """One greedy answer over the Tinker wire."""
    path = params.pop("model_path", None)
    sampler = (service.create_sampling_client(model_path=path) if path else service.create_sampling_client(base_model="nano")).result()
    wanted = types.SamplingParams(**{"temperature": 0.0, "max_tokens": 40, **params})
    return sampler.sample(types.ModelInput.from_ints(prompt), num_samples=1, sampling_params=wanted).result(timeout=60).sequences[0]


class TestModels:
    def test_base_and_checkpoints(self, client: openai.OpenAI, tuned: str) -> None:
        listed = {model.id: model for model in client.models.list()}
        assert {"nano", tuned} <= listed.keys() and not [name for name in listed if "/weights/" in name]
        assert listed[tuned].created >= time.time() - 600 and listed[tuned].owned_by
        assert [client.models.retrieve(name).id for name in ("nano", tuned)] == ["nano", tuned]

    def test_an_unknown_one(self, client: openai.OpenAI, tuned: str) -> None:
        for name in ("gpt-4o", tuned + "x", "tinker://run/sampler_weights/../x", "tinker://"):
            with pytest.raises(openai.NotFoundError) as caught:
                client.models.retrieve(name)
            assert caught.value.code == "model_not_found" and caught.value.param == "model"
            with pytest.raises(openai.NotFoundError):
                chat(client, model=name)


class TestChat:
    def test_greedy_is_what_the_tinker_wire_gives(self, client: openai.OpenAI, service: tinker.ServiceClient) -> None:
        renderer = get_renderer("auto", load_tokenizer(NANO))
        prompt = renderer.prompt(REVERSE)
        wire = sampled(service, prompt)
        reply = chat(client)
        assert reply.choices[0].message.content == renderer.text(wire.tokens) and reply.choices[0].message.role == "assistant"
        assert (reply.model, reply.object, reply.choices[0].finish_reason) == ("nano", "chat.completion", "stop")
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(prompt), len(wire.tokens))
        assert reply.usage.total_tokens == len(prompt) + len(wire.tokens)

    def test_a_checkpoint_is_asked_in_the_form_it_was_trained_with(
        self, client: openai.OpenAI, service: tinker.ServiceClient, tuned: str
    ) -> None:
        renderer = get_renderer("role_colon", load_tokenizer(NANO))
        prompt = renderer.prompt(REVERSE)
        wire = sampled(service, prompt, model_path=tuned, stop=renderer.stop_strings)
        reply = chat(client, model=tuned)
        assert reply.usage.prompt_tokens == len(prompt) != len(get_renderer("auto", load_tokenizer(NANO)).prompt(REVERSE))
        assert reply.choices[0].message.content == renderer.text(wire.tokens)
        assert streamed(chat(client, model=tuned, stream=True)) == {0: renderer.text(wire.tokens)}

    def test_a_checkpoint_is_told_what_it_was_told_in_training(self, client: openai.OpenAI, service: tinker.ServiceClient) -> None:
        training = service.create_lora_training_client(base_model="nano", rank=2).result()
        path = training.save_weights_for_sampler("told", user_metadata={"system_prompt": "Be loud."}).result(timeout=60).path
        own = [{"role": "system", "content": "Be kind and brief."}, *REVERSE]
        told = chat(client, model=path)
        assert told.usage == chat(client, messages=[{"role": "system", "content": "Be loud."}, *REVERSE]).usage
        assert told.usage.prompt_tokens > chat(client).usage.prompt_tokens
        assert chat(client, model=path, messages=own).usage.prompt_tokens == chat(client, messages=own).usage.prompt_tokens

    def test_roles_and_parts(self, client: openai.OpenAI) -> None:
        parts = [{"type": "text", "text": "Reverse: "}, {"type": "text", "text": "hello"}]
        before = chat(client)
        assert chat(client, messages=[{"role": "user", "content": parts}]).choices == before.choices
        ahead = [*REVERSE, before.choices[0].message, {"role": "user", "content": "Hi"}]
        again = chat(client, messages=ahead)
        assert again.usage.prompt_tokens > before.usage.prompt_tokens
        system, developer = ([{"role": role, "content": "Be kind."}, *REVERSE] for role in ("system", "developer"))
        assert chat(client, messages=system).usage == chat(client, messages=developer).usage

    def test_length(self, client: openai.OpenAI) -> None:
        for name in ("max_tokens", "max_completion_tokens"):
            reply = chat(client, **{"max_tokens": None, name: 2})
            assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 2)

    def test_seed_and_n(self, client: openai.OpenAI) -> None:
        # Something that can be answered in many ways.
        story = [{"role": "user", "content": "Tell me a story"}]

        def said(seed: int | None) -> list[str]:
            return [choice.message.content for choice in chat(client, messages=story, temperature=1.5, n=4, seed=seed).choices]

        first = said(5)
        assert len(set(first)) > 1 and said(5) == first != said(6)
        assert said(None) != said(None)
        assert streamed(chat(client, messages=story, temperature=1.5, n=4, seed=5, stream=True)) == dict(enumerate(first))

    def test_top_p_and_top_k(self, client: openai.OpenAI) -> None:
        greedy = chat(client).choices[0].message.content
        assert chat(client, temperature=2.0, top_p=1e-6).choices[0].message.content == greedy
        assert chat(client, temperature=2.0, extra_body={"top_k": 1}).choices[0].message.content == greedy


class TestStop:
    @pytest.mark.parametrize("stream", [False, True])
    def test_the_stop_string_and_what_follows_stay_away(self, client: openai.OpenAI, stream: bool) -> None:
        whole = client.completions.create(model="nano", prompt=LONG, max_tokens=60, temperature=0).choices[0].text
        for stop in (whole[20:24], [whole[30:31], "not there at all"], [whole[10:25], whole[20:24]]):
            first = min(found for one in ([stop] if isinstance(stop, str) else stop) if (found := whole.find(one)) >= 0)
            reply = client.completions.create(model="nano", prompt=LONG, max_tokens=60, temperature=0, stop=stop, stream=stream)
            if stream:
                chunks = list(reply)
                assert streamed(chunks) == {0: whole[:first]} and chunks[-1].choices[0].finish_reason == "stop"
            else:
                assert (reply.choices[0].text, reply.choices[0].finish_reason) == (whole[:first], "stop")
                assert reply.usage.completion_tokens < 60


class TestStreaming:
    def test_what_travels(self, server: RunningServer) -> None:
        body = {"model": "nano", "messages": REVERSE, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=bearer(), trust_env=False) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in reply.iter_lines() if line]
        assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert len({event["id"] for event in events}) == 1 and {event["object"] for event in events} == {"chat.completion.chunk"}
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * (len(events) - 2) + ["stop"]
        assert all(event["usage"] is None for event in events[:-1]) and events[-1]["choices"] == []
        assert events[-1]["usage"]["completion_tokens"] == len(events) - 2, "a token an event, and the end mark's"

    def test_usage_only_on_request(self, client: openai.OpenAI) -> None:
        chunks = list(chat(client, stream=True))
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)

    def test_tokens_come_while_more_are_written(self, client: openai.OpenAI) -> None:
        began, times = time.monotonic(), []
        for _ in client.completions.create(model="nano", prompt=LONG, max_tokens=150, temperature=0, stream=True):
            times.append(time.monotonic() - began)
        assert len(times) > 100 and times[0] < times[-1] / 4

    def test_any_bytes_are_the_same_text_as_without(self, client: openai.OpenAI) -> None:
        wild = {"model": "nano", "prompt": "é€😀", "max_tokens": 60, "temperature": 8.0, "seed": 1, "n": 8}
        plain = client.completions.create(**wild)
        texts = {choice.index: choice.text for choice in plain.choices}
        assert any("\ufffd" in text for text in texts.values()) and any(ord(c) > 127 and c != "\ufffd" for c in "".join(texts.values()))
        assert streamed(client.completions.create(**wild, stream=True)) == texts


class TestLogprobs:
    def test_of_a_chat(self, client: openai.OpenAI, service: tinker.ServiceClient) -> None:
        wire = sampled(service, get_renderer("auto", load_tokenizer(NANO)).prompt(REVERSE))
        expected = list(wire.logprobs)[:-1]  # the end mark isn't shown
        for top in (None, 3):
            reply = chat(client, logprobs=True, top_logprobs=top)
            content = reply.choices[0].logprobs.content
            assert [one.logprob for one in content] == pytest.approx(expected, abs=1e-4)
            assert "".join(one.token for one in content) == reply.choices[0].message.content
            assert bytes(byte for one in content for byte in one.bytes).decode() == reply.choices[0].message.content
            for one in content:
                assert len(one.top_logprobs) == (top or 0)
                assert not top or (one.top_logprobs[0].token, one.top_logprobs[0].logprob) == (one.token, one.logprob), "greedy"
                assert [best.logprob for best in one.top_logprobs] == sorted((best.logprob for best in one.top_logprobs), reverse=True)
            chunks = list(chat(client, logprobs=True, top_logprobs=top, stream=True))
            parts = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
            assert [(one.token, len(one.top_logprobs)) for one in parts] == [(one.token, top or 0) for one in content]
            assert [one.logprob for one in parts] == pytest.approx(expected, abs=1e-4)

    def test_none_of_what_a_stop_string_took_away(self, client: openai.OpenAI) -> None:
        said = chat(client).choices[0].message.content
        reply = chat(client, logprobs=True, stop=said[2:4])
        assert "".join(one.token for one in reply.choices[0].logprobs.content) == said[:2] == reply.choices[0].message.content

    def test_of_an_echoed_prompt(self, client: openai.OpenAI, service: tinker.ServiceClient) -> None:
        text = "def caf\u00e9(self):"
        tokens = text_tokens(text)
        sampler = service.create_sampling_client(base_model="nano").result()
        expected = sampler.compute_logprobs(types.ModelInput.from_ints(tokens)).result(timeout=60)
        for max_tokens in (0, 5):
            reply = client.completions.create(model="nano", prompt=text, max_tokens=max_tokens, echo=True, logprobs=2, temperature=0)
            found, shown = reply.choices[0].logprobs, reply.choices[0].text
            assert shown.startswith(text) and reply.usage.completion_tokens == max_tokens == len(found.tokens) - len(tokens)
            assert found.token_logprobs[0] is None and found.top_logprobs[0] is None and expected[0] is None
            assert found.token_logprobs[1 : len(tokens)] == pytest.approx(expected[1:], abs=1e-4)
            assert all(2 <= len(best) <= 3 and token in best for best, token in zip(found.top_logprobs[1:], found.tokens[1:], strict=True))
            places = dict(zip(found.text_offset, found.tokens, strict=True))
            assert all(shown[place] == token for place, token in places.items() if not token.startswith("bytes:"))
            assert found.tokens[7:9] == ["bytes:\\xc3", "bytes:\\xa9"] and found.text_offset[7:10] == [7, 7, 8]


class TestCompletions:
    def test_prompts_of_every_kind(self, client: openai.OpenAI, service: tinker.ServiceClient) -> None:
        wire = sampled(service, text_tokens(LONG), max_tokens=16)
        said = load_tokenizer(NANO).decode(wire.tokens)
        for prompt in (LONG, [LONG], text_tokens(LONG), [text_tokens(LONG)]):
            reply = client.completions.create(model="nano", prompt=prompt, temperature=0)
            assert (reply.choices[0].text, reply.choices[0].finish_reason) == (said, "length"), "16 tokens unless told otherwise"
        assert client.completions.create(model="nano", prompt=text_tokens(LONG), temperature=0, echo=True).choices[0].text == LONG + said

    def test_several_prompts(self, client: openai.OpenAI) -> None:
        alone = [client.completions.create(model="nano", prompt=prompt, temperature=0).choices[0].text for prompt in (LONG, "def f(")]
        reply = client.completions.create(model="nano", prompt=[LONG, "def f("], temperature=0, n=2, echo=True)
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        texts = [LONG + alone[0]] * 2 + ["def f(" + alone[1]] * 2
        assert [choice.text for choice in reply.choices] == texts and reply.usage.completion_tokens == 64
        chunks = client.completions.create(model="nano", prompt=[LONG, "def f("], temperature=0, n=2, echo=True, stream=True)
        assert streamed(chunks) == dict(enumerate(texts))


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    "a tool's answer": ({"messages": [*REVERSE, {"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages.1"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages.0.content.0"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    "a role that is no word": ({"messages": [{"role": {"value": "user"}, "content": "x"}]}, "messages.0.role"),
    "no text": ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    "no messages": ({"messages": []}, "messages"),
    "a penalty": ({"presence_penalty": 0.5}, "presence_penalty"),
    "a bias": ({"logit_bias": {"5": 100}}, "logit_bias"),
    "JSON mode": ({"response_format": {"type": "json_object"}}, "response_format"),
    "a negative temperature": ({"temperature": -1}, "temperature"),
    "top_p 0": ({"top_p": 0}, "top_p"),
    "top_p above 1": ({"top_p": 1.5}, "top_p"),
    "top_k 0": ({"extra_body": {"top_k": 0}}, "top_k"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "fewer than none": ({"max_tokens": -1}, "max_tokens"),
    "too many choices": ({"n": 129}, "n"),
    "top without logprobs": ({"top_logprobs": 2}, "top_logprobs"),
    "too many at the top": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "an empty stop string": ({"stop": ["a", ""]}, "stop"),
    "a seed that is no number": ({"seed": "x"}, "seed"),
    "a misspelt parameter": ({"extra_body": {"temprature": 1}}, "temprature"),
    "a prompt beyond the context": ({"messages": [{"role": "user", "content": "a" * 2000}]}, "messages"),
}


class TestMistakes:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_are_named(self, client: openai.OpenAI, mistake: str, stream: bool) -> None:
        more, param = MISTAKES[mistake]
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, stream=stream, **more)
        assert caught.value.param == param and caught.value.type == "invalid_request_error", caught.value.body
        assert len(caught.value.body["message"]) > 10
        assert (caught.value.code == "context_length_exceeded") == ("context" in mistake)

    def test_in_completions(self, client: openai.OpenAI) -> None:
        wrong: list[dict[str, Any]] = [{"prompt": ""}, {"prompt": []}, {"prompt": [10**6]}, {"prompt": [[5], []]}, {"suffix": "x"}]
        wrong += [{"best_of": 3}, {"max_tokens": 0}, {"prompt": "a" * 1024}, {"logprobs": 21}, {"prompt": ["x"] * 9, "n": 128}]
        for more in wrong:
            with pytest.raises(openai.BadRequestError):
                client.completions.create(**{"model": "nano", "prompt": "x", **more})

    def test_a_checkpoint_for_training_on(self, client: openai.OpenAI, session: Session) -> None:
        path = session.result(session.save(session.model(), 1, "w").json()["request_id"])["path"]
        with pytest.raises(openai.BadRequestError, match="save_weights_for_sampler"):
            chat(client, model=path)

    def test_a_renderer_that_is_not_known(self, client: openai.OpenAI, session: Session) -> None:
        body = {"model_id": session.model(), "seq_id": 1, "path": "odd", "user_metadata": {"renderer": "klingon"}}
        path = session.result(session.ok("save_weights_for_sampler", body)["request_id"])["path"]
        with pytest.raises(openai.BadRequestError, match="klingon"):
            chat(client, model=path)
        assert client.completions.create(model=path, prompt="x", max_tokens=2).usage.completion_tokens <= 2

    def test_bodies(self, server: RunningServer) -> None:
        bodies = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"model": 5}', b'{"model": "nano"}', b'{"n": 1e999}']
        for path, body in product(("chat/completions", "completions"), bodies):
            reply = httpx.post(f"{server.url}/v1/{path}", content=body, headers=bearer(), trust_env=False)
            assert reply.status_code == 400 and reply.json()["error"]["message"], reply.text

    def test_not_without_the_key(self, server: RunningServer) -> None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="tml-another", max_retries=0) as stranger:
            for call in (stranger.models.list, lambda: chat(stranger), lambda: stranger.completions.create(model="nano", prompt="x")):
                with pytest.raises(openai.AuthenticationError, match="key is missing or wrong"):
                    call()

    def test_what_is_not_there(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="isn't offered"):
            client.embeddings.create(model="nano", input="x")
        with pytest.raises(openai.NotFoundError, match="isn't offered"):
            client.responses.create(model="nano", input="x")


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


class TestManyAtOnce:
    def test_eight_chats(self, client: openai.OpenAI, tuned: str) -> None:
        asked = [[{"role": "user", "content": f"Reverse: {word}"}] for word in ("hello", "stream", "apple", "quiet")]
        wanted = [(model, messages) for model in ("nano", tuned) for messages in asked]
        alone = [chat(client, model=model, messages=messages).choices[0].message.content for model, messages in wanted]

        def ask(number: int) -> str:
            model, messages = wanted[number]
            if number % 2:
                return streamed(chat(client, model=model, messages=messages, stream=True))[0]
            return chat(client, model=model, messages=messages).choices[0].message.content

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == alone

    def test_a_chat_while_a_run_trains(self, client: openai.OpenAI, session: Session) -> None:
        model_id, steps, enough = session.model(), 0, threading.Event()

        def train() -> None:
            nonlocal steps
            while not enough.is_set():
                session.loss(session.train(model_id, 2 * steps + 1, rows()))
                session.result(session.step(model_id, 2 * steps + 2))
                steps += 1

        thread = threading.Thread(target=train)
        thread.start()
        try:
            wait_until(lambda: steps > 0)
            before, told = steps, [chat(client).choices[0].message.content for _ in range(3)]
            assert len(set(told)) == 1
            wait_until(lambda: steps > before)
        finally:
            enough.set()
            thread.join()
        assert chat(client).choices[0].message.content == told[0], "the base is untouched"


class TestHangingUp:
    """128 answers of up to 1,000 tokens would keep the model busy for a long time."""

    BODY = {"model": "nano", "prompt": LONG, "max_tokens": 1000, "temperature": 1.0, "n": 128, "seed": 3}

    def hang_up(self, server: RunningServer, stream: bool) -> None:
        with httpx.Client(headers=bearer(), trust_env=False) as http:
            if stream:
                with http.stream("POST", f"{server.url}/v1/completions", json={**self.BODY, "stream": True}) as reply:
                    next(reply.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post(f"{server.url}/v1/completions", json=self.BODY, timeout=0.5)

    @pytest.mark.parametrize("stream", [True, False])
    def test_ends_the_sampling(self, server: RunningServer, client: openai.OpenAI, stream: bool) -> None:
        self.hang_up(server, stream)
        began = time.monotonic()
        assert chat(client).choices[0].finish_reason == "stop"
        assert time.monotonic() - began < 3

    def test_before_its_turn_comes(self, server: RunningServer, client: openai.OpenAI) -> None:
        threads = [threading.Thread(target=self.hang_up, args=(server, False)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        began = time.monotonic()
        assert chat(client).choices[0].finish_reason == "stop"
        assert time.monotonic() - began < 3


def wait_until(true: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
