"""Full fine-tuning: the same numbers as plain PyTorch, whole models on disk, and nobody else's weights touched."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tinker
import torch
from safetensors.torch import load_file
from tinker import types
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.endpoints.full import create_full_training_client
from engine.errors import ModelError
from engine.server import model as module
from engine.server.checkpoints import CheckpointPath, CheckpointStore
from engine.server.model import BaseModel
from engine.server.sampler import SampleJob, Sampler
from engine.server.service import Service
from engine.server.trainer import AdamParams, Trainer
from engine.server.weights import LoraSpec
from tests.server.alone import Alone, Clock
from tests.server.families import make
from tests.server.harness import NANO, RunningServer, batch
from tests.server.test_families import DATA, assert_samples_like, plain_gradients, resumed, save, train

ADAM = types.AdamParams(learning_rate=1e-3, eps=1e-8, grad_clip_norm=1.0)
PARAMS = AdamParams(learning_rate=1e-3, eps=1e-8, weight_decay=0.01, grad_clip_norm=1.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def own() -> BaseModel:
    return BaseModel(NANO, "cpu", "float32")


def state(base: BaseModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in base.model.state_dict().items()}


def plain(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_three_steps_equal_plain_pytorch(own: BaseModel) -> None:
    before = state(own)
    trainer = Trainer(own, own.new_full())
    model = plain(NANO)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    for _ in range(3):
        trainer.forward_backward(DATA, "cross_entropy", {}, forward_only=False)
        theirs = plain_gradients(model)
        assert theirs.keys() == trainer.weights.tensors.keys()
        for name, weight in trainer.weights.tensors.items():
            torch.testing.assert_close(weight.grad, theirs[name], rtol=1e-3, atol=1e-4)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert trainer.optim_step(PARAMS)["grad_norm:mean"] == pytest.approx(float(norm), rel=1e-4)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(trainer.weights.tensors[name], weight, rtol=1e-4, atol=2e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items())


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "qwen3_moe", "deepseek_v3", "gemma2", "gpt_oss"])
def test_saved_as_a_whole_model(family: str, tmp_path: Path) -> None:
    """With the optimizer it goes on as if nothing had been; transformers alone loads it and says the same."""
    base = BaseModel(make(tmp_path / "model", family, tie_word_embeddings=family in ("gpt2", "gemma2")), "cpu", "float32")
    before = state(base)
    trainer = Trainer(base, base.new_full())
    losses = [train(trainer) for _ in range(2)]
    store = CheckpointStore(tmp_path / "checkpoints")
    folder = save(store, trainer)
    model = plain(folder)
    named = dict(model.named_parameters())
    assert named.keys() == trainer.weights.tensors.keys()
    assert all(torch.equal(named[name], weight) for name, weight in trainer.weights.tensors.items())
    assert_samples_like(model, Sampler(base), trainer.weights.frozen_copy())
    original = {name: (t.shape) for name, t in load_file(tmp_path / "model" / "model.safetensors").items()}
    written = {name: (t.shape) for name, t in load_file(folder / "model.safetensors").items()}
    assert written == original, "the same layout on disk as the family's own"
    assert AutoTokenizer.from_pretrained(folder).encode("a") == AutoTokenizer.from_pretrained(tmp_path / "model").encode("a")
    twin = resumed(store, base)
    assert train(twin) == train(trainer) < losses[0]
    assert all(torch.equal(p, q) for p, q in zip(trainer.weights.parameters(), twin.weights.parameters(), strict=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    again = BaseModel(folder, "cpu", "float32")
    assert Trainer(again, again.new_full()).forward_backward(DATA, "cross_entropy", {}, forward_only=True)[1]["loss:sum"] < losses[0]


def test_an_adapter_and_a_copy_at_once(own: BaseModel) -> None:
    """Taking turns they learn just what each learns alone, and snapshots stay what they were."""
    before = state(own)

    def adapter() -> Trainer:
        return Trainer(own, own.new_adapter(LoraSpec(4), seed=1))

    def whole() -> Trainer:
        return Trainer(own, own.new_full())

    alone = [[train(trainer) for _ in range(3)] for trainer in (adapter(), whole())]
    pair = (adapter(), whole())
    job = [SampleJob(DATA[0].tokens.tolist()[:9], max_tokens=8, temperature=0.0)]
    sampler = Sampler(own)
    untouched = sampler.sample(None, job)
    snapshots = [trainer.weights.frozen_copy() for trainer in pair]
    early = [sampler.sample(snapshot, job) for snapshot in snapshots]
    together = [[train(trainer) for trainer in pair] for _ in range(3)]
    assert [list(losses) for losses in zip(*together, strict=True)] == alone
    assert [sampler.sample(snapshot, job) for snapshot in snapshots] == early and sampler.sample(None, job) == untouched
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items())


def test_a_base_in_bfloat16(tmp_path: Path) -> None:
    """It computes in bfloat16, and learns in float32: small updates aren't rounded away."""
    base = BaseModel(NANO, "cpu", "bfloat16")
    trainer = Trainer(base, base.new_full())
    assert {p.dtype for p in trainer.weights.parameters()} == {torch.float32}
    first = trainer.forward_backward([*DATA, *DATA], "cross_entropy", {}, forward_only=False)[1]["loss:sum"]
    before = [p.detach().clone() for p in trainer.weights.parameters()]
    trainer.optim_step(AdamParams(learning_rate=1e-6, eps=1e-8))
    assert all(not torch.equal(p, q) for p, q in zip(trainer.weights.parameters(), before, strict=True) if p.ndim > 1)
    for _ in range(3):
        train(trainer)
    assert trainer.forward_backward([*DATA, *DATA], "cross_entropy", {}, forward_only=True)[1]["loss:sum"] < first
    store = CheckpointStore(tmp_path)
    assert {t.dtype for t in load_file(save(store, trainer) / "model.safetensors").values()} == {torch.float32}
    to_sample = save(store, trainer, CheckpointPath("run", "sampler_weights", "m"))
    assert {t.dtype for t in load_file(to_sample / "model.safetensors").values()} == {torch.bfloat16}


