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
    """Rows of a dense model."""

    joinable = True

    def __init__(self, model: DenseModel, adapter: Adapter | None):
        self._model, self._device = model, model.base.device
        self._weights: DenseWeights = model.weights(adapter)
        self._lengths: list[int] = []
        self._caches: list[torch.Tensor] = []  # a layer each: [keys | values, slots, K, columns, D]
        self._mask = torch.empty(0, 0)  # [slots, columns]: 0 where there is a token, else -inf
        self._columns = torch.empty(0, dtype=torch.long)  # the next free one of each slot

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Adds a row for each prompt. -> logits [N, V] of what follows."""
        distinct, which = together(prompts)
        first, device = len(self), self._device
        longest = max(map(len, distinct))
        self._make_room(first + len(prompts), longest + BLOCK // 2)
        tokens = torch.zeros(len(distinct), longest, dtype=torch.long)
        for row, prompt in zip(tokens, distinct, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        source = torch.tensor(which, device=device)

        def keep(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
            for place, values in zip(self._caches[layer], (k, v), strict=True):
                place[first : first + len(which), :, :longest] = values if len(values) == len(which) else values[source]

        hidden = self._weights.run(tokens.to(device), causal(len(distinct), longest, keep))
        ends = torch.tensor([i * longest + len(prompt) - 1 for i, prompt in enumerate(distinct)], device=device)
        logits = self._weights.logits(hidden[ends])
        lengths = [len(distinct[i]) for i in which]
        self._lengths += lengths
        self._columns[first : len(self)] = torch.tensor(lengths, device=device)
        self._mask[first : len(self)] = float("-inf")
        for slot, length in enumerate(lengths, first):
            self._mask[slot, :length] = 0
        return logits[source]

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The rows' next tokens [N] -> logits [N, V] of what follows them."""
        n, width = len(self), max(self._lengths) + 1
        self._make_room(n, width)
        columns, even = self._columns[:n], min(self._lengths) + 1 == width
        rows = None if even else torch.arange(n, device=self._device)
        if even:
            self._mask[:n, width - 1] = 0
        else:
            self._mask[rows, columns] = 0
        mask = None if even else self._mask[:n, None, None, :width]

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self._caches[layer][:, :n]
            if even:
                keys[:, :, width - 1], values[:, :, width - 1] = k, v
            else:
                keys[rows, :, columns], values[rows, :, columns] = k, v
            return self._attend(q, keys[:, :, :width], values[:, :, :width], mask)

        hidden = self._weights.run(tokens[:, None], attend, columns[:, None])
        self._columns[:n] += 1
        self._lengths = [length + 1 for length in self._lengths]
        return self._weights.logits(hidden)

    @torch.inference_mode()
    def drop(self, gone: Sequence[int]) -> list[int]:
        """Rows leave. -> for each row that is left, which one it was."""
        left = len(self) - len(gone)
        leaving = set(gone)
        holes = [slot for slot in sorted(leaving) if slot < left]
        movers = [slot for slot in range(left, len(self)) if slot not in leaving]
        order = list(range(left))
        if holes:
            width = max(self._lengths[slot] for slot in movers)
            to, source = torch.tensor(holes, device=self._device), torch.tensor(movers, device=self._device)
            for cache in self._caches:
                cache[:, to, :, :width] = cache[:, source, :, :width]
            self._mask[to], self._columns[to] = self._mask[source], self._columns[source]
            for hole, mover in zip(holes, movers, strict=True):
                order[hole] = mover
        self._lengths = [self._lengths[slot] for slot in order]
        return order

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        n, heads, size = q.shape
        grouped = heads != keys.shape[1]
        if self._device == "cpu" and n >= _MATMUL_ROWS:
            scores = torch.matmul(q.view(n, keys.shape[1], -1, size) * size**-0.5, keys.transpose(-1, -2))
            scores = (scores if mask is None else scores.add_(mask)).softmax(-1)
            return torch.matmul(scores, values).view(n, -1)
        return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask, enable_gqa=grouped).reshape(n, -1)

    def _make_room(self, slots: int, columns: int) -> None:
        """Grows what is held. Unused places are zeros, as a masked NaN would still spoil a sum."""
        have_slots, have_columns = self._mask.shape
        if slots <= have_slots and columns <= have_columns:
            return
        if slots > have_slots:
            slots = max(slots, min(2 * have_slots, _SLOTS))
        slots, columns = max(slots, have_slots), max(-(-columns // BLOCK) * BLOCK, have_columns)
        model, n, width = self._model, len(self), max(self._lengths, default=0)
        shape = (2, slots, model.kv_heads, columns, model.head_size)
        for layer in range(model.depth):
            grown = torch.zeros(shape, dtype=model.base.dtype, device=self._device)
            if n:
                grown[:, :n, :, :width] = self._caches[layer][:, :n, :, :width]
            # One layer after the other, so that old and new caches are never held whole at once.
            self._caches[layer : layer + 1] = [grown]
        mask = torch.full((slots, columns), float("-inf"), dtype=model.base.dtype, device=self._device)
        mask[:have_slots, :have_columns] = self._mask
        places = torch.zeros(slots, dtype=torch.long, device=self._device)
        places[:have_slots] = self._columns
        self._mask, self._columns = mask, places


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
