"""Layers with written-out gradients give the padded reference's numbers, whichever way each product is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.server import attend, joined
from engine.server.fused import Fused
from engine.server.model import BaseModel
from engine.server.packing import Packed
from engine.server.trainer import Trainer
from engine.server.weights import LoraSpec
from engine.server.wire import Datum
from engine.system import cpu_multiplies_bfloat16
from tests.server.families import make

LENGTHS = (5, 60, 61, 1, 33, 12, 90, 7, 7, 2, 40)
# What tells them apart: biases on q, k, v; norms within heads; biases everywhere; one k and v for two q; none shared.
MODELS = {
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "llama": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "unshared": ("qwen3", {"num_key_value_heads": 4}),
}


@pytest.fixture(scope="module", params=MODELS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    family, changes = MODELS[request.param]
    model = BaseModel(make(tmp_path_factory.mktemp("model"), family, **changes), "cpu", "float32")
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if parameter.ndim == 1:  # biases and norms' weights, which are 0 and 1 in a new model
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    return model


def rows(seed: int = 0) -> list[Datum]:
    draw = np.random.default_rng(seed)
    data = []
    for length in LENGTHS:
        tokens = draw.integers(8, 264, length + 1)
        weights = draw.normal(0.5, 1, length).astype(np.float32)
        weights[: length // 3] = 0
        data.append(Datum(tokens[:-1], {"target_tokens": tokens[1:], "weights": weights}))
    return data


def trained(base: BaseModel, spec: LoraSpec, packed: Packed | None) -> tuple[list[dict], list[torch.Tensor | None]]:
    """Log-probabilities and gradients of one batch, with an adapter that isn't the identity."""
    trainer = Trainer(base, base.new_adapter(spec, seed=3), packed)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.weights.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    outputs, _ = trainer.forward_backward(rows(), "cross_entropy", {}, forward_only=False)
    return outputs, [parameter.grad for parameter in trainer.weights.parameters()]


def assert_same(base: BaseModel, spec: LoraSpec, packed: Packed, tolerance: float = 2e-4) -> None:
    expected, gradients = trained(base, spec, None)
    found, fast_gradients = trained(base, spec, packed)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b["logprobs"], a["logprobs"], atol=tolerance * 10)
    for a, b in zip(gradients, fast_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            scale = float(a.abs().max()) + 1e-6
            torch.testing.assert_close(b / scale, a / scale, atol=tolerance, rtol=0)


def always(answer: bool) -> Callable[..., bool]:
    return lambda *_: answer


@pytest.mark.parametrize("merges", [True, False], ids=["merged", "beside"])
@pytest.mark.parametrize(
    "spec",
    [LoraSpec(3), LoraSpec(8, train_unembed=False), LoraSpec(4, train_mlp=False, train_unembed=False), LoraSpec(2, train_attn=False)],
    ids=["all", "no-head", "attention", "mlp"],
)
def test_gradients_are_autograds(base: BaseModel, spec: LoraSpec, merges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Packed.if_it_agrees(base)
    assert packed is not None and packed.fused is not None
    monkeypatch.setattr(joined, "merging_pays", always(merges))
    assert_same(base, spec, packed)


def test_attention_in_small_pieces_and_worked_out_again(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Packed.if_it_agrees(base)
    assert packed is not None
    monkeypatch.setattr(attend, "KEPT_BYTES", 0)
    monkeypatch.setattr(attend, "BYTES_AT_ONCE", 3 * 90 * 90 * 4)  # three heads of the longest row
    assert_same(base, LoraSpec(4), packed)


def test_a_frozen_model_without_adapter(base: BaseModel) -> None:
    packed = Packed.if_it_agrees(base)
    assert packed is not None and packed.disagreement() < 1e-3


def test_layers_whose_gradients_disagree_arent_fused(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packed, "gradients_disagreement", lambda self: 0.1)
    packed = Packed.if_it_agrees(base)
    assert packed is not None and packed.fused is None
    assert_same(base, LoraSpec(4), packed)


@pytest.mark.parametrize(("family", "changes"), [("mistral", {"sliding_window": 8}), ("olmo2", {}), ("llama", {"hidden_act": "gelu"})])
def test_models_of_another_shape_arent_fused(tmp_path: Path, family: str, changes: dict) -> None:
    base = BaseModel(make(tmp_path, family, **changes), "cpu", "float32")
    assert Fused.of(base) is None
    packed = Packed.if_it_agrees(base)
    assert packed is not None
    assert_same(base, LoraSpec(4), packed)


def test_whole_copies_take_the_models_own_way(base: BaseModel) -> None:
    """The stacked weights are the base's, so a full run must not be computed with them."""
    packed = Packed.if_it_agrees(base)
    plain, fast = (Trainer(base, base.new_full(), way) for way in (None, packed))
    for trainer in (plain, fast):
        with torch.no_grad():
            for parameter in trainer.weights.parameters():
                parameter.mul_(1.1)
    expected, _ = plain.forward_backward(rows(), "cross_entropy", {}, forward_only=True)
    found, _ = fast.forward_backward(rows(), "cross_entropy", {}, forward_only=True)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b["logprobs"], a["logprobs"], atol=2e-3)


@pytest.mark.skipif(not cpu_multiplies_bfloat16(), reason="this CPU has no products in bfloat16")
@pytest.mark.parametrize("merges", [True, False], ids=["merged", "beside"])
def test_gradients_in_bfloat16_point_the_same_way(base: BaseModel, merges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = BaseModel(base.folder, "cpu", "auto")
    packed = Packed.if_it_agrees(halves)
    assert packed is not None and packed.mixes("cross_entropy", forward_only=False)
    monkeypatch.setattr(joined, "merging_pays", always(merges))
    _, exact = trained(BaseModel(base.folder, "cpu", "float32"), LoraSpec(8), None)
    _, rounded = trained(halves, LoraSpec(8), packed)
    for a, b in zip(exact, rounded, strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99
        assert not torch.equal(a, b)


@pytest.mark.skipif(not cpu_multiplies_bfloat16(), reason="this CPU has no products in bfloat16")
def test_only_supervised_updates_of_small_models_are_rounded(base: BaseModel) -> None:
    packed = Packed.if_it_agrees(BaseModel(base.folder, "cpu", "auto"))
    assert packed is not None
    assert packed.mixes("cross_entropy", forward_only=False)
    assert not packed.mixes("cross_entropy", forward_only=True)
    assert not packed.mixes("importance_sampling", forward_only=False)
