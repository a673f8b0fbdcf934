"""The weights of a model that an adapter can add to, and what stands in their place while it does. Knows no family by name.

Four forms are adapted: linear layers (fused ones, such as qkv or gate_up, are one layer), GPT-2's transposed Conv1D, the
output head, and experts that a mixture keeps as one 3-D parameter. Routers never are: a mixture whose router drifts
falls out of balance. Pairs have PEFT's shapes: A [experts * rank, in], B [out, rank * experts], one expert otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

_ATTENTION_WORDS = ("attn", "attention")
_ROUTER_NAMES = ("gate", "shared_expert_gate")  # and whatever ends in "router"
_OTHER_SENSES = ("vision", "visual", "audio", "multi_modal")  # towers beside the language model

Pair = tuple[nn.Parameter, nn.Parameter]


class Pairs(Protocol):
    """What a layer needs of the adapter that is active."""

    pairs: Mapping[str, Pair]
    scale: float


NARROW_COST = 3  # how much slower a product over few columns runs, a multiplication, than one over many (measured on CPUs)

Active = list  # one place, [Pairs | None]: the adapter of the request at hand


@dataclass(frozen=True)
class Layer:
    """One weight that can be adapted. `name` is the module's, or for experts the parameter's; `peft_key` PEFT's for its pair."""

    name: str
    kind: str  # attn, mlp or unembed
    peft_key: str
    owner: nn.Module
    parameter: str
    in_features: int
    out_features: int
    experts: int = 1
    transposed: bool = False  # the weight is stored as [in, out]

    @property
    def weight(self) -> torch.Tensor:
        """As stored: [out, in], or [in, out] where `transposed`; experts before that."""
        return getattr(self.owner, self.parameter)

    @property
    def is_expert(self) -> bool:
        return self.weight.ndim == 3

    def shapes(self, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of A and B."""
        return (rank * self.experts, self.in_features), (self.out_features, rank * self.experts)

    def delta(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """B A, shaped as the weight is stored."""
        rank = a.shape[0] // self.experts
        a = a.view(self.experts, rank, self.in_features)
        b = b.view(self.out_features, rank, self.experts).permute(2, 0, 1)
        change = torch.bmm(b, a)
        if self.transposed:
            change = change.transpose(1, 2)
        return change if self.is_expert else change[0]


class AdaptedLinear(nn.Module):
    """A frozen linear layer (or Conv1D) plus the pair of whichever adapter is active."""

    def __init__(self, layer: Layer, active: Active):
        super().__init__()
        self.base = layer.owner
        self._name = layer.name
        self._active = active
        self._mergeable = type(layer.owner) is nn.Linear
        self.in_features, self.out_features = layer.in_features, layer.out_features

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapter = self._active[0]
        pair = adapter.pairs.get(self._name) if adapter else None
        if pair is None:
            return self.base(x)
        a, b = pair
        weight = self.base.weight
        # In mixed precision a sum W + BA would be rounded to bfloat16, and small BA with it.
        exact = weight.dtype == a.dtype and not torch.is_autocast_enabled(x.device.type)
        if self._mergeable and exact and merging_pays(x.numel() // x.shape[-1], weight.shape, a.shape[0]):
            return F.linear(x, torch.addmm(weight, b, a, alpha=adapter.scale), self.base.bias)
        y = self.base(x)
        return y + (F.linear(F.linear(x.to(a.dtype), a), b) * adapter.scale).to(y.dtype)


class AdaptedExperts(nn.Module):
    """Frozen experts; each request sees them with its adapter's pairs added. That takes a copy of them a layer, as in PEFT."""

    def __init__(self, owner: nn.Module, layers: list[Layer], active: Active):
        super().__init__()
        self.base = owner
        self._layers = layers
        self._active = active

    def forward(self, *inputs: Any, **options: Any) -> Any:
        adapter = self._active[0]
        changed = {}
        for layer in self._layers:
            pair = adapter.pairs.get(layer.name) if adapter else None
            if pair is not None:
                change = layer.delta(*pair) * adapter.scale
                changed[layer.parameter] = layer.weight + change.to(layer.weight.dtype)
        return functional_call(self.base, changed, inputs, options) if changed else self.base(*inputs, **options)


def find_layers(model: nn.Module) -> list[Layer]:
    """All that can be adapted, in the model's order."""
    head = model.get_output_embeddings()
    found = []
    for name, module in model.named_modules():
        if any(word in name for word in _OTHER_SENSES):
            continue
        if isinstance(module, nn.Linear) or _is_conv1d(module):
            kind = "unembed" if module is head else _kind(model, name)
            if kind and not _is_bypassed(model, name):
                found.append(_linear(name, kind, module))
        elif _is_experts(module):
            found += _experts(name, module, _kind(model, name))
    return found


def wrap(model: nn.Module, layers: list[Layer], active: Active) -> None:
    """Puts the layers behind the look-up of the active adapter."""
    by_owner: dict[int, list[Layer]] = {}
    for layer in layers:
        by_owner.setdefault(id(layer.owner), []).append(layer)
    for group in by_owner.values():
        first = group[0]
        name = first.name.removesuffix(f".{first.parameter}") if first.is_expert else first.name
        parent, _, last = name.rpartition(".")
        stand_in = AdaptedExperts(first.owner, group, active) if first.is_expert else AdaptedLinear(first, active)
        setattr(model.get_submodule(parent), last, stand_in)


def merging_pays(tokens: int, shape: torch.Size, rank: int) -> bool:
    """Whether W + BA, made anew for this call, costs less than A and B beside W (multiplications, backward ones included)."""
    out_features, in_features = shape
    passes = 3 if torch.is_grad_enabled() else 1
    apart = passes * tokens * rank * (in_features + out_features) * NARROW_COST
    merged = passes * in_features * out_features * rank + (tokens * in_features * out_features if passes > 1 else 0)
    return merged < apart


def _kind(model: nn.Module, name: str) -> str:
    """attn or mlp by the names of the module and of the class that it's part of; nothing for routers."""
    parts = name.lower().split(".")
    if any(part in _ROUTER_NAMES or part.endswith("router") for part in parts):
        return ""
    whole = type(model.get_submodule(name.rpartition(".")[0])).__name__.lower()
    of_attention = "attention" in whole and not whole.endswith(("layer", "block"))
    return "attn" if of_attention or any(word in part for part in parts for word in _ATTENTION_WORDS) else "mlp"


def _is_bypassed(model: nn.Module, name: str) -> bool:
    """Mamba's kernels take these layers' weights and never call them. PEFT leaves them out, or adapts them to no effect."""
    parent, _, last = name.rpartition(".")
    mixer = model.get_submodule(parent)
    return last in ("dt_proj", "out_proj") and hasattr(mixer, "A_log") and hasattr(mixer, "D")


def _is_conv1d(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _is_experts(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return "expert" in type(module).__name__.lower() and any(p.ndim == 3 and p.is_floating_point() for p in own)


def _linear(name: str, kind: str, module: nn.Module) -> Layer:
    key = f"base_model.model.{name}"
    if isinstance(module, nn.Linear):
        return Layer(name, kind, key, module, "weight", module.in_features, module.out_features)
    inside, outside = module.weight.shape
    return Layer(name, kind, key, module, "weight", inside, outside, transposed=True)


def _experts(name: str, module: nn.Module, kind: str) -> list[Layer]:
    transposed = bool(getattr(module, "is_transposed", False))
    own = [(parameter, p) for parameter, p in module.named_parameters(recurse=False) if p.ndim == 3 and p.is_floating_point()]
    found = []
    for depth, (parameter, p) in enumerate(reversed(own)):
        experts, outside, inside = p.shape
        if transposed:
            outside, inside = inside, outside
        # PEFT puts one wrapper around the other, the last parameter's outermost.
        key = f"base_model.model.{name}" + ".base_layer" * depth
        found.append(Layer(f"{name}.{parameter}", kind, key, module, parameter, inside, outside, experts, transposed))
    return found[::-1]
