"""The packed way gives the padded reference's numbers: log-probabilities, losses, gradients, updates."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import varlen

from engine.server.model import BaseModel, LoraSpec
from engine.server.packing import END_TO_END, Packed, end_to_end_attention, make_pack, packed_attention
from engine.server.trainer import AdamParams, Trainer
from engine.server.wire import Datum
from engine.system import cpu_multiplies_bfloat16
from tests.server.harness import NANO

LENGTHS = (5, 60, 61, 1, 33, 12, 90, 7, 7, 2, 40)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel(NANO, "cpu", "float32")


@pytest.fixture(scope="module")
def packed(base: BaseModel) -> Packed:
    found = Packed.if_it_agrees(base)
    assert found is not None
    return found


def rows(inputs: tuple[str, ...], seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> list[Datum]:
    draw = np.random.default_rng(seed)
    data = []
    for length in lengths:
        tokens = draw.integers(8, 264, length + 1)
        values = {name: draw.normal(-1, 1, length).astype(np.float32) for name in inputs}
        if length > 3:
            # A prompt, where the loss doesn't look.
            for name in ("weights", "advantages"):
                if name in values:
                    values[name][: length // 2] = 0
        data.append(Datum(tokens[:-1], {"target_tokens": tokens[1:], **values}))
    return data


def pair(base: BaseModel, packed: Packed) -> tuple[Trainer, Trainer]:
    """Two trainers of equal adapters that aren't the identity: the reference and the fast one."""
    trainers = [Trainer(base, base.new_adapter(LoraSpec(8), seed=3), way) for way in (None, packed)]
    for trainer in trainers:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in trainer.weights.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return trainers[0], trainers[1]


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        ("cross_entropy", ("weights",)),
        ("importance_sampling", ("logprobs", "advantages")),
        ("ppo", ("logprobs", "advantages")),
    ],
)
def test_losses_logprobs_and_gradients_are_the_references(base: BaseModel, packed: Packed, loss: str, inputs: tuple[str, ...]) -> None:
    plain, fast = pair(base, packed)
    data = rows(inputs)
    expected, metrics = plain.forward_backward(data, loss, {}, forward_only=False)
    found, fast_metrics = fast.forward_backward(data, loss, {}, forward_only=False)
    assert fast_metrics["loss:sum"] == pytest.approx(metrics["loss:sum"], rel=1e-4)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b["logprobs"], a["logprobs"], atol=2e-4)
    for a, b in zip(plain.weights.parameters(), fast.weights.parameters(), strict=True):
        scale = float(a.grad.abs().max()) + 1e-6
        torch.testing.assert_close(b.grad / scale, a.grad / scale, atol=2e-3, rtol=0)


def test_forward_alone_gives_all_positions_and_no_gradient(base: BaseModel, packed: Packed) -> None:
    plain, fast = pair(base, packed)
    data = rows(("weights",))
    expected, _ = plain.forward_backward(data, "cross_entropy", {}, forward_only=True)
    found, _ = fast.forward_backward(data, "cross_entropy", {}, forward_only=True)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b["logprobs"], a["logprobs"], atol=2e-4)
    assert all(parameter.grad is None for parameter in fast.weights.parameters())


def test_ten_updates_stay_together(base: BaseModel, packed: Packed) -> None:
    plain, fast = pair(base, packed)
    losses: list[list[float]] = [[], []]
    for step in range(10):
        data = rows(("weights",), seed=step)
        for datum in data:
            datum.inputs["weights"] = (datum.inputs["weights"] != 0).astype(np.float32) / 100
        for trainer, found in zip((plain, fast), losses, strict=True):
            found.append(trainer.forward_backward(data, "cross_entropy", {}, forward_only=False)[1]["loss:sum"])
            trainer.optim_step(AdamParams(learning_rate=1e-3, eps=1e-4, grad_clip_norm=1.0))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_a_batch_where_the_loss_looks_nowhere_still_steps(base: BaseModel, packed: Packed) -> None:
    _, fast = pair(base, packed)
    data = rows(("logprobs", "advantages"))
    for datum in data:
        datum.inputs["advantages"][:] = 0
    assert fast.forward_backward(data, "ppo", {}, forward_only=False)[1]["loss:sum"] == 0
    assert fast.optim_step(AdamParams())["grad_norm:mean"] == 0


