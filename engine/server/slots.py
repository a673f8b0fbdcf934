"""Rows being continued together: their keys and values, and one forward step for all. Knows nothing of drawing or requests.

`SlotBatch` keeps rows in the first slots of preallocated caches that grow by blocks of columns; rows join at any step, and
the last rows move into the slots of those that leave. `GeneralBatch` does it for any model by transformers' own cache: rows join
all at once, left-padded, and leave when a quarter of the batch is idle.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from engine.server.dense import DenseModel, DenseWeights, causal
from engine.server.model import Adapter, BaseModel

_SLOTS = 128  # to which a batch grows by doubling
_MATMUL_ROWS = 48  # from which on a CPU two products beat the attention kernel


def block_columns(slots: int, device: str) -> int:
    """Columns of a block. Attention reads a block of many rows more than twice as fast when it holds nothing but used columns."""
    return min(1024, max(32, 4096 // slots)) if device == "cpu" else 1024


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
        self._blocks: list[list[torch.Tensor]] = []  # of columns; a layer each: [keys | values, slots, K, columns, D]
        self._size = 0  # columns of a block
        self._starts: list[int] = []  # the first column of each row
        self._width = 0  # columns in use
        self._holes = False  # whether some row doesn't fill all columns
        self._mask = torch.empty(0, 0, dtype=self._dtype, device=self._device)  # [slots, columns]: 0 where there is a token, else -inf
        self._positions = torch.empty(0, dtype=torch.long, device=self._device)  # of each slot's next token

    def __len__(self) -> int:
        return len(self._starts)

    def size(self, rows: int = 0, longest: int = 0) -> int:
        """Bytes of the caches after one step more, once `rows` more have joined, of up to so many tokens."""
        slots, have = len(self) + rows, len(self._mask)
        slots = have if slots <= have else _grown(slots, have)
        block = self._size if slots == have else block_columns(slots, self._device)
        columns = -(-(max(self._width, longest) + 1) // max(block, 1)) * block
        return slots * columns * self._model.bytes_a_token

    @torch.inference_mode()
    def shrink(self) -> None:
        """Gives back the slots that nobody uses."""
        self._make_room(len(self), self._width, exact=True)

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Adds a row for each prompt. -> logits [N, V] of what follows."""
        distinct, which = together(prompts)
        lengths = torch.tensor([len(prompt) for prompt in distinct], device=self._device)
        first, count, longest = len(self), len(prompts), int(lengths.max())
        last, width = first + count, max(self._width, longest)
        self._make_room(last, width)
        self._widen(width)
        start = width - longest
        source = torch.tensor(which, device=self._device)

        def keep(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
            for block, begin, end in self._pieces(0, width):
                places, offset = self._blocks[block][layer][:, first:last], block * self._size
                # What nobody wrote may hold a NaN, which would spoil a sum even where the mask hides it.
                places[:, :, :, begin : min(end, max(begin, start - offset))] = 0
                begin = max(begin, start - offset)
                if begin < end:
                    for place, values in zip(places, (k, v), strict=True):
                        part = values[:, :, begin + offset - start : end + offset - start]
                        place[:, :, begin:end] = part if len(part) == count else part[source]

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

        block, place = divmod(column, self._size)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self._blocks[block][layer][:, :n].unbind()
            keys[:, :, place], values[:, :, place] = k, v
            return self._attend(q, [self._blocks[i][layer][:, :n, :, :end] for i, _, end in self._pieces(0, width)], mask)

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
            for cache in (layer for block in self._blocks for layer in block):
                cache[:, to] = cache[:, source]
            self._mask[to], self._positions[to] = self._mask[source], self._positions[source]
            for slot, mover in zip(free, movers, strict=True):
                order[slot] = mover
        self._starts = [self._starts[slot] for slot in order]
        self._shift_left()
        return order

    def _attend(self, q: torch.Tensor, parts: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        """q [N, H, D]; parts: [keys | values, N, K, columns, D] of each block."""
        (n, heads, size), kv_heads = q.shape, parts[0].shape[2]
        if len(parts) == 1 and (self._device != "cpu" or n < _MATMUL_ROWS):
            keys, values = parts[0].unbind()
            return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask, enable_gqa=heads != kv_heads).reshape(n, -1)
        q = q.reshape(n * kv_heads, -1, size) * size**-0.5
        scores = torch.cat([q @ part[0].flatten(0, 1).transpose(-1, -2) for part in parts], dim=-1)
        if mask is not None:
            scores.view(n, kv_heads, *scores.shape[1:]).add_(mask)
        odds = scores.softmax(-1).split([part.shape[3] for part in parts], dim=-1)
        out = odds[0] @ parts[0][1].flatten(0, 1)
        for share, part in zip(odds[1:], parts[1:], strict=True):
            out = out.baddbmm_(share, part[1].flatten(0, 1))
        return out.view(n, -1)

    def _pieces(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Columns [start, stop) by block: (block, first, last + 1)."""
        size = self._size
        return [(block, max(start - block * size, 0), min(stop - block * size, size)) for block in range(start // size, -(-stop // size))]

    def _widen(self, width: int) -> None:
        """A newcomer is longer than all: the others' columns up to its end stay empty."""
        if len(self) and width > self._width:
            for block, begin, end in self._pieces(self._width, width):
                for cache in self._blocks[block]:
                    cache[:, : len(self), :, begin:end] = 0
            self._mask[: len(self), self._width : width] = float("-inf")
            self._holes = True
        self._width = width

    def _shift_left(self) -> None:
        """Gives back blocks that only rows now gone had used."""
        unused = min(self._starts, default=0) // self._size
        if unused:
            self._blocks = self._blocks[unused:]
            self._mask = self._mask[:, unused * self._size :].clone()
            self._starts = [start - unused * self._size for start in self._starts]
            self._width -= unused * self._size
        self._holes = self._holes and bool((self._mask[: len(self), : self._width] < 0).any())

    def _make_room(self, slots: int, columns: int, *, exact: bool = False) -> None:
        have_slots, have_columns = self._mask.shape
        n, width, model = len(self), self._width, self._model
        if slots > have_slots or (exact and slots != have_slots):
            slots, old = slots if exact else _grown(slots, have_slots), self._blocks
            self._size, self._blocks = block_columns(slots, self._device), []
        else:
            slots, old = have_slots, []
        while len(self._blocks) * self._size < columns:
            shape = (2, slots, model.kv_heads, self._size, model.head_size)
            self._blocks.append([torch.empty(shape, dtype=self._dtype, device=self._device) for _ in range(model.depth)])
        for layer in range(model.depth) if old and n else []:
            kept = torch.cat([block[layer][:, :n] for block in old], dim=3)
            for block, _, end in self._pieces(0, width):
                self._blocks[block][layer][:, :n, :, :end] = kept[:, :, :, block * self._size :][:, :, :, :end]
        columns = len(self._blocks) * self._size
        if (slots, columns) != (have_slots, have_columns):
            mask = torch.zeros(slots, columns, dtype=self._dtype, device=self._device)
            mask[:n, :width] = self._mask[:n, :width]
            positions = torch.zeros(slots, dtype=torch.long, device=self._device)
            positions[:n] = self._positions[:n]
            self._mask, self._positions = mask, positions


def _grown(slots: int, have: int) -> int:
    return max(slots, min(2 * have, _SLOTS))


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

    def __init__(self, base: BaseModel, adapter: Adapter | None, bytes_a_token: float = 0):
        self._base, self._adapter, self._bytes_a_token = base, adapter, bytes_a_token
        self._cache = None
        self._mask = torch.empty(0, 0, dtype=torch.long)
        self._positions = torch.empty(0, 1, dtype=torch.long)
        self._places: list[int] = []  # where in the cache's batch each row is
        self._width = 0  # of the cache's batch

    def __len__(self) -> int:
        return len(self._places)

    def size(self, rows: int = 0, longest: int = 0) -> int:
        """As SlotBatch.size."""
        return int((self._width + rows) * (max(self._mask.shape[1], longest) + 1) * self._bytes_a_token)

    def shrink(self) -> None:
        """As SlotBatch.shrink."""
        if self._places != list(range(self._width)):
            self._select(self._places)
            self._places = list(range(len(self._places)))

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
