"""Training's forward and backward of Llama-like decoders (those that `dense` knows), with each layer's gradients written out.

Autograd runs such a layer as about sixty operations; here it is three: into attention, attention, and the rest. Linear
layers with one input are one product; sums, norms and rotations are float32, products of the type asked for, which
bfloat16 makes up to four times faster on CPUs that multiply it. Frozen bases with adapters only.

Used only where `packing` has compared its log-probabilities and gradients with the padded reference. Knows nothing of
losses, requests or runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional as F

from engine.server.attend import Attention, Places
from engine.server.dense import looks_dense
from engine.server.joined import Given, Joined
from engine.server.layers import Pairs
from engine.system import free_memory

if TYPE_CHECKING:
    from engine.server.model import BaseModel
    from engine.server.packing import Pack

SHARE_OF_MEMORY = 0.25  # that copies of the weights may take of what is free
BYTES_A_WEIGHT = 6  # a float32 copy to add pairs to, and one in bfloat16


class Fused:
    """One base model's decoder: packed tokens to hidden states, with gradients for an adapter's pairs."""

    def __init__(self, base: BaseModel):
        model = base.model.model
        config = base.model.config
        self._model = model
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = model.layers[0].self_attn.head_dim
        # (x1, x2) of a head's two halves side by side: a complex number, turned by one product. Scores don't mind the order.
        self.order = torch.arange(self.head_size).view(2, -1).t().flatten()
        self._layers = [_Layer(layer, f"model.layers.{i}", self) for i, layer in enumerate(model.layers)]

    @classmethod
    def of(cls, base: BaseModel) -> Fused | None:
        """None for a model of another shape, or one too large for further copies."""
        small = base.parameters * BYTES_A_WEIGHT < SHARE_OF_MEMORY * free_memory(base.device)
        if base.device != "cpu" or base.dtype != torch.float32 or not small:
            return None
        try:
            silu = looks_dense(base.model) and all(_is_silu(layer.mlp.act_fn) for layer in base.model.model.layers)
            return cls(base) if silu else None
        except (AttributeError, KeyError, RuntimeError, TypeError):
            return None

    def hidden(self, pack: Pack, adapter: Pairs | None, dtype: torch.dtype) -> torch.Tensor:
        """States after the last norm, float32 [N, width]; products in `dtype`."""
        states = self._model.embed_tokens(pack.tokens)[0]
        turn = self._turn(pack.positions)
        places = Places(pack, self.heads, self.kv_heads, dtype)
        scale = adapter.scale if adapter else 1.0
        for layer in self._layers:
            into, rest = layer.pairs(adapter)
            qkv = _Into.apply(states, layer, turn, scale, dtype, *into)
            attended = Attention.apply(qkv, places)
            states = _Rest.apply(states, attended, layer, scale, dtype, *rest)
        return self._model.norm(states)

    def _turn(self, positions: torch.Tensor) -> torch.Tensor:
        """The rotation of each head's halves as complex numbers [N, rotated heads, D / 2]."""
        cos, sin = (part[0, :, : self.head_size // 2] for part in self._model.rotary_emb(torch.zeros(1), positions))
        return torch.complex(cos, sin)[:, None].expand(-1, self.heads + self.kv_heads, -1).contiguous()


class _Layer:
    """The frozen half of one decoder layer."""

    def __init__(self, module: nn.Module, name: str, whole: Fused):
        attention = module.self_attn
        self.rotated, self.head_size = whole.heads + whole.kv_heads, whole.head_size
        self.norm1, self.norm2 = _Norm(module.input_layernorm), _Norm(module.post_attention_layernorm)
        self.scale: torch.Tensor | None = None  # of the heads' norms, [rotated heads, D]
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm.weight] * whole.heads + [attention.k_norm.weight] * whole.kv_heads
            self.scale = torch.stack([weight.detach()[whole.order] for weight in norms])
            self.eps = attention.q_norm.variance_epsilon
        rotated = [whole.order + whole.head_size * head for head in range(whole.heads)]
        orders = [torch.cat(rotated), torch.cat(rotated[: whole.kv_heads]), None]
        self.qkv = _joined(name, module, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], orders)
        self.out = _joined(name, module, ["self_attn.o_proj"])
        self.gate_up = _joined(name, module, ["mlp.gate_proj", "mlp.up_proj"])
        self.down = _joined(name, module, ["mlp.down_proj"])

    def pairs(self, adapter: Pairs | None) -> tuple[Given, Given]:
        """Of the layers before attention, and of those after it."""
        return self.qkv.pairs(adapter), self.out.pairs(adapter) + self.gate_up.pairs(adapter) + self.down.pairs(adapter)