def test_a_batch_larger_than_a_pack(base: BaseModel, packed: Packed) -> None:
    plain, fast = pair(base, packed)
    data = rows(("weights",), lengths=LENGTHS * 30)
    assert len(packed.batches(data)) > 1
    assert sorted(i for batch in packed.batches(data) for i in batch) == list(range(len(data)))
    expected = plain.forward_backward(data, "cross_entropy", {}, forward_only=True)[1]["loss:sum"]
    found = fast.forward_backward(data, "cross_entropy", {}, forward_only=True)[1]["loss:sum"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_rows_of_a_pack_dont_see_each_other(base: BaseModel, packed: Packed) -> None:
    one = rows(("weights",), lengths=(20,))
    crowd = rows(("weights",), seed=9)
    alone = packed.logprobs(one, [np.ones(20, bool)])[0]
    among = packed.logprobs([*crowd[:4], one[0], *crowd[4:]], [np.ones(len(d.tokens), bool) for d in [*crowd[:4], one[0], *crowd[4:]]])[4]
    torch.testing.assert_close(alone.detach(), among.detach(), atol=1e-4, rtol=0)


def kernel_on_a_cpu(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, edges_k: torch.Tensor, longest: int, longest_k: int, *,
    scale: float, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """What torch's documentation says of varlen_attn, whose kernel only GPUs have."""
    assert edges.dtype == torch.int32 and torch.equal(edges, edges_k) and longest == longest_k == int(edges.diff().max())
    parts = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        age = torch.arange(end - start)[:, None] - torch.arange(end - start)
        seen = (age >= -window_size[1]) & ((age <= window_size[0]) if window_size[0] >= 0 else torch.ones_like(age, dtype=torch.bool))
        heads = (states[start:end].transpose(0, 1)[None] for states in (q, k, v))
        parts.append(F.scaled_dot_product_attention(*heads, attn_mask=seen, scale=scale, enable_gqa=enable_gqa)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("attention", [packed_attention, end_to_end_attention])
def test_a_sliding_window_looks_back_no_further(attention: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against attention written out by hand, row by row."""
    monkeypatch.setattr(varlen, "varlen_attn", kernel_on_a_cpu)
    torch.manual_seed(0)
    lengths, heads, size, window = (9, 6, 2), 2, 4, 3
    pack = make_pack([np.arange(n) for n in lengths], "cpu")
    total = sum(lengths)
    q, k, v = (torch.randn(1, heads, total, size) for _ in range(3))
    from engine.server import packing

    packing._pack[0] = pack
    try:
        found, _ = attention(torch.nn.Identity(), q, k, v, None, scaling=0.5, sliding_window=window)
    finally:
        packing._pack[0] = None
    start = 0
    for n in lengths:
        for i in range(n):
            seen = range(max(0, i - window + 1), i + 1)
            keys = torch.stack([k[0, :, start + j] for j in seen], dim=1)
            values = torch.stack([v[0, :, start + j] for j in seen], dim=1)
            shares = torch.softmax((keys * q[0, :, start + i, None]).sum(-1) * 0.5, dim=-1)
            torch.testing.assert_close(found[0, start + i], (shares[..., None] * values).sum(1), atol=1e-5, rtol=1e-4)
        start += n


def test_rows_end_to_end_in_one_kernel(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything around the GPU's kernel: where rows begin and end, heads, scale, shapes."""
    monkeypatch.setattr(varlen, "varlen_attn", kernel_on_a_cpu)
    packed = Packed(base, END_TO_END)
    packed.fused = None
    assert packed.disagreement() < 1e-3 and packed.gradients_disagreement() < 1e-3


def test_a_model_that_disagrees_isnt_packed(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packed, "disagreement", lambda self: 0.5)
    assert Packed.if_it_agrees(base) is None

    def broken(self: Packed) -> float:
        raise NotImplementedError("capped attention scores")

    monkeypatch.setattr(Packed, "disagreement", broken)
    assert Packed.if_it_agrees(base) is None


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 3.6 million parameters, large enough for products in bfloat16."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=264, hidden_size=256, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=32,
        intermediate_size=768, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("larger")
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not cpu_multiplies_bfloat16(), reason="this CPU has no products in bfloat16")
def test_mixed_precision_learns_as_the_reference_does(larger: Path) -> None:
    """Loss within 2 % after ten updates; asked for float32, nothing is rounded."""
    exact, mixed = BaseModel(larger, "cpu", "float32"), BaseModel(larger, "cpu")
    assert mixed.can_mix and mixed.is_large and not exact.can_mix
    reference = Trainer(exact, exact.new_adapter(LoraSpec(8), seed=3))
    fast = Trainer(mixed, mixed.new_adapter(LoraSpec(8), seed=3), Packed.if_it_agrees(mixed))
    assert fast.packed is not None
    losses: list[list[float]] = [[], []]
    for _ in range(10):
        for trainer, found in zip((reference, fast), losses, strict=True):
            data = rows(("weights",), seed=1)
            for datum in data:
                datum.inputs["weights"] = (datum.inputs["weights"] != 0).astype(np.float32) / 100
            found.append(trainer.forward_backward(data, "cross_entropy", {}, forward_only=False)[1]["loss:sum"])
            trainer.optim_step(AdamParams(learning_rate=3e-3, eps=1e-8, grad_clip_norm=1.0))
    assert losses[0] != losses[1], "products were in float32"
    assert losses[0][-1] < 0.9 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
