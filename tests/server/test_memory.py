"""Memory that runs out while a run trains: less at once, layers recomputed, the same numbers; and what doesn't fit is said so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from engine import system
from engine.errors import EngineError, ModelError, StateError
from engine.server import memory
from engine.server.activations import measure
from engine.server.memory import PATIENCE, Plan, Room, ran_out
from engine.server.model import BaseModel
from engine.server.packing import Packed
from engine.server.trainer import AdamParams, Trainer
from engine.server.weights import LoraSpec
from engine.server.wire import Datum
from tests.server.families import make
from tests.server.harness import RunningServer
from tests.server.raw import Session, rows

NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")
STEP = AdamParams(learning_rate=5e-3, eps=1e-8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_room(base: BaseModel) -> Iterator[None]:
    """What one test runs out of, the next has again."""
    yield
    base.room = Room(base.device)


def row(start: int, length: int) -> Datum:
    tokens = np.array([5 + (start * 31 + i * i * 7) % 250 for i in range(length + 1)])
    return Datum(tokens[:-1], {"target_tokens": tokens[1:], "weights": np.array([float(i > 2) for i in range(length)], np.float32)})


DATA = [row(1, 30), row(2, 11), row(3, 19), row(4, 24)]


def trainer_of(base: BaseModel, way: str = "packed", *, full: bool = False) -> Trainer:
    weights = base.new_full() if full else base.new_adapter(LoraSpec(4), seed=1)
    if not full:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for _, b in weights.pairs.values():
                b.copy_(torch.randn(b.shape, generator=generator) * 0.02)
    return Trainer(base, weights, Packed.if_it_agrees(base) if way == "packed" else None)


def outcome(trainer: Trainer, data: list[Datum] = DATA) -> tuple[list[np.ndarray], list[torch.Tensor], dict[str, float]]:
    outputs, metrics = trainer.forward_backward(data, "cross_entropy", {}, forward_only=False)
    gradients = [p.grad.clone() for p in trainer.weights.parameters() if p.grad is not None]
    return [output["logprobs"] for output in outputs], gradients, metrics


def assert_same(found: tuple, expected: tuple) -> None:
    assert found[2]["loss:sum"] == pytest.approx(expected[2]["loss:sum"], rel=1e-5)
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * max(1.0, float(other.abs().max())), rtol=0)


class Allocator:
    """Fails micro-batches of more tokens than it has room for, when the backward pass has already begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holds: Callable[[Plan], bool]):
        self.failed: list[int] = []
        begin = Plan.begin
        hook: list[Plan] = []

        def noted(plan: Plan, rows: int, tokens: int) -> bool:
            less = begin(plan, rows, tokens)
            hook[:] = [plan]
            return less

        backward = torch.Tensor.backward

        def maybe(tensor: torch.Tensor, *args: object, **options: object) -> None:
            backward(tensor, *args, **options)
            if not holds(hook[0]):
                self.failed.append(hook[0].tokens_now)
                raise NO_MEMORY

        monkeypatch.setattr(Plan, "begin", noted)
        monkeypatch.setattr(torch.Tensor, "backward", maybe)


@pytest.mark.parametrize("way", ["padded", "packed"])
@pytest.mark.parametrize("earlier", [False, True])
def test_after_a_shortage_the_numbers_are_those_without_one(
    base: BaseModel, way: str, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_trainer, trainer = trainer_of(base, way), trainer_of(base, way)
    if earlier:
        for one in (expected_trainer, trainer):
            outcome(one, [row(9, 8)])
    expected = outcome(expected_trainer)
    allocator = Allocator(monkeypatch, lambda plan: plan.tokens_now <= 32)
    found = outcome(trainer)
    assert_same(found, expected)
    tries = len(allocator.failed)
    assert tries >= 1 and allocator.failed == sorted(allocator.failed, reverse=True)
    assert found[2]["tokens_at_once:max"] <= 32 and found[2]["recomputed_rows:sum"] == sum(len(d.tokens) > base.room.tokens for d in DATA)
    outcome(trainer)
    assert len(allocator.failed) == tries, "what didn't fit isn't tried each time"


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "phi", "gemma2", "gpt2", "opt", "qwen3_moe", "lfm2", "jamba"])
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_recomputed_gradients_are_the_same(tmp_path: Path, family: str, full: bool) -> None:
    base = BaseModel(make(tmp_path, family), "cpu", "float32")
    for way in ("padded", "packed"):
        expected = outcome(trainer_of(base, way, full=full))
        base.room.tokens = 5
        found = outcome(trainer_of(base, way, full=full))
        base.room = Room("cpu")
        assert_same(found, expected)
        assert found[2]["recomputed_rows:sum"] == len(DATA)
        assert not any("forward" in vars(layer) for layer in base.model.modules() if isinstance(layer, GradientCheckpointingLayer))