def test_memory_is_asked_for_first(own: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 16 * own.parameters - 1)
    with pytest.raises(ModelError, match=rf"of {own.parameters:,} parameters takes .* GiB .* free on the cpu") as caught:
        own.new_full()
    assert "LoRA" in caught.value.next_step
    monkeypatch.setattr(module, "free_memory", lambda device: 16 * own.parameters)
    assert own.new_full()


class TestMemory:
    BODY = {"model_seq_id": 1, "base_model": "nano", "full": True}

    async def create(self, client: httpx.AsyncClient) -> dict:
        session_id = (await client.post("create_session", json={})).json()["session_id"]
        reply = (await client.post("create_model", json={**self.BODY, "session_id": session_id})).json()
        return {**(await client.post("retrieve_future", json={"request_id": reply["request_id"]})).json(), "session_id": session_id}

    def test_the_client_hears_how_much_is_needed(self, alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "free_memory", lambda device: 2**20)

        async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
            told = await self.create(client)
            assert "GiB" in told["error"] and "LoRA" in told["error"] and told["category"] == "user"

        alone.play(story)

    def test_the_copy_goes_with_its_session(self, alone: Alone) -> None:
        async def story(client: httpx.AsyncClient, service: Service, clock: Clock) -> None:
            made = await self.create(client)
            run = service.runs[made["model_id"]]
            seen = [weakref.ref(run.trainer), weakref.ref(run.trainer.weights)]
            body = {"model_id": run.id, "seq_id": 1, "sampling_session_seq_id": 1}
            reply = (await client.post("save_weights_for_sampler", json=body)).json()
            await client.post("retrieve_future", json={"request_id": reply["request_id"]})
            seen.append(weakref.ref(service.sampling.state(f"{run.session.id}:sample:1").snapshot))
            del run
            await client.post(f"sessions/{made['session_id']}/finish", json={})
            gc.collect()
            assert [ref() for ref in seen] == [None] * 3

        alone.play(story)


