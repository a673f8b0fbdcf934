"""Llama-like decoders (Llama, Qwen2, Qwen3, Mistral without windows) as a handful of tensor operations a layer.

Transformers' own forward stays the truth: `DenseModel.of` takes a model only if its parts are exactly those computed
here and its logits on random tokens come out the same, and gives None for any other. Small float32 models get weights
of their own with the adapter merged in (W + scale x B A), so that sampling costs no adapter products; others run on the
base's modules as they stand, without a copy. Knows nothing of caches' places, rows or requests.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from engine.server.model import Adapter, BaseModel

log = logging.getLogger("thinker.server")

MERGED_PARAMETERS = 200_000_000  # up to which a model is small enough to hold copies of it
MERGED_KEPT = 4  # adapters whose merged weights are kept
_FIRST_POSITIONS = 1024
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}  # of which a position's angles don't depend on the text's length

# attend(layer, q [M, H, D], k [M, K, D], v [M, K, D]) -> [M, H * D], for M = rows x tokens
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class DenseModel:
    """How to compute one base model's forward; `weights` gives it with an adapter."""

    def __init__(self, base: BaseModel):
        config = base.model.config
        self.base = base
        self.depth = len(base.model.model.layers)
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_size = base.model.model.layers[0].self_attn.head_dim
        self.merges = base.parameters <= MERGED_PARAMETERS and base.dtype == torch.float32 and base.device in ("cpu", "cuda")
        self._kept: OrderedDict[Adapter | None, DenseWeights] = OrderedDict()
        self._cos = self._sin = torch.empty(0)

    @staticmethod
    def of(base: BaseModel) -> DenseModel | None:
        """None where transformers' forward has to be used."""
        try:
            if not looks_dense(base.model):
                return None
            model = DenseModel(base)
            agrees = model._agrees()
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            log.info("sampling uses transformers' forward: %s", error)
            return None
        if not agrees:
            log.info("sampling uses transformers' forward: the fast one gives other logits")
        return model if agrees else None

    def weights(self, adapter: Adapter | None) -> DenseWeights:
        """With the adapter in place. The merged ones of a frozen adapter are kept for a while."""
        if not self.merges:
            return DenseWeights(self, adapter)
        if adapter is not None and any(parameter.requires_grad for parameter in adapter.parameters()):
            return DenseWeights(self, adapter)
        if adapter not in self._kept:
            self._kept[adapter] = DenseWeights(self, adapter)
        self._kept.move_to_end(adapter)
        while len(self._kept) > MERGED_KEPT:
            self._kept.popitem(last=False)
        return self._kept[adapter]

    def angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of rotary positions [M] -> [M, D/2] each, from a table that grows as needed."""
        needed = int(positions.max()) + 1
        if needed > len(self._cos):
            size = min(max(needed, 2 * len(self._cos), _FIRST_POSITIONS), max(self.base.context, needed))
            every = torch.arange(size, device=self.base.device)[None]
            cos, sin = self.base.model.model.rotary_emb(torch.zeros(1, device=self.base.device, dtype=self.base.dtype), every)
            if cos.shape[-1] != self.head_size:
                raise RuntimeError("only a part of each head is rotated")
            self._cos, self._sin = (table[0, :, : self.head_size // 2].clone() for table in (cos, sin))
        return self._cos[positions], self._sin[positions]

    def _agrees(self) -> bool:
        """Its logits are those of transformers' forward, for an adapter too."""
        base, generator = self.base, torch.Generator().manual_seed(0)
        tokens = torch.randint(base.vocab_size, (2, min(24, base.context)), generator=generator).to(base.device)
        expected = base.model(input_ids=tokens, use_cache=False).logits.float()
        with torch.inference_mode():
            weights = DenseWeights(self, None)
            got = weights.logits(weights.run(tokens, causal(*tokens.shape))).view(expected.shape)
        tolerance = 1e-4 if base.dtype == torch.float32 else 4e-2
        return bool((got - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1))


class DenseWeights:
    """A dense model's weights with one adapter."""

    def __init__(self, model: DenseModel, adapter: Adapter | None):
        self.model = model
        self._adapter = adapter
        whole = model.base.model
        with model.base.using(adapter):
            kind = _Merged if model.merges else _Shared
            self._layers = [kind(model, layer, adapter, f"model.layers.{i}") for i, layer in enumerate(whole.model.layers)]
            self._embedding = whole.model.embed_tokens.weight
            self._norm = _Norm(whole.model.norm)
            head = _merged(adapter, whole, ["lm_head"]) if model.merges else None
            self._head = (lambda x: F.linear(x, *head)) if head else whole.lm_head

    def run(self, tokens: torch.Tensor, attend: Attend, positions: torch.Tensor | None = None) -> torch.Tensor:
        """tokens [N, T] -> hidden states [N * T, width] after the last norm; positions [N, T] count from 0 unless given."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        cos, sin = self.model.angles(positions.reshape(-1))
        turn = torch.complex(cos, sin)[:, None] if self.model.merges else (cos[:, None], sin[:, None])
        with self.model.base.using(self._adapter):
            x = F.embedding(tokens.reshape(-1), self._embedding)
            for i, layer in enumerate(self._layers):
                q, k, v = layer.heads(x, turn)
                x = layer.rest(x, attend(i, q, k, v))
        return self._norm(x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[M, width] -> float32 [M, V]."""
        with self.model.base.using(self._adapter):
            return self._head(hidden).float()