def test_recomputing_keeps_less(base: BaseModel) -> None:
    """Measured: what is kept a token for the backward pass, all layers against their inputs."""
    from torch.autograd.graph import saved_tensors_hooks

    trainer = trainer_of(base)
    needs = measure(base, trainer.weights)
    assert 0 < needs.recomputed < needs.a_token / 2

    def kept(tokens_at_once: float) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        base.room.tokens = tokens_at_once
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            trainer.forward_backward([row(1, 900)], "cross_entropy", {}, forward_only=False)
        return sum(sizes.values())

    assert kept(5) < kept(math.inf) / 3


def test_the_measure_is_near_what_is_kept(base: BaseModel) -> None:
    needs = measure(base, trainer_of(base).weights)
    again = measure(base, trainer_of(base).weights)
    assert needs == again
    # By hand for nano: each of 4 layers keeps some dozens of vectors of the hidden size in float32, the head two of the vocabulary's.
    width, depth = base.model.config.hidden_size, base.model.config.num_hidden_layers
    assert 10 * depth * width * 4 < needs.a_token < 60 * depth * width * 4 + 3 * base.vocab_size * 4


def test_what_fits_in_no_way_is_refused_and_nothing_is_left_of_it(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(base)
    outcome(trainer, [row(9, 8)])
    before = [p.grad.clone() for p in trainer.weights.parameters()]
    with monkeypatch.context() as patch:
        Allocator(patch, lambda plan: plan.tokens_now <= 20)
        with pytest.raises(EngineError, match="an example of 30 tokens") as caught:
            outcome(trainer)
    assert caught.value.next_step
    assert all(torch.equal(p.grad, then) for p, then in zip(trainer.weights.parameters(), before, strict=True))
    assert trainer.optim_step(STEP)["grad_norm:mean"] > 0
    assert outcome(trainer)[2]["loss:sum"] > 0


def test_forward_alone_backs_off_too(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(base)
    expected = trainer.forward_backward(DATA, "cross_entropy", {}, forward_only=True)
    logprobs, calls = Packed.flat_logprobs, []

    def failing(self: Packed, rows: list[Datum], *rest: object, **options: object) -> tuple[torch.Tensor, list[int]]:
        calls.append(sum(len(one.tokens) for one in rows))
        if calls[-1] > 30:
            raise MemoryError
        return logprobs(self, rows, *rest, **options)

    monkeypatch.setattr(Packed, "flat_logprobs", failing)
    found = trainer.forward_backward(DATA, "cross_entropy", {}, forward_only=True)
    assert calls[0] > 30 and found[1]["loss:sum"] == pytest.approx(expected[1]["loss:sum"], rel=1e-6)
    assert found[1]["recomputed_rows:sum"] == 0


class TestTheEstimate:
    """What an overcommitting kernel would rather kill the server for is known beforehand."""

    def test_little_free_memory_means_little_at_once(self, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
        expected, trainer = outcome(trainer_of(base)), trainer_of(base)
        needs = measure(base, trainer.weights)
        monkeypatch.setattr(memory, "free_memory", lambda device: (needs.fixed + 20.5 * needs.a_token) / memory.SHARE)
        found = outcome(trainer)
        assert_same(found, expected)
        assert found[2]["recomputed_rows:sum"] == 2, "the rows of more than 20 tokens"

    def test_a_row_that_cannot_fit_is_refused_untried(self, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = trainer_of(base)
        needs = measure(base, trainer.weights)
        monkeypatch.setattr(memory, "free_memory", lambda device: needs.fixed + 15 * needs.recomputed)
        with pytest.raises(EngineError, match="an example of 30 tokens"):
            outcome(trainer)
        assert outcome(trainer, [row(1, 10)])[2]["loss:sum"] > 0

    def test_the_optimizers_state_is_asked_for_before_anything_is_changed(self, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = trainer_of(base)
        outcome(trainer)
        before = [p.detach().clone() for p in trainer.weights.parameters()]
        with monkeypatch.context() as patch:
            patch.setattr(memory, "free_memory", lambda device: 8 * sum(p.numel() for p in before) - 1)
            with pytest.raises(ModelError, match="optimizer's state"):
                trainer.optim_step(STEP)
        assert all(torch.equal(p, then) for p, then in zip(trainer.weights.parameters(), before, strict=True)) and trainer.steps == 0
        outcome(trainer)
        assert trainer.optim_step(STEP)["grad_norm:mean"] > 0


def test_an_update_that_broke_off_is_not_gone_on_from(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(base)
    outcome(trainer)

    def step(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(trainer.optimizer, "step", step)
    with pytest.raises(EngineError, match="half done"):
        trainer.optim_step(STEP)
    with pytest.raises(StateError, match="Load a checkpoint"):
        trainer.check_whole()


class TestRoom:
    def test_more_is_tried_again_after_a_while(self) -> None:
        room, sizes = Room("cpu"), []

        def work(plan: Plan) -> None:
            plan.begin(4, int(min(plan.tokens, 1000)))
            sizes.append(plan.tokens_now)
            if plan.tokens_now == 1000 and len(sizes) == 1:
                raise NO_MEMORY

        for _ in range(2 * PATIENCE):
            room.fit(work, longest=10, needs=None)
        assert sizes[:2] == [1000, 500] and sizes[PATIENCE + 1] == 1000 and room.shortages == 1

    @pytest.mark.parametrize(
        ("error", "is_one"),
        [
            (NO_MEMORY, True),
            (MemoryError(), True),
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
            (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
            (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
            (RuntimeError("std::bad_alloc"), True),
            (OSError(12, "Cannot allocate memory"), True),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
            (RuntimeError("shape mismatch"), False),
            (ModelError("out of memory, says the model", "Go on."), False),
        ],
    )
    def test_what_it_looks_like(self, error: Exception, is_one: bool) -> None:
        assert ran_out(error) is is_one

    def test_other_errors_pass_unchanged(self) -> None:
        def work(plan: Plan) -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            Room("cpu").fit(work, longest=1, needs=None)


class TestFreeMemory:
    def test_of_nested_containers(self, tmp_path: Path) -> None:
        """The tightest of all limits above; files' pages that can be dropped count as free."""
        own = tmp_path / "own"
        own.write_text("0::/a/b\n")
        for folder, limit, used, cache in (("a", 1000, 300, 100), ("a/b", "max", 200, 50)):
            place = tmp_path / folder
            place.mkdir()
            for name, value in (("memory.max", limit), ("memory.current", used), ("memory.stat", f"anon 5\ninactive_file {cache}")):
                (place / name).write_text(f"{value}\n")
        assert min(system._rooms(tmp_path, own)) == 800

    def test_of_the_older_kind(self, tmp_path: Path) -> None:
        own = tmp_path / "own"
        own.write_text("3:cpu:/x\n4:memory:/docker/1\n")
        place = tmp_path / "memory"
        place.mkdir()
        files = {"memory.limit_in_bytes": "2000", "memory.usage_in_bytes": "700", "memory.stat": "cache 9\ntotal_inactive_file 200"}
        for name, value in files.items():
            (place / name).write_text(value)
        assert min(system._rooms(tmp_path, own)) == 1500


@pytest.mark.slow
def test_runs_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    def one_more() -> None:
        session = Session(server)
        model = session.model(rank=32)
        session.loss(session.train(model, 1, rows(0)))
        session.result(session.step(model, 2))
        session.close()

    server = RunningServer(tmp_path / "server")
    try:
        process = psutil.Process(server.process.pid)
        for _ in range(5):
            one_more()
        before = process.memory_info().rss
        for _ in range(20):
            one_more()
        # Each run has weights, gradients and the optimizer's state of some 8 MiB.
        assert process.memory_info().rss < before + 40 * 2**20
    finally:
        server.stop()