class TestThroughTheServer:
    @pytest.fixture
    def full(self, service: tinker.ServiceClient) -> tinker.TrainingClient:
        return create_full_training_client(service, "nano").result(timeout=60)

    def step(self, client: tinker.TrainingClient, start: int = 0) -> float:
        output = client.forward_backward(batch(start), "cross_entropy")
        client.optim_step(ADAM).result()
        return output.result().metrics["loss:sum"]

    def test_the_whole_way(self, server: RunningServer, service: tinker.ServiceClient, full: tinker.TrainingClient) -> None:
        info = full.get_info()
        assert (info.is_lora, info.lora_rank) == (False, None)
        adapter = service.create_lora_training_client("nano", rank=4, seed=1).result()
        params = types.SamplingParams(max_tokens=8, temperature=0.0, stop=[])
        prompt = batch(size=1)[0].model_input

        def answer(sampler: tinker.SamplingClient) -> list[int]:
            return list(sampler.sample(prompt, num_samples=1, sampling_params=params).result().sequences[0].tokens)

        base = service.create_sampling_client(base_model="nano").result()
        untouched = answer(base)
        losses = [(self.step(full, i), self.step(adapter, i))[0] for i in (0, 0, 0, 0)]
        assert losses[-1] < losses[0] and answer(base) == untouched
        state = full.save_state("s").result().path
        named = full.save_weights_for_sampler("m").result().path
        snapshot = full.save_weights_and_get_sampling_client().result()
        ids = torch.tensor([prompt.to_ints()])
        model = plain(server.checkpoint_folder(named))
        model.generation_config.eos_token_id = None
        whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        theirs = whole[0, ids.shape[1] :].tolist()
        assert answer(snapshot) == answer(service.create_sampling_client(model_path=named).result()) == theirs
        again = service.create_training_client_from_state_with_optimizer(state).result()
        assert again.get_info().is_lora is False
        np.testing.assert_array_equal([self.step(again, i) for i in (4, 5)], [self.step(full, i) for i in (4, 5)])
        assert answer(snapshot) == theirs, "a snapshot doesn't drift"

    def test_few_copies_are_kept_in_memory(self, service: tinker.ServiceClient, full: tinker.TrainingClient) -> None:
        """Named ones are loaded again when they're asked for; of unnamed ones the oldest is gone, and its sampler says so."""
        params = types.SamplingParams(max_tokens=3, temperature=0.0, stop=[])
        prompt = batch(size=1)[0].model_input
        named, unnamed, answers = [], [], []
        for i in range(3):
            self.step(full, i)
            named.append(service.create_sampling_client(model_path=full.save_weights_for_sampler(f"few-{i}").result().path).result())
            unnamed.append(full.save_weights_and_get_sampling_client().result())
            answers.append([s.sample(prompt, 1, params).result().sequences[0].logprobs for s in (named[-1], unnamed[-1])])
        assert [a == b for a, b in answers] == [True] * 3 and answers[0] != answers[1]
        assert [s.sample(prompt, 1, params).result().sequences[0].logprobs for s in named] == [a for a, _ in answers]
        assert unnamed[1].sample(prompt, 1, params).result().sequences[0].logprobs == answers[1][1]
        with pytest.raises(tinker.NotFoundError, match="no sampling session"):
            unnamed[0].sample(prompt, 1, params).result()

    def test_to_be_fetched(self, server: RunningServer, full: tinker.TrainingClient) -> None:
        """The links lead to all files of a whole model, and the lists say what it is."""
        path = full.save_weights_external("out").result(timeout=60).path
        with server.http() as http:
            known = http.post("weights_info", json={"tinker_path": path}).json()
            run = http.get(f"training_runs/{full.model_id}").json()
            urls = http.get(f"training_runs/{full.model_id}/checkpoints/external_weights/out/external_weights_urls").json()["urls"]
        assert (known["is_lora"], known["lora_rank"], run["is_lora"]) == (False, None, False)
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= urls.keys() and "optimizer.safetensors" not in urls
        assert httpx.get(urls["config.json"], trust_env=False).json()["model_type"] == "qwen3"

    def test_the_wrong_way_round(self, service: tinker.ServiceClient, full: tinker.TrainingClient) -> None:
        adapter = service.create_lora_training_client("nano", rank=4, seed=1).result()
        state = adapter.save_state("wrong-way").result().path
        with pytest.raises(tinker.APIStatusError, match="another shape"), pytest.warns(FutureWarning):
            full.load_state(state).result()

    def test_another_model(self, service: tinker.ServiceClient) -> None:
        with pytest.raises(tinker.NotFoundError, match="has the base model 'nano'"):
            create_full_training_client(service, "some/other").result(timeout=30)

    def test_requests_that_make_no_sense(self, session) -> None:
        body = {"session_id": session.id, "model_seq_id": 1, "base_model": "nano"}
        for wrong in ({}, {"full": True, "lora_config": {"rank": 4}}, {"full": "perhaps"}):
            reply = session.post("create_model", {**body, **wrong})
            assert reply.status_code == 400 and reply.json()["message"]