def causal(
    rows: int, width: int, keep: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None, mask: torch.Tensor | None = None
) -> Attend:
    """Each token attends to those before it in its row and to itself, or as the mask [N, 1, T, T] says.

    `keep(layer, k, v)` gets [N, K, T, D] each.
    """

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(0, (rows, width)).transpose(1, 2) for part in (q, k, v))
        if keep:
            keep(layer, k, v)
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
        return out.transpose(1, 2).reshape(rows * width, -1)

    return attend


class _Norm:
    """RMSNorm: x / sqrt(mean x^2 + eps) x weight."""

    def __init__(self, module: nn.Module):
        self.weight, self.eps = module.weight, module.variance_epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight * F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype)


class _Merged:
    """One layer's own float32 weights: fused projections, head dimensions reordered so that a rotation is one product."""

    def __init__(self, model: DenseModel, layer: nn.Module, adapter: Adapter | None, name: str):
        self._shape = (model.heads + 2 * model.kv_heads, model.head_size)
        self._heads, self._turned = model.heads, model.heads + model.kv_heads
        attention, half = layer.self_attn, model.head_size // 2
        # (x1, x2) of the two halves side by side: a complex number, turned by one complex product. Scores don't mind the order.
        order = torch.arange(model.head_size, device=model.base.device).view(2, half).t().flatten()
        weight, bias = _merged(adapter, attention, ["q_proj", "k_proj", "v_proj"], f"{name}.self_attn.")
        self._qkv = self._reordered(weight, order), None if bias is None else self._reordered(bias, order)
        self._norm1, self._norm2 = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._scale = None
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm.weight[order]] * model.heads + [attention.k_norm.weight[order]] * model.kv_heads
            self._scale, self._eps = torch.stack(norms), attention.q_norm.variance_epsilon
        self._out, self._out_bias = _merged(adapter, attention, ["o_proj"], f"{name}.self_attn.")
        self._up = _merged(adapter, layer.mlp, ["gate_proj", "up_proj"], f"{name}.mlp.")
        self._down, self._down_bias = _merged(adapter, layer.mlp, ["down_proj"], f"{name}.mlp.")
        self._activate = layer.mlp.act_fn

    def _reordered(self, values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        by_head = values.view(*self._shape, *values.shape[1:]).clone()
        by_head[: self._turned] = by_head[: self._turned, order]
        return by_head.view(values.shape)

    def heads(self, x: torch.Tensor, turn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = F.linear(self._norm1(x), *self._qkv).view(-1, *self._shape)
        turned = y[:, : self._turned]
        if self._scale is not None:
            turned = F.rms_norm(turned, (self._shape[1],), None, self._eps) * self._scale
        turned = torch.view_as_real(torch.view_as_complex(turned.unflatten(-1, (-1, 2))) * turn).flatten(-2)
        return turned[:, : self._heads], turned[:, self._heads :], y[:, self._turned :]

    def rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = _add_product(x, attended, self._out, self._out_bias)
        gate, up = F.linear(self._norm2(x), *self._up).chunk(2, -1)
        return _add_product(x, self._activate(gate) * up, self._down, self._down_bias)


class _Shared:
    """One layer on the base's own modules, which add what the active adapter gives."""

    def __init__(self, model: DenseModel, layer: nn.Module, adapter: Adapter | None, name: str):
        self._model, self._layer, self._attention = model, layer, layer.self_attn
        self._norm1, self._norm2 = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        named = hasattr(self._attention, "q_norm")
        self._q_norm, self._k_norm = (_Norm(self._attention.q_norm), _Norm(self._attention.k_norm)) if named else (None, None)

    def heads(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y, part, size = self._norm1(x), self._attention, self._model.head_size
        q, k, v = (project(y).view(len(x), -1, size) for project in (part.q_proj, part.k_proj, part.v_proj))
        if self._q_norm:
            q, k = self._q_norm(q), self._k_norm(k)
        return _turned(q, *turn), _turned(k, *turn), v

    def rest(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = x + self._attention.o_proj(attended)
        y, mlp = self._norm2(x), self._layer.mlp
        return x + mlp.down_proj(mlp.act_fn(mlp.gate_proj(y)) * mlp.up_proj(y))


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _add_product(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.addmm(x if bias is None else x + bias, y, weight.t())


def _merged(adapter: Adapter | None, parent: nn.Module, names: list[str], prefix: str = "") -> tuple[torch.Tensor, torch.Tensor | None]:
    """The named linear layers one above the other, each with the adapter's product added."""
    weights, biases = [], []
    for name in names:
        layer = getattr(parent, name)
        weight, pair = layer.weight, adapter.pairs.get(prefix + name) if adapter else None
        if pair is not None:
            a, b = pair
            weight = weight + (b @ a) * adapter.scale
        weights.append(weight.detach())
        biases.append(layer.bias)
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    if all(bias is None for bias in biases):
        return weight, None
    return weight, torch.cat([weight.new_zeros(len(w)) if bias is None else bias for w, bias in zip(weights, biases, strict=True)])


def looks_dense(model: nn.Module) -> bool:
    """Its parts are those computed here, and no others."""
    config, inner = model.config, getattr(model, "model", None)
    if {name for name, _ in model.named_children()} != {"model", "lm_head"} or getattr(inner, "layers", None) is None:
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    windows = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or [])
    windows = windows or (getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None) is not None)
    if windows or rope.get("rope_type", "default") not in _FIXED_ROPE:
        return False
    if {name for name, _ in inner.named_children()} != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return False
    for layer in inner.layers:
        parts = [{name for name, _ in module.named_children()} for module in (layer, layer.self_attn, layer.mlp)]
        if parts[0] != _LAYER or parts[1] - {"q_norm", "k_norm"} != _ATTENTION or parts[2] != _MLP:
            return False
    return True