class _Norm:
    """RMSNorm: x / sqrt(mean x^2 + eps) x weight, in float32."""

    def __init__(self, module: nn.Module):
        self._weight, self._eps = module.weight.detach(), module.variance_epsilon

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """-> the normed x in `dtype`, and the scale of each row, which `backward` takes."""
        scale = _inverse_rms(x, self._eps)
        return (x * scale).mul_(self._weight).to(dtype), scale

    def backward(self, g: torch.Tensor, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return _norm_gradient(g * self._weight, x * scale, scale)


class _Into(Function):
    """States [N, width] -> heads [N, q + k + v heads, D]: norm, projections, the heads' own norms, rotation."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, layer: _Layer, turn: torch.Tensor, scale: float, dtype: torch.dtype, *pairs: Any
    ) -> torch.Tensor:
        normed, rms = layer.norm1.forward(states, dtype)
        y, held = layer.qkv.product(normed, pairs, scale)
        heads = y.view(len(y), -1, layer.head_size)
        turned = heads[:, : layer.rotated].float()
        kept = None
        if layer.scale is not None:
            kept = heads[:, : layer.rotated].clone()
            turned = (turned * _inverse_rms(turned, layer.eps)).mul_(layer.scale)
        heads[:, : layer.rotated] = _turned(turned, turn)
        ctx.layer, ctx.scale, ctx.held = layer, scale, held
        ctx.save_for_backward(states, turn, normed, rms, kept, *pairs)
        return heads

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, turn, normed, rms, kept, *pairs = ctx.saved_tensors
        layer = ctx.layer
        turned = _turned(g[:, : layer.rotated].float(), turn.conj())
        if kept is not None:
            before = kept.float()
            own = _inverse_rms(before, layer.eps)
            turned = _norm_gradient(turned * layer.scale, before.mul_(own), own)
        gy = g.clone()
        gy[:, : layer.rotated] = turned
        gx, of_pairs = layer.qkv.gradients(gy.view(len(g), -1), normed, ctx.held, tuple(pairs), ctx.scale)
        return layer.norm1.backward(gx.float(), states, rms), None, None, None, None, *of_pairs


class _Rest(Function):
    """States and what attention gave -> the next states: output projection, norm, gated feed-forward."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, attended: torch.Tensor, layer: _Layer, scale: float, dtype: torch.dtype, *pairs: Any
    ) -> torch.Tensor:
        out, held1 = layer.out.product(attended, pairs[:2], scale)
        middle = states + out
        normed, rms = layer.norm2.forward(middle, dtype)
        both, held2 = layer.gate_up.product(normed, pairs[2:6], scale)
        gate, up = both.chunk(2, -1)
        acted = F.silu(gate).mul_(up)
        down, held3 = layer.down.product(acted, pairs[6:], scale)
        ctx.layer, ctx.scale, ctx.held = layer, scale, (held1, held2, held3)
        ctx.save_for_backward(attended, middle, normed, rms, both, acted, *pairs)
        return middle + down

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        attended, middle, normed, rms, both, acted, *pairs = ctx.saved_tensors
        layer, scale = ctx.layer, ctx.scale
        held1, held2, held3 = ctx.held
        g_acted, of_down = layer.down.gradients(g.to(acted.dtype), acted, held3, tuple(pairs[6:]), scale)
        gate, up = both.chunk(2, -1)
        g_both = torch.empty_like(both)
        g_gate, g_up = g_both.chunk(2, -1)
        torch.mul(g_acted, F.silu(gate), out=g_up)
        torch.ops.aten.silu_backward.grad_input(g_acted.mul_(up), gate, grad_input=g_gate)
        g_normed, of_gate_up = layer.gate_up.gradients(g_both, normed, held2, tuple(pairs[2:6]), scale)
        g = layer.norm2.backward(g_normed.float(), middle, rms).add_(g)
        g_attended, of_out = layer.out.gradients(g.to(attended.dtype), attended, held1, tuple(pairs[:2]), scale)
        return g, g_attended, None, None, None, *of_out, *of_gate_up, *of_down


def _inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_gradient(g: torch.Tensor, unit: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Of x, for unit = x * scale and scale = 1 / sqrt(mean x^2 + eps), from the gradient of unit. Overwrites g."""
    mean = (g * unit).mean(-1, keepdim=True)
    return g.sub_(unit.mul_(mean)).mul_(scale)


def _turned(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Heads [N, H, D] of neighbouring pairs, each turned by its own complex number."""
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)


def _is_silu(module: nn.Module) -> bool:
    return type(module).__name__ in ("SiLU", "SiLUActivation")


def _joined(name: str, module: nn.Module, parts: list[str], orders: list[torch.Tensor | None] | None = None) -> Joined:
    return Joined({f"{name}.{part}": module.get_submodule(part).base for part in parts}, orders)
