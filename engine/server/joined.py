"""Frozen linear layers that take the same input, as one product with what an adapter adds to them, and its gradients.

A pair (A, B) is either added to its weight for the call, W + scale x B A, or works beside it, whichever costs less.
Products are made in the type of what comes in; pairs and their gradients are float32. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from engine.server.layers import Pairs, merging_pays

Given = tuple[torch.Tensor | None, ...]  # A, B, A, B ... of the layers; None twice where one has no pair


@dataclass(frozen=True)
class Held:
    """What the gradients need to know of a product."""

    weight: torch.Tensor
    low: torch.Tensor | None  # x A^T of all pairs side by side, where pairs worked beside the weight


@dataclass(frozen=True)
class _Part:
    """One of the layers: where its outputs are among all, and how they are rearranged there."""

    name: str
    span: slice
    order: torch.Tensor | None

    def arranged(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.order is None else values[self.order]

    def undone(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.order is None else torch.empty_like(values).index_copy_(0, self.order, values)


class Joined:
    """y = x W^T + bias for the layers' outputs side by side."""

    def __init__(self, layers: dict[str, nn.Linear], orders: list[torch.Tensor | None] | None = None):
        """`layers` by the names that adapters know them by; `orders`: how each one's outputs are rearranged."""
        self._parts: list[_Part] = []
        start = 0
        for (name, layer), order in zip(layers.items(), orders or [None] * len(layers), strict=True):
            self._parts.append(_Part(name, slice(start, start + layer.out_features), order))
            start += layer.out_features
        weights = [part.arranged(layer.weight.detach()) for part, layer in zip(self._parts, layers.values(), strict=True)]
        self._exact = _stacked(weights)
        self._rounded: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None
        if any(layer.bias is not None for layer in layers.values()):
            biases = [
                layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers.values()
            ]
            self._bias = torch.cat([part.arranged(bias) for part, bias in zip(self._parts, biases, strict=True)])

    def pairs(self, adapter: Pairs | None) -> Given:
        """The adapter's, as the other methods take them."""
        none = (None, None)
        return tuple(side for part in self._parts for side in (adapter.pairs.get(part.name, none) if adapter else none))

    def product(self, x: torch.Tensor, given: Given, scale: float) -> tuple[torch.Tensor, Held]:
        """x [N, in] -> y [N, out], and what `gradients` is to be told."""
        pairs = self._with_pairs(given)
        if pairs and merging_pays(len(x), self._exact.shape, max(a.shape[0] for _, a, _ in pairs)):
            held = Held(self._merged(pairs, scale, x.dtype), None)
        else:
            held = Held(self._weight(x.dtype), x @ _low(pairs, x.dtype).t() if pairs else None)
        y = F.linear(x, held.weight, None if self._bias is None else self._bias.to(x.dtype))
        if held.low is not None:
            for (part, _, b), low in zip(pairs, _split(held.low, pairs), strict=True):
                y[:, part.span].addmm_(low, (part.arranged(b) * scale).to(x.dtype).t())
        return y, held

    def gradients(
        self, gy: torch.Tensor, x: torch.Tensor, held: Held, given: Given, scale: float
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Of x, and of what was given."""
        pairs = self._with_pairs(given)
        gx = gy @ held.weight
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if held.low is not None:
            of_low = torch.empty_like(held.low)
            of_bs = []
            for (part, _, b), low, into in zip(pairs, _split(held.low, pairs), _split(of_low, pairs), strict=True):
                torch.mm(gy[:, part.span], (part.arranged(b) * scale).to(x.dtype), out=into)
                of_bs.append(part.undone((gy[:, part.span].t() @ low).float()).mul_(scale))
            gx.addmm_(of_low, _low(pairs, x.dtype))
            of_as = (of_low.t() @ x).float().split([a.shape[0] for _, a, _ in pairs])
            found = {part.name: (of_a, of_b) for (part, _, _), of_a, of_b in zip(pairs, of_as, of_bs, strict=True)}
        elif pairs:
            of_weight = (gy.t() @ x).float()
            for part, a, b in pairs:
                own = of_weight[part.span]
                found[part.name] = ((part.arranged(b).t() @ own).mul_(scale), part.undone(own @ a.t()).mul_(scale))
        return gx, [side for part in self._parts for side in found.get(part.name, (None, None))]

    def _with_pairs(self, given: Given) -> list[tuple[_Part, torch.Tensor, torch.Tensor]]:
        return [(part, a, b) for part, a, b in zip(self._parts, given[::2], given[1::2], strict=True) if a is not None]

    def _weight(self, dtype: torch.dtype) -> torch.Tensor:
        if dtype == self._exact.dtype:
            return self._exact
        if self._rounded is None:
            self._rounded = self._exact.to(dtype)
        return self._rounded

    def _merged(self, pairs: list[tuple[_Part, torch.Tensor, torch.Tensor]], scale: float, dtype: torch.dtype) -> torch.Tensor:
        """W + scale x B A, added up in float32."""
        merged = torch.empty_like(self._exact, dtype=dtype) if len(pairs) == len(self._parts) else self._exact.to(dtype, copy=True)
        for part, a, b in pairs:
            merged[part.span] = torch.addmm(self._exact[part.span], part.arranged(b), a, alpha=scale)
        return merged


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _low(pairs: list[tuple[_Part, torch.Tensor, torch.Tensor]], dtype: torch.dtype) -> torch.Tensor:
    """All A, one above the other."""
    return _stacked([a for _, a, _ in pairs]).to(dtype)


def _split(low: torch.Tensor, pairs: list[tuple[_Part, torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    return low.split([a.shape[0] for _, a, _ in pairs], dim=1)
