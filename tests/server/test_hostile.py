"""Requests that no honest client sends, and memory that really runs out: a clear answer, the server alive, other runs unharmed."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tinker
from safetensors.torch import load_file, save_file
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from tests.server.alone import Alone, Clock
from tests.server.harness import RunningServer, batch
from tests.server.raw import ADAM, Session, datum, dense, rows

MANY = 10_000_000
LINEAR = types.AdamParams(learning_rate=3e-3, eps=1e-8)


class Bystander:
    """Another client, who asks for the time of day while something else goes on."""

    def __init__(self, server: RunningServer):
        self.slowest = 0.0
        self._server, self._done = server, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        with self._server.http() as http:
            while not self._done.is_set():
                started = time.monotonic()
                assert http.get("healthz").status_code == 200
                self.slowest = max(self.slowest, time.monotonic() - started)
                time.sleep(0.01)


@pytest.mark.slow
class TestTenMillion:
    def test_tokens_in_a_datum(self, server: RunningServer, session: Session) -> None:
        message = pb.Datum()
        message.model_input.add().encoded_text.tokens = np.full(MANY, 9, "<i4").tobytes()
        dense(message, "target_tokens", np.full(MANY, 9, "<i8"))
        dense(message, "weights", np.ones(MANY, "<f4"))
        model_id = session.model()
        with Bystander(server) as other:
            reply = session.train(model_id, 1, [message])
        assert reply.status_code == 400 and "10,000,000 tokens are more than" in reply.json()["detail"]
        assert other.slowest < 10
        assert session.loss(session.train(model_id, 2, rows())) > 0

    def test_tokens_in_a_prompt(self, session: Session) -> None:
        sampler = session.sampler()
        reply = session.post("asample", session.sample_body(sampler, 1, [9] * MANY))
        assert reply.status_code == 400 and "context of 1,024" in reply.json()["detail"]
        found = session.retrieve(session.ok("asample", session.sample_body(sampler, 2, [9]))["request_id"])
        assert found.headers["content-type"] == "application/x-protobuf"

    @pytest.mark.parametrize("route", ["chat/completions", "completions"])
    def test_characters_for_openais_api(self, server: RunningServer, session: Session, route: str) -> None:
        """No tokens are made of them, which would hold up everybody for half a minute."""
        asked = {"messages": [{"role": "user", "content": "word " * (MANY // 5)}]} if "chat" in route else {"prompt": "word " * (MANY // 5)}
        with Bystander(server) as other:
            started = time.monotonic()
            reply = session.http.post(f"{server.url}/v1/{route}", json={"model": "nano", "max_tokens": 3, **asked})
        assert reply.status_code == 400 and reply.json()["error"]["code"] == "context_length_exceeded"
        assert time.monotonic() - started < 20 and other.slowest < 10


@pytest.mark.slow
def test_many_rows_are_trained_on(server: RunningServer, session: Session) -> None:
    """Ten thousand: a long request, during which others are answered."""
    model_id, data = session.model(), [datum([5, 6, 7])] * 10_000
    one = session.loss(session.train(model_id, 1, data[:1]))
    with Bystander(server) as other:
        reply = session.train(model_id, 2, data)
    assert other.slowest < 10
    session.http.timeout = httpx.Timeout(60)
    deadline = time.monotonic() + 60
    while (found := session.retrieve(reply.json()["request_id"])).status_code == 408:
        assert time.monotonic() < deadline
    message = pb.ForwardBackwardOutput()
    message.ParseFromString(found.content)
    assert message.metrics["loss:sum"] == pytest.approx(one * 10_000, rel=1e-3)


def raw_json(path: str, text: str) -> Callable[[Session], httpx.Response]:
    return lambda session: session.http.post(path, content=text)


def sampling(**params: object) -> Callable[[Session], httpx.Response]:
    def send(session: Session) -> httpx.Response:
        prompt = params.pop("prompt", [9]) if "prompt" in params else [9]
        n = params.get("n", 1)
        body = session.sample_body(session.sampler(), 1, prompt, n=n, **{name: v for name, v in params.items() if name != "n"})
        return session.http.post("asample", content=json.dumps(body))

    return send


def model(**lora: object) -> Callable[[Session], httpx.Response]:
    return lambda session: session.post("create_model", session.model_body(**lora))


def step(rate: str) -> Callable[[Session], httpx.Response]:
    def send(session: Session) -> httpx.Response:
        text = f'{{"model_id": "{session.model()}", "seq_id": 1, "adam_params": {{"learning_rate": {rate}}}}}'
        return session.http.post("optim_step", content=text)

    return send


ABSURD = {
    "lists in lists": raw_json("asample", "[" * 200_000),
    "objects in objects": raw_json("create_session", '{"user_metadata":' + '{"a":' * 100_000 + "1" + "}" * 100_001),
    "groups in groups": raw_json("forward_backward", "\x0b" * 100_000),
    "no answer wanted": sampling(max_tokens=0),
    "less than none": sampling(max_tokens=-5),
    "no samples": sampling(n=0),
    "a billion samples": sampling(n=10**9),
    "more samples than a number holds": sampling(n=10**40),
    "a temperature that isn't one": sampling(temperature=float("nan")),
    "an endless temperature": sampling(temperature=float("inf")),
    "top_p that isn't a number": sampling(top_p=float("nan")),
    "a token beyond all": sampling(prompt=[2**70]),
    "rank 0": model(rank=0),
    "rank 2^62": model(rank=2**62),
    "rank -1": model(rank=-1),
    "a seed beyond all": model(seed=2**80),
    "a learning rate that isn't a number": step("NaN"),
    "an endless learning rate": step("1e400"),
    "a learning rate beyond float32": step("1e39"),
    "a learning rate below 0": step("-1"),
}


@pytest.mark.parametrize("request_name", ABSURD)
def test_absurd_requests_are_answered_at_once(session: Session, request_name: str) -> None:
    started = time.monotonic()
    reply = ABSURD[request_name](session)
    assert 400 <= reply.status_code < 500 and reply.status_code not in (408, 409, 429), reply.text
    assert reply.json()["detail"] and time.monotonic() - started < 20
    assert session.loss(session.train(session.model(), 1, rows())) > 0


@pytest.mark.parametrize("params", [{"max_tokens": 2**62}, {"max_tokens": 10**30}, {"top_k": 2**70}, {"seed": 2**80}])
def test_large_but_lawful(session: Session, params: dict[str, int]) -> None:
    found = session.retrieve(session.ok("asample", session.sample_body(session.sampler(), 1, [9], **params))["request_id"])
    assert found.headers["content-type"] == "application/x-protobuf", found.text


@pytest.mark.filterwarnings("ignore:DEPRECATED")
class TestARunThatDiverges:
    @pytest.fixture
    def runs(self, service: tinker.ServiceClient) -> list[tinker.TrainingClient]:
        return [service.create_lora_training_client(base_model="nano", rank=4, seed=seed).result() for seed in (1, 2)]

    def test_it_hears_of_it_and_nobody_else_does(self, service: tinker.ServiceClient, runs: list[tinker.TrainingClient]) -> None:
        good, alone = runs[0], service.create_lora_training_client(base_model="nano", rank=4, seed=1).result()
        bad = runs[1]
        for at in range(3):
            bad.forward_backward(batch(at), "cross_entropy")
            future = bad.optim_step(types.AdamParams(learning_rate=1e30))
            for client in (good, alone) if at else (good,):
                client.forward_backward(batch(at), "cross_entropy").result(timeout=60)
                client.optim_step(LINEAR).result(timeout=60)
            try:
                future.result(timeout=60)
            except tinker.RequestFailedError as error:
                assert "no gradients" in str(error)
        with pytest.raises(tinker.RequestFailedError, match="isn't finite"):
            bad.forward_backward(batch(3), "cross_entropy").result(timeout=60)
        with pytest.raises(tinker.RequestFailedError, match="isn't a number"):
            sampler = bad.save_weights_and_get_sampling_client().result(timeout=60)
            sampler.sample(types.ModelInput.from_ints([9]), 1, types.SamplingParams(max_tokens=3)).result(timeout=60)

    def test_the_others_numbers_are_the_same(self, service: tinker.ServiceClient) -> None:
        def train(disturbed: bool) -> list[float]:
            client = service.create_lora_training_client(base_model="nano", rank=4, seed=1).result()
            bad = service.create_lora_training_client(base_model="nano", rank=4, seed=2).result()
            losses = []
            for at in range(4):
                if disturbed:
                    bad.forward_backward(batch(at), "cross_entropy")
                    bad.optim_step(types.AdamParams(learning_rate=1e30))
                losses.append(client.forward_backward(batch(at), "cross_entropy").result(timeout=60).metrics["loss:sum"])
                client.optim_step(LINEAR).result(timeout=60)
            return losses

        assert train(disturbed=True) == train(disturbed=False)

    def test_what_is_no_number_is_not_saved(self, server: RunningServer, runs: list[tinker.TrainingClient]) -> None:
        bad = runs[0]
        saved, spoilt = (bad.save_state(name).result(timeout=60).path for name in ("before", "spoilt"))
        file = server.checkpoint_folder(spoilt) / "adapter_model.safetensors"
        tensors = load_file(file)
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(tinker.RequestFailedError, match="it isn't what was saved"):
            bad.load_state(spoilt).result(timeout=60)
        # As one would be that was saved so.
        about = json.loads((file.parent / "checkpoint.json").read_text())
        (file.parent / "checkpoint.json").write_text(json.dumps(about | {"digests": {}}))
        bad.load_state(spoilt).result(timeout=60)
        for save in (bad.save_state, bad.save_weights_for_sampler):
            with pytest.raises(tinker.RequestFailedError, match="NaN or infinity"):
                save("after").result(timeout=60)
        bad.load_state(saved).result(timeout=60)
        assert bad.forward_backward(batch(), "cross_entropy").result(timeout=60).metrics["loss:sum"] > 0


def test_a_checkpoint_whose_time_ran_out_and_that_was_saved_anew(alone: Alone) -> None:
    """Sampled from before and after: what is sampled is the one that is there."""

    async def story(client: httpx.AsyncClient, service: object, clock: Clock) -> None:
        from tests.server.raw import training_body

        model_id = await alone.model(client)
        session_id = model_id.split(":")[0]

        async def result(reply: httpx.Response) -> httpx.Response:
            assert reply.status_code == 200, reply.text
            return await client.post("retrieve_future", json={"request_id": reply.json()["request_id"]})

        async def sampled(seq: int) -> float:
            opened = {"session_id": session_id, "sampling_session_seq_id": seq, "model_path": path}
            sampler = (await client.post("create_sampling_session", json=opened)).json()["sampling_session_id"]
            body = {"sampling_session_id": sampler, "seq_id": 1, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [9, 10, 11]}]}}
            body |= {"num_samples": 1, "sampling_params": {"max_tokens": 1}, "prompt_logprobs": True}
            message = pb.SampleResponse()
            message.ParseFromString((await result(await client.post("asample", json=body))).content)
            return float(np.frombuffer(message.prompt_logprobs, "<f4")[1:].sum())

        save = {"model_id": model_id, "path": "w", "ttl_seconds": 3600}
        path = (await result(await client.post("save_weights_for_sampler", json={**save, "seq_id": 1}))).json()["path"]
        first = await sampled(1)
        await result(await client.post("forward_backward", content=training_body(model_id, 2, rows())))
        await result(
            await client.post("optim_step", json={"model_id": model_id, "seq_id": 3, "adam_params": {**ADAM, "learning_rate": 0.1}})
        )
        [file] = service.store.root.glob("*/sampler_weights/w/checkpoint.json")
        info = json.loads(file.read_text())
        file.write_text(json.dumps({**info, "expires_at": time.time() - 1}))
        await result(await client.post("save_weights_for_sampler", json={**save, "seq_id": 4}))
        assert abs(await sampled(2) - first) > 0.1

    alone.play(story)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits another process's memory while it runs")
class TestMemoryThatReallyRunsOut:
    """The address space of a real server is limited while it runs, so that allocations fail as they do on a full machine."""

    @pytest.fixture
    def tight(self, tmp_path: Path) -> Iterator[RunningServer]:
        # It is told that there is plenty, or it would see the limit and take no more than there is.
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nif 'engine.server' in sys.orig_argv:\n"
            "    from engine import system\n    system.free_memory = lambda device: 2**40\n"
        )
        from tests.server.harness import ROOT

        running = RunningServer(tmp_path / "server", "--threads", "1", env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "MALLOC_ARENA_MAX": "1"})
        yield running
        running.stop()

    @staticmethod
    def leave(server: RunningServer, mebibytes: float | None) -> None:
        import resource

        used = psutil.Process(server.process.pid).memory_info().vms
        limit = resource.RLIM_INFINITY if mebibytes is None else used + int(mebibytes * 2**20)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    @pytest.mark.parametrize("room", [300])
    def test_in_training(self, tight: RunningServer, room: int) -> None:
        """Half the room a batch needs, then a small part: the same loss and the same next loss as with plenty."""
        with _closing(tight.client()) as service:
            clients = [service.create_lora_training_client(base_model="nano", rank=4, seed=1).result() for _ in range(2)]
            long = batch(0, 12) * 25
            results = []
            for client, mebibytes in zip(clients, (room, None), strict=True):
                client.forward_backward(batch(), "cross_entropy").result(timeout=60)
                client.optim_step(LINEAR).result(timeout=60)
                self.leave(tight, mebibytes)
                first = client.forward_backward(long, "cross_entropy").result(timeout=120).metrics
                self.leave(tight, None)
                client.optim_step(LINEAR).result(timeout=60)
                results.append((first, client.forward_backward(batch(), "cross_entropy").result(timeout=60).metrics["loss:sum"]))
            (scarce, after_scarce), (plenty, after) = results
            assert scarce["tokens_at_once:max"] < 8192
            assert scarce["loss:sum"] == pytest.approx(plenty["loss:sum"], rel=1e-5)
            assert after_scarce == pytest.approx(after, rel=1e-4)
        assert "the memory ran out at" in tight.log.read_text()

    def test_in_sampling(self, tight: RunningServer) -> None:
        with _closing(tight.client()) as service:
            sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
            params = types.SamplingParams(max_tokens=400, temperature=1.0, seed=3, stop=[])
            prompt = types.ModelInput.from_ints([9] * 30)
            few = sampler.sample(prompt, 2, params).result(timeout=60)
            self.leave(tight, 120)
            many = sampler.sample(prompt, 100, params).result(timeout=300)
            self.leave(tight, None)
            assert [list(s.tokens) for s in many.sequences[:2]] == [list(s.tokens) for s in few.sequences]
            assert len(many.sequences) == 100 and tight.process.poll() is None
        assert "the memory ran out while sampling" in tight.log.read_text()


@contextmanager
def _closing(client: tinker.ServiceClient) -> Iterator[tinker.ServiceClient]:
    yield client
    client.close("success").result(timeout=20)
