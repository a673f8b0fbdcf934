"""Attention within the rows of a pack, and its gradients, as plain products: the fastest way on CPUs at the lengths people
train on, by far so in bfloat16, where torch's own kernels are slow going backward.

Heads are picked from the pack so that each row's stand side by side, rows of about one length together; what is picked
past a row's end no token of the row looks at. Knows nothing of weights or layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function

if TYPE_CHECKING:
    from engine.server.packing import Group, Pack

KEPT_BYTES = 8 * 2**20  # of probabilities kept for the backward pass, a layer; where there are more, they are worked out again
BYTES_AT_ONCE = 64 * 2**20  # of probabilities


@dataclass
class _Side:
    """One group's rows. `q`, `k`, `v` [rows * heads * width] say where its heads stand in the pack."""

    shape: tuple[int, int, int]  # rows * heads, width, and how many of these share one k and v
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor  # where the outputs of q stand among the pack's
    beyond: torch.Tensor  # places of q past a row's end
    mask: torch.Tensor  # [1, width, width], 0 where a token may look and -inf elsewhere


class Places:
    """Where to pick and put heads for one pack, the same in every layer."""

    def __init__(self, pack: Pack, heads: int, kv_heads: int, dtype: torch.dtype):
        self.sides = [_side(group, heads, kv_heads, dtype) for group in pack.groups]
        self.probabilities = sum(math.prod(side.q.shape) * side.shape[1] for side in self.sides)
        outputs, gradients, made, grown = [], [], 0, 0
        for group in pack.groups:
            counts = (heads, kv_heads, kv_heads)
            starts = [grown]
            for count in counts:
                starts.append(starts[-1] + count * group.rows * group.width)
            outputs.append(made + _spread(group, heads))
            gradients.append(torch.cat([start + _spread(group, count) for start, count in zip(starts, counts, strict=False)], dim=1))
            made += heads * group.rows * group.width
            grown = starts[-1]
        # From what the groups make, one after the other, back to the pack.
        self.outputs = torch.cat(outputs).flatten()
        self.gradients = torch.cat(gradients).flatten()


class Attention(Function):
    """Heads [N, q + k + v heads, D] of a pack -> [N, q heads * D]; causal within each row, scores over sqrt(D)."""

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, places: Places) -> torch.Tensor:
        flat = heads.view(-1, heads.shape[-1])
        keep = places.probabilities * flat.element_size() <= KEPT_BYTES
        ctx.kept, made = [], []
        for side in places.sides:
            q, k, v = _picked(flat, side)
            out = torch.empty_like(q)
            for part in _parts(side, flat):
                shares = _shares(q[part], k[part], side)
                torch.bmm(shares, v[part], out=out[part])
                if keep:
                    ctx.kept.append(shares)
            made.append(out.view(-1, out.shape[-1]))
        ctx.places = places
        ctx.save_for_backward(flat)
        return _joined(made).index_select(0, places.outputs).view(len(heads), -1)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        (flat,) = ctx.saved_tensors
        places, kept = ctx.places, iter(ctx.kept)
        of_outputs = g.reshape(-1, flat.shape[-1])
        made = []
        for side in places.sides:
            q, k, v = _picked(flat, side)
            of_out = of_outputs.index_select(0, side.out).index_fill_(0, side.beyond, 0).view(q.shape)
            of_q, of_k, of_v = (torch.empty_like(q) for _ in range(3))
            for part in _parts(side, flat):
                shares = next(kept) if ctx.kept else _shares(q[part], k[part], side)
                torch.bmm(shares.transpose(1, 2), of_out[part], out=of_v[part])
                of_shares = torch.bmm(of_out[part], v[part].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype).mul_(q.shape[-1] ** -0.5)
                torch.bmm(of_scores, k[part], out=of_q[part])
                torch.bmm(of_scores.transpose(1, 2), q[part], out=of_k[part])
            made += [of_q.view(-1, flat.shape[-1]), _shared(of_k, side), _shared(of_v, side)]
        return _joined(made).index_select(0, places.gradients).view(len(g), -1, flat.shape[-1]), None


def _side(group: Group, heads: int, kv_heads: int, dtype: torch.dtype) -> _Side:
    tokens = group.gather.view(group.rows, 1, group.width)
    repeats = heads // kv_heads
    all_heads = heads + 2 * kv_heads
    q, k, v = torch.arange(heads), heads + torch.arange(heads) // repeats, heads + kv_heads + torch.arange(heads) // repeats
    places = [(tokens * all_heads + which[None, :, None]).flatten() for which in (q, k, v)]
    real = torch.zeros(group.rows * group.width, dtype=torch.bool)
    real[group.back] = True
    beyond = (~real).view(group.rows, 1, group.width).expand(-1, heads, -1).flatten().nonzero()[:, 0]
    mask = torch.full((1, group.width, group.width), float("-inf"), dtype=dtype).triu_(1)
    return _Side((group.rows * heads, group.width, repeats), *places, (tokens * heads + q[None, :, None]).flatten(), beyond, mask)


def _spread(group: Group, heads: int) -> torch.Tensor:
    """For each token of the group [n, heads]: its place among [rows, heads, width]."""
    row, place = group.back // group.width, group.back % group.width
    return (row[:, None] * heads + torch.arange(heads)) * group.width + place[:, None]


def _picked(flat: torch.Tensor, side: _Side) -> Iterator[torch.Tensor]:
    """q, k, v [rows * heads, width, D]"""
    return (flat.index_select(0, where).view(*side.shape[:2], -1) for where in (side.q, side.k, side.v))


def _parts(side: _Side, flat: torch.Tensor) -> list[slice]:
    """Few enough heads at once."""
    size = max(1, BYTES_AT_ONCE // (side.shape[1] ** 2 * flat.element_size()))
    return [slice(start, start + size) for start in range(0, side.shape[0], size)]


def _shares(q: torch.Tensor, k: torch.Tensor, side: _Side) -> torch.Tensor:
    """How much of each v each token takes [heads, width, width]."""
    scores = torch.baddbmm(side.mask, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1)


def _shared(gradient: torch.Tensor, side: _Side) -> torch.Tensor:
    """Summed over the heads that share one k or v: [n, D]"""
    repeats = side.shape[2]
    if repeats > 1:
        gradient = gradient.unflatten(0, (-1, repeats)).sum(1)
    return gradient.view(-1, gradient.shape[-1])


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]
