"""Rows being continued together: their keys and values, and one forward step for all. Knows nothing of drawing or requests.

`SlotBatch` keeps rows in the first slots of preallocated caches that grow in blocks; rows join at any step, and the last
rows move into the slots of those that leave. `GeneralBatch` does it for any model by transformers' own cache: rows join
all at once, left-padded, and leave when a quarter of the batch is idle.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from engine.server.dense import DenseModel, DenseWeights, causal
from engine.server.model import Adapter, BaseModel

BLOCK = 128  # columns by which caches grow
_SLOTS = 128  # to which a batch grows by doubling
_MATMUL_ROWS = 48  # from which on a CPU two products beat the attention kernel


def together(prompts: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[int]]:
    """Each distinct prompt once, and for each given prompt which one it is."""
    places: dict[tuple[int, ...], int] = {}
    which = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
    return list(places), which


class SlotBatch:
    """Rows of a dense model, which all end at the same column: a step writes one column for all of them."""

    joinable = True

    def __init__(self, model: DenseModel, adapter: Adapter | None):
        self._model, self._device, self._dtype = model, model.base.device, model.base.dtype
        self._weights: DenseWeights = model.weights(adapter)
        self._caches: list[torch.Tensor] = []  # a layer each: [keys | values, slots, K, columns, D]
        self._starts: list[int] = []  # the first column of each row
        self._width = 0  # columns in use
        self._holes = False  # whether some row doesn't fill all columns
        self._mask = torch.empty(0, 0, dtype=self._dtype, device=self._device)  # [slots, columns]: 0 where there is a token, else -inf
        self._positions = torch.empty(0, dtype=torch.long, device=self._device)  # of each slot's next token

    def __len__(self) -> int:
        return len(self._starts)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Adds a row for each prompt. -> logits [N, V] of what follows."""
        distinct, which = together(prompts)
        lengths = torch.tensor([len(prompt) for prompt in distinct], device=self._device)
        first, count, longest = len(self), len(prompts), int(lengths.max())
        last, width = first + count, max(self._width, longest)
        self._make_room(last, width + BLOCK // 2)
        self._widen(width)
        start = width - longest
        source = torch.tensor(which, device=self._device)

        def keep(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
            for place, values in zip(self._caches[layer][:, first:last], (k, v), strict=True):
                # What nobody wrote may hold a NaN, which would spoil a sum even where the mask hides it.
                place[:, :, :start] = 0
                place[:, :, start:width] = values if len(values) == count else values[source]

        tokens, positions, mask = _left_padded(distinct, lengths, longest, self._dtype)
        hidden = self._weights.run(tokens, causal(len(distinct), longest, keep, mask), positions)
        logits = self._weights.logits(hidden.view(len(distinct), longest, -1)[:, -1])
        starts = [width - len(distinct[i]) for i in which]
        self._starts += starts
        self._holes = self._holes or any(starts)
        self._positions[first:last] = lengths[source]
        before = torch.arange(self._mask.shape[1], device=self._device) < torch.tensor(starts, device=self._device)[:, None]
        self._mask[first:last] = torch.zeros(before.shape, dtype=self._dtype, device=self._device).masked_fill_(before, float("-inf"))
        return logits[source]

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The rows' next tokens [N] -> logits [N, V] of what follows them."""
        n, column = len(self), self._width
        self._make_room(n, column + 1)
        self._width = width = column + 1
        mask = self._mask[:n, None, None, :width] if self._holes else None

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self._caches[layer][:, :n, :, :width].unbind()
            keys[:, :, column], values[:, :, column] = k, v
            return self._attend(q, keys, values, mask)

        positions = self._positions[:n]
        hidden = self._weights.run(tokens[:, None], attend, positions[:, None])
        positions += 1
        return self._weights.logits(hidden)

    @torch.inference_mode()
    def drop(self, gone: Sequence[int]) -> list[int]:
        """Rows leave, the last ones take their slots. -> for each row that is left, which one it was."""
        left, leaving = len(self) - len(gone), set(gone)
        free = [slot for slot in sorted(leaving) if slot < left]
        movers = [slot for slot in range(left, len(self)) if slot not in leaving]
        order = list(range(left))
        if free:
            to, source = torch.tensor(free, device=self._device), torch.tensor(movers, device=self._device)
            for cache in self._caches:
                cache[:, to, :, : self._width] = cache[:, source, :, : self._width]
            self._mask[to], self._positions[to] = self._mask[source], self._positions[source]
            for slot, mover in zip(free, movers, strict=True):
                order[slot] = mover
        self._starts = [self._starts[slot] for slot in order]
        self._shift_left()
        return order

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        n, heads, size = q.shape
        if self._device == "cpu" and n >= _MATMUL_ROWS:
            scores = torch.matmul(q.reshape(n, keys.shape[1], -1, size) * size**-0.5, keys.transpose(-1, -2))
            scores = (scores if mask is None else scores.add_(mask)).softmax(-1)
            return torch.matmul(scores, values).view(n, -1)
        grouped = heads != keys.shape[1]
        return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask, enable_gqa=grouped).reshape(n, -1)

    def _widen(self, width: int) -> None:
        """A newcomer is longer than all: the others' columns up to its end stay empty."""
        if len(self) and width > self._width:
            for cache in self._caches:
                cache[:, : len(self), :, self._width : width] = 0
            self._mask[: len(self), self._width : width] = float("-inf")
            self._holes = True
        self._width = width

    def _shift_left(self) -> None:
        """Gives back the columns that only rows now gone had used."""
        unused = min(self._starts, default=self._width)
        if unused >= BLOCK or not self._starts:
            n, width = len(self), self._width
            for cache in self._caches if n else []:
                cache[:, :n, :, : width - unused] = cache[:, :n, :, unused:width].clone()
            self._mask[:n, : width - unused] = self._mask[:n, unused:width].clone()
            self._mask[:n, width - unused :] = 0
            self._starts = [start - unused for start in self._starts]
            self._width = width - unused
        self._holes = bool((self._mask[: len(self), : self._width] < 0).any()) if self._holes else False

    def _make_room(self, slots: int, columns: int) -> None:
        have_slots, have_columns = self._mask.shape
        if slots <= have_slots and columns <= have_columns:
            return
        if slots > have_slots:
            slots = max(slots, min(2 * have_slots, _SLOTS))
        slots, columns = max(slots, have_slots), max(-(-columns // BLOCK) * BLOCK, have_columns)
        model, n, width = self._model, len(self), self._width
        shape = (2, slots, model.kv_heads, columns, model.head_size)
        for layer in range(model.depth):
            grown = torch.empty(shape, dtype=self._dtype, device=self._device)
            if n:
                grown[:, :n, :, :width] = self._caches[layer][:, :n, :, :width]
            # One layer after the other, so that old and new caches are never held whole at once.
            self._caches[layer : layer + 1] = [grown]
        mask = torch.zeros(slots, columns, dtype=self._dtype, device=self._device)
        mask[:have_slots, :have_columns] = self._mask
        positions = torch.zeros(slots, dtype=torch.long, device=self._device)
        positions[:have_slots] = self._positions
        self._mask, self._positions = mask, positions


def _left_padded(
    prompts: Sequence[Sequence[int]], lengths: torch.Tensor, longest: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """tokens and positions [U, T], and a mask [U, 1, T, T] unless all are equally long."""
    tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[longest - len(prompt) :] = torch.tensor(prompt)
    columns, starts = torch.arange(longest, device=lengths.device), (longest - lengths)[:, None]
    positions = (columns - starts).clamp(min=0)
    if all(len(prompt) == longest for prompt in prompts):
        return tokens.to(lengths.device), positions, None
    seen = (columns >= starts)[:, None] & (columns <= columns[:, None])
    # Padding looks at itself: a row without anything to attend to would come out as NaN.
    seen |= torch.eye(longest, dtype=torch.bool, device=lengths.device)
    return (
        tokens.to(lengths.device),
        positions,
        torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))[:, None],
    )


class GeneralBatch:
    """Rows of any model that transformers can run. They join once, on an empty batch."""

    joinable = False

    def __init__(self, base: BaseModel, adapter: Adapter | None):
        self._base, self._adapter = base, adapter
        self._cache = None
        self._mask = torch.empty(0, 0, dtype=torch.long)
        self._positions = torch.empty(0, 1, dtype=torch.long)
        self._places: list[int] = []  # where in the cache's batch each row is
        self._width = 0  # of the cache's batch

    def __len__(self) -> int:
        return len(self._places)

    @torch.no_grad()
    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """The rows. -> logits [N, V] of what follows."""
        distinct, which = together(prompts)
        device, longest = self._base.device, max(map(len, distinct))
        tokens = torch.zeros(len(distinct), longest, dtype=torch.long)
        mask = torch.zeros(len(distinct), longest, dtype=torch.long)
        for i, prompt in enumerate(distinct):
            tokens[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        self._mask = mask.to(device)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(tokens.to(device), positions)
        self._positions = positions[:, -1:]
        self._places = list(range(len(which)))
        self._select(which)
        return logits[torch.tensor(which, device=device)]

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """As SlotBatch.step."""
        fed = tokens.new_zeros(self._width)
        places = torch.tensor(self._places, device=tokens.device)
        fed[places] = tokens
        self._mask = torch.cat([self._mask, self._mask.new_ones(self._width, 1)], dim=1)
        self._positions = self._positions + 1
        return self._forward(fed[:, None], self._positions.clamp(max=self._base.context - 1))[places]

    @torch.no_grad()
    def drop(self, gone: Sequence[int]) -> list[int]:
        """As SlotBatch.drop."""
        leaving = set(gone)
        order = [row for row in range(len(self)) if row not in leaving]
        self._places = [self._places[row] for row in order]
        if order and len(order) <= 0.75 * self._width:
            self._select(self._places)
            self._places = list(range(len(order)))
        return order

    def _select(self, places: Sequence[int]) -> None:
        self._width = len(places)
        chosen = torch.tensor(places, device=self._base.device)
        if list(places) != list(range(len(self._mask))):
            self._cache.reorder_cache(chosen)
            self._mask, self._positions = self._mask[chosen], self._positions[chosen]

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        with self._base.using(self._adapter):
            output = self._base.model(
                input_ids=tokens,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        return output.logits[:, -1].float()
