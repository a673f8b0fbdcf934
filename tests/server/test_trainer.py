"""What the trainer promises beyond what the contract suite sees: a request that fails leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import DataError, EngineError, ModelError
from engine.server import packing, padding
from engine.server.model import BaseModel
from engine.server.packing import Packed
from engine.server.padding import padded_batches
from engine.server.trainer import AdamParams, Trainer
from engine.server.weights import LoraSpec
from engine.server.wire import Datum


def row(tokens: list[int], weight: float = 1.0) -> Datum:
    return Datum(np.array(tokens), {"target_tokens": np.array([*tokens[1:], 1]), "weights": np.full(len(tokens), weight, np.float32)})


DATA = [row([5, 6, 7]), row([9, 10, 11, 12, 13]), row([30])]


@pytest.fixture(params=["padded", "packed"])
def trainer(base: BaseModel, request: pytest.FixtureRequest) -> Trainer:
    packed = Packed.if_it_agrees(base) if request.param == "packed" else None
    return Trainer(base, base.new_adapter(LoraSpec(4), seed=1), packed)


def tokens_at_once(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    for way in (padding, packing):
        monkeypatch.setattr(way, "TOKENS_AT_ONCE", tokens)


def gradients(trainer: Trainer) -> list[torch.Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in trainer.weights.parameters()]


def train(trainer: Trainer, data: list[Datum], **options: bool) -> float:
    return trainer.forward_backward(data, "cross_entropy", {}, **{"forward_only": False, **options})[1]["loss:sum"]


def test_micro_batches_change_nothing(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, together = train(trainer, DATA), gradients(trainer)
    trainer.drop_gradients()
    tokens_at_once(monkeypatch, 4)
    assert train(trainer, DATA) == pytest.approx(whole, rel=1e-6)
    for one, other in zip(gradients(trainer), together, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_micro_batches_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_at_once(monkeypatch, 6)
    lengths = [3, 2, 3, 7, 1, 1, 5, 1]
    data = [row([5] * length) for length in lengths]
    assert padded_batches(data, 512) == [[0, 1], [2], [3], [4, 5], [6], [7]]


@pytest.mark.parametrize("earlier", [False, True])
def test_half_a_batch_leaves_no_gradient(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, earlier: bool) -> None:
    """The second micro-batch fails after the first has been added; an optim_step that is on its way must not see it."""
    if earlier:
        train(trainer, DATA)
    before = gradients(trainer)
    tokens_at_once(monkeypatch, 3)
    with pytest.raises(ModelError, match="isn't finite"):
        train(trainer, [row([5, 6, 7]), row([5, 6, 7], weight=3e38)])
    for now, then in zip(gradients(trainer), before, strict=True):
        assert (now is None and then is None) or torch.equal(now, then)
    if earlier:
        assert trainer.optim_step(AdamParams())["grad_norm:mean"] > 0
    else:
        with pytest.raises(EngineError, match="no gradients"):
            trainer.optim_step(AdamParams())


def test_a_gradient_that_is_not_finite_changes_no_weight(trainer: Trainer) -> None:
    train(trainer, DATA)
    parameters = trainer.weights.parameters()
    parameters[1].grad[0, 0] = float("inf")
    before = [p.detach().clone() for p in parameters]
    with pytest.raises(ModelError, match="left as they were"):
        trainer.optim_step(AdamParams(learning_rate=0.1))
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True)) and trainer.steps == 0
    train(trainer, DATA)
    assert trainer.optim_step(AdamParams())["grad_norm:mean"] > 0


def test_forward_alone_leaves_the_gradients(trainer: Trainer) -> None:
    train(trainer, DATA)
    before = gradients(trainer)
    train(trainer, DATA, forward_only=True)
    assert all(torch.equal(a, b) for a, b in zip(gradients(trainer), before, strict=True))


def test_the_optimizers_state_fits_its_adapter_only(trainer: Trainer, base: BaseModel, tmp_path: Path) -> None:
    train(trainer, DATA)
    trainer.optim_step(AdamParams())
    state = trainer.optimizer_tensors()
    other = Trainer(base, base.new_adapter(LoraSpec(8), seed=1))
    with pytest.raises(ModelError, match="doesn't fit"):
        other.load_optimizer_tensors(state)
    twin = Trainer(base, base.new_adapter(LoraSpec(4), seed=2))
    twin.load_optimizer_tensors(state)
    assert all(torch.equal(value, state[name]) for name, value in twin.optimizer_tensors().items())


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": float("nan")}, {"learning_rate": -1e-9}, {"beta1": 1.0}, {"beta2": -0.1}, {"eps": -1.0}, {"weight_decay": 1e999}],
)
def test_adam_params(wrong: dict[str, float]) -> None:
    assert AdamParams(learning_rate=0.0).checked()
    with pytest.raises(DataError) as caught:
        AdamParams(**wrong).checked()
    assert caught.value.where == "adam_params"
