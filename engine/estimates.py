"""What a run will take: time, memory and money, each with the assumptions that it rests on. Pure functions; knows no store and no screen.

Figures are for planning: right within a factor of two or so, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from engine.amounts import dollars, duration, size
from engine.knowledge.pricing import Price

Size = Literal["small", "moderate", "large"]

PROCESS_BYTES = 600e6
"""A server with PyTorch in memory, before any model."""
TOKENS_AT_ONCE = 8192
"""Of a batch, as the server of this project takes them where memory allows."""


@dataclass(frozen=True)
class ModelSize:
    """A model in figures, from its config.json."""

    parameters: int
    layers: int
    hidden: int
    vocab: int
    intermediate: int


@dataclass(frozen=True)
class Workload:
    """What is to be gone through. Lengths in tokens. `token` is what a token learned from takes beside one learned from as an example,
    `read` and `drawn` are tokens that are only read, or drawn, while it trains."""

    rows: int
    mean_length: float
    longest: int
    batch_size: int
    steps: int
    proof_answers: int
    answer_length: float
    token: float = 1.0
    read: float = 0.0
    drawn: float = 0.0

    @property
    def learned(self) -> float:
        """Tokens learned from."""
        return self.steps * self.batch_size * self.mean_length


@dataclass(frozen=True)
class Estimate:
    """One figure: its value in base units (seconds, bytes, dollars), in words, how big that is, and what it assumes."""

    name: str
    value: float
    text: str
    size: Size
    assumptions: tuple[str, ...] = field(default_factory=tuple)


def model_size(config: dict[str, Any]) -> ModelSize | None:
    """From a model's config.json; None where that doesn't say enough. Weights of norms and biases are left out."""
    config = {**config, **(config.get("text_config") or {})}

    def first(*names: str) -> int:
        return next((int(config[name]) for name in names if isinstance(config.get(name), int) and config[name] > 0), 0)

    hidden, layers, vocab = first("hidden_size", "n_embd", "d_model"), first("num_hidden_layers", "n_layer"), first("vocab_size")
    if not (hidden and layers and vocab):
        return None
    heads = first("num_attention_heads", "n_head") or 1
    head_dim = first("head_dim") or hidden // heads
    kv_heads = first("num_key_value_heads") or heads
    intermediate = first("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    gated = any(name in str(config.get("hidden_act", "")) for name in ("silu", "swish", "gelu_pytorch_tanh", "glu"))
    experts = first("num_experts", "num_local_experts", "n_routed_experts")
    inner = first("moe_intermediate_size") or intermediate
    feed_forward = (3 if gated else 2) * hidden * (inner * experts if experts else intermediate)
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
    return ModelSize(layers * (attention + feed_forward) + embeddings, layers, hidden, vocab, intermediate)


def table_speed(parameters: int, cores: int, speeds: dict[str, Any]) -> float:
    """Tokens a second in training by the stated table: straight lines in logarithms, beyond its end one over the parameters."""
    points = [(float(size), float(speed)) for size, speed in speeds["per_core"]]
    if parameters <= points[0][0]:
        return points[0][1] * cores
    for (small, fast), (big, slow) in pairwise(points):
        if parameters <= big:
            share = math.log(parameters / small) / math.log(big / small)
            return fast * (slow / fast) ** share * cores
    size, speed = points[-1]
    return speed * size / parameters * cores


def time(load: Workload, tokens_per_second: float, speed_from: str, speeds: dict[str, Any], *later: Workload) -> Estimate:
    """From the launch to the proof, of a run of one stage or of several, the last of which is proven."""
    stages, proven = (load, *later), (load, *later)[-1]
    each = [(stage.learned * stage.token + stage.read / 3 + stage.drawn * speeds["sampling"]) / tokens_per_second for stage in stages]
    proof = 2 * proven.proof_answers * proven.answer_length * speeds["sampling"] / tokens_per_second
    seconds = sum(each) + proof + speeds["start"]
    told = [f"{_gone_through(stage)}{f': {_about(taken)}' if later else ''}" for stage, taken in zip(stages, each, strict=True)]
    return Estimate(
        "time",
        seconds,
        f"about {_about(seconds)}",
        _size(seconds, 300, 7200),
        (
            *(f"Stage {number}: {line}" if later else line for number, line in enumerate(told, 1)),
            f"{tokens_per_second:,.0f} tokens a second ({speed_from})",
            f"{_about(proof)} for the proof before and after ({proven.proof_answers:,} answers each), {speeds['start']} s to start",
        ),
    )


def _gone_through(load: Workload) -> str:
    words = f"{load.steps:,} updates of {load.batch_size} examples, {load.mean_length:,.0f} tokens each: {load.learned:,.0f} tokens"
    if load.drawn:
        words += f", {load.drawn:,.0f} tokens of answers drawn"
    if load.read:
        words += f", {load.read:,.0f} read to compare with"
    return words


def _about(seconds: float) -> str:
    return duration(float(f"{seconds:.2g}"))


def adapter_parameters(model: ModelSize, rank: int, attention: bool = True, mlp: bool = True, unembed: bool = False) -> int:
    """Parameters of a LoRA adapter: rank x (in + out) of each matrix that it adds to."""
    h, f = model.hidden, model.intermediate
    layer = (4 * 2 * h if attention else 0) + (3 * (h + f) if mlp else 0)
    return rank * (model.layers * layer + ((h + model.vocab) if unembed else 0))


def memory(model: ModelSize, load: Workload, free: int, *, full: bool, trained: int, base_bytes: int = 4) -> Estimate:
    """The least that is needed, for the longest row alone with its layers recomputed; in words also what a whole batch takes at once,
    which is what happens as long as there is room."""
    base = model.parameters * base_bytes
    states = trained * 16
    row = load.longest * (model.layers * model.hidden * 4 + 12 * model.intermediate * 4) + load.longest * model.vocab * 8
    total = base + states + row + PROCESS_BYTES
    at_once = min(load.batch_size * load.mean_length, TOKENS_AT_ONCE)
    kept = at_once * model.layers * (9 * model.hidden + 3 * model.intermediate) * 4
    # Where an adapter is trained: each weight once more, added up, and rounded.
    usual = max(total, base + states + PROCESS_BYTES + kept + (0 if full else model.parameters * 6))
    what = "all weights" if full else "the adapter"
    share = total / free if free else math.inf
    return Estimate(
        "memory",
        total,
        f"about {size(min(usual, max(total, free)))}, at least {size(total)}, of {size(free)} free",
        _size(share, 0.5, 0.9),
        (
            f"{size(base)} for the model ({model.parameters / 1e6:,.1f} million parameters, {base_bytes} bytes each)",
            f"{size(states)} to train {what} ({trained / 1e6:,.2f} million parameters, 16 bytes each)",
            f"at least {size(row)} for the longest example ({load.longest:,} tokens, layers recomputed), usually {size(kept)} for "
            f"{at_once:,.0f} tokens at once; {size(PROCESS_BYTES)} for the server",
        ),
    )


def money(counted: Mapping[str, float], price: Price | None) -> Estimate | None:
    """Dollars for so many tokens of each kind; None where the price isn't known."""
    if price is None:
        return None
    if price.free:
        return Estimate("money", 0.0, "nothing", "small", (price.note,))
    amount = price.dollars(counted)
    words = {"prefill": "read", "sample": "written", "train": "learned from"}
    each = [f"{counted.get(kind, 0):,.0f} {word}" for kind, word in words.items() if counted.get(kind)]
    lines = (f"Tokens: {', '.join(each)}", price.told, *([price.note] if price.note else []))
    return Estimate("money", amount, f"about {dollars(amount)}", _size(amount, 1, 20), lines)


def _size(value: float, small: float, moderate: float) -> Size:
    return "small" if value <= small else "moderate" if value <= moderate else "large"
