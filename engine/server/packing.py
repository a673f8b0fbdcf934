"""The fast way to log-probabilities: rows of different lengths laid end to end as one row of tokens, without padding.

Every layer but attention works on single tokens, so it gets all real tokens of a batch in one matrix. Attention picks
each row back out, side by side with rows of about its length, causally masked; it stands behind transformers' own
attention interface, so any model that goes through that interface is served. Position numbers begin anew in each row.
The output layer keeps gradients only where the loss looks.

A model is trusted to this only once `agrees` has compared it with the padded reference on its own weights. Knows
nothing of losses or optimizers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engine.server.fused import Fused
from engine.server.model import BaseModel, LoraSpec
from engine.server.padding import padded_logprobs
from engine.server.wire import Datum

log = logging.getLogger("thinker.server")

NAME = "thinker_packed"
TOKENS_AT_ONCE = 8_192
LOGITS_AT_ONCE = 64 * 2**20  # 256 MiB in float32
BLOCK_TOKENS = 512
SMALL_VOCABULARY = 4_096  # up to which logits of tokens that the loss doesn't look at cost less than leaving them out
WASTE = 0.15  # the share of padding in a group of rows from which a further group is opened
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.1}


@dataclass
class Group:
    """Rows attended to side by side: `gather` [rows x width] picks their tokens from the pack, `back` undoes it."""

    rows: int
    width: int
    gather: torch.Tensor
    back: torch.Tensor


@dataclass
class Pack:
    """Many rows as one: tokens and positions [1, N], the rows' lengths in the pack's order, and who attends to whom."""

    tokens: torch.Tensor
    positions: torch.Tensor
    lengths: list[int]
    groups: list[Group]
    filler: int = 0  # tokens at the end that belong to no row


_pack: list[Pack | None] = [None]


class Packed:
    """Log-probabilities of packed rows, for one base model with whichever adapter is active."""

    def __init__(self, base: BaseModel):
        self._base = base
        self._decoder = base.model.get_decoder()
        self._head = base.model.get_output_embeddings()
        configs = [module.config for module in base.model.modules() if hasattr(module, "config")]
        self._configs = list({id(config): config for config in configs}.values())
        self.fused = Fused.of(base)
        ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)

    @classmethod
    def if_it_agrees(cls, base: BaseModel) -> Packed | None:
        """None for a model that this way would get other numbers from, or that it can't run at all."""
        try:
            packed = cls(base)
            off = packed.disagreement()
        except Exception as error:
            log.info("packing isn't used: %s: %s", type(error).__name__, error)
            return None
        if not off <= TOLERANCE[base.dtype]:
            log.info("packing isn't used: its log-probabilities are off by %.2g", off)
            return None
        if packed.fused and not (off := packed.gradients_disagreement()) <= TOLERANCE[base.dtype]:
            log.info("layers aren't fused: their gradients are off by %.2g", off)
            packed.fused = None
        return packed

    @torch.no_grad()
    def disagreement(self) -> float:
        """The largest difference from the padded reference over a few random rows."""
        rows = self._random_rows()
        with self._base.using(None):
            expected = padded_logprobs(self._base, rows)
            found = self.logprobs(rows, [np.ones(len(row.tokens), bool) for row in rows])
        return max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))

    def gradients_disagreement(self) -> float:
        """The largest difference from the padded reference's gradients, each as a share of its tensor's largest."""
        adapter = self._base.new_adapter(LoraSpec(4, train_unembed=False), seed=0)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for _, b in adapter.pairs.values():
                b.copy_(torch.randn(b.shape, generator=draw) * 0.02)
        rows = self._random_rows()
        every = [np.ones(len(row.tokens), bool) for row in rows]
        found = []
        with self._base.using(adapter), torch.enable_grad():
            for logprobs in (padded_logprobs(self._base, rows), self.logprobs(rows, every)):
                found.append(torch.autograd.grad(torch.cat(logprobs).cos().sum(), adapter.parameters()))
        return max(float((a - b).abs().max() / (a.abs().max() + 1e-9)) for a, b in zip(*found, strict=True))

    def mixes(self, loss_fn: str, *, forward_only: bool) -> bool:
        """Whether products are made in bfloat16. In small models exact log-probabilities cost little: those that are compared with
        a sampler's, or only looked at, stay exact there."""
        if not self._base.can_mix:
            return False
        return self._base.is_large or (self.fused is not None and loss_fn == "cross_entropy" and not forward_only)

    def _random_rows(self) -> list[Datum]:
        draw = np.random.default_rng(0)
        longest = min(self._base.context, 48)
        rows = []
        for length in (longest, 3, 17, 1, longest - 5):
            tokens = draw.integers(0, self._base.vocab_size, length + 1)
            rows.append(Datum(tokens[:-1], {"target_tokens": tokens[1:]}))
        return rows

    def batches(self, data: Sequence[Datum]) -> list[list[int]]:
        """Positions of the rows to take at once, longest first, so that a batch holds rows of about one length."""
        order = sorted(range(len(data)), key=lambda i: -len(data[i].tokens))
        found: list[list[int]] = []
        tokens = 0
        for i in order:
            tokens += len(data[i].tokens)
            if not found or tokens > TOKENS_AT_ONCE:
                found.append([])
                tokens = len(data[i].tokens)
            found[-1].append(i)
        return found

    def logprobs(self, rows: Sequence[Datum], looked_at: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Each row's targets' log-probabilities, float32 [T]; gradients reach those where `looked_at` [T] is true."""
        flat, order = self.flat_logprobs(rows, looked_at)
        found: list[torch.Tensor] = [flat] * len(rows)
        for i, part in zip(order, flat.split([len(rows[i].tokens) for i in order]), strict=True):
            found[i] = part
        return found

    def flat_logprobs(
        self, rows: Sequence[Datum], looked_at: Sequence[np.ndarray], *, mixed: bool = False
    ) -> tuple[torch.Tensor, list[int]]:
        """All rows' one after the other [N], and the order that the rows are in: longest first. `mixed`: products in bfloat16."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
        device = self._base.device
        pack = make_pack([rows[i].tokens for i in order], device, few_shapes=mixed and self.fused is not None)
        targets = np.concatenate([*(rows[i].inputs["target_tokens"] for i in order), np.zeros(pack.filler, np.int64)])
        wanted = np.concatenate([*(looked_at[i] for i in order), np.zeros(pack.filler, bool)])
        precision = torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext()
        flat = self._scores(self._hidden(pack, mixed, precision), torch.from_numpy(targets).to(device), wanted, precision)
        return flat[: len(flat) - pack.filler], order

    def _hidden(self, pack: Pack, mixed: bool, precision: AbstractContextManager) -> torch.Tensor:
        weights = self._base.in_use
        if self.fused and (weights is None or weights.spec.is_lora):
            return self.fused.hidden(pack, weights, torch.bfloat16 if mixed else torch.float32)
        with _packed_attention(self._configs, pack), precision:
            return self._decoder(input_ids=pack.tokens, position_ids=pack.positions, use_cache=False).last_hidden_state[0]

    def _scores(self, hidden: torch.Tensor, targets: torch.Tensor, wanted: np.ndarray, precision: AbstractContextManager) -> torch.Tensor:
        """Log-probabilities of targets [N] from hidden states [N, H], a slice of the vocabulary's logits at a time."""
        if not torch.is_grad_enabled() or wanted.all() or self._base.vocab_size <= SMALL_VOCABULARY:
            return self._head_in_slices(hidden, targets, precision)
        kept, rest = (torch.from_numpy(_rounded_up(np.flatnonzero(which))).to(hidden.device) for which in (wanted, ~wanted))
        scored = self._head_in_slices(hidden[kept], targets[kept], precision)[: wanted.sum()]
        with torch.no_grad():
            others = self._head_in_slices(hidden[rest], targets[rest], precision)
        found = torch.zeros_like(targets, dtype=torch.float32).index_put((rest,), others)
        return found.index_put((kept[: len(scored)],), scored)

    def _head_in_slices(self, hidden: torch.Tensor, targets: torch.Tensor, precision: AbstractContextManager) -> torch.Tensor:
        size = max(1, LOGITS_AT_ONCE // self._base.vocab_size)
        parts = []
        for states, wanted in zip(hidden.split(size), targets.split(size), strict=True):
            with precision:
                logits = self._head(states)
            parts.append(-F.cross_entropy(logits.float(), wanted, reduction="none"))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def make_pack(rows: Sequence[np.ndarray], device: str, *, few_shapes: bool = False) -> Pack:
    """One pack of token rows, which come longest first.

    With `few_shapes` packs of about one size become tensors of the very same sizes, filled up with a little that nobody
    looks at: bfloat16's products on CPUs cost extra time and memory for each new size.
    """
    lengths = [len(row) for row in rows]
    filler = -sum(lengths) % _step(sum(lengths)) if few_shapes else 0
    if filler:
        rows, lengths = [*rows, np.zeros(filler, np.int64)], [*lengths, filler]
    groups = _blocks(lengths, device) if few_shapes else _alike(lengths, device)
    positions = np.concatenate([np.arange(length) for length in lengths])
    tokens = torch.from_numpy(np.concatenate(rows).astype(np.int64))[None].to(device)
    return Pack(tokens, torch.from_numpy(positions)[None].to(device), lengths, groups, filler)


def _alike(lengths: Sequence[int], device: str) -> list[Group]:
    """Rows of about one length together, as many as there are."""
    groups, first, start = [], 0, 0
    for end in range(1, len(lengths) + 1):
        real = sum(lengths[first : end + 1])
        if end == len(lengths) or real < (1 - WASTE) * lengths[first] * (end + 1 - first):
            groups.append(_group(lengths[first:end], start, end - first, lengths[first], device))
            start += sum(lengths[first:end])
            first = end
    return groups


def _blocks(lengths: Sequence[int], device: str) -> list[Group]:
    """Rows in blocks of about as many tokens each; rows a block and tokens a row come in steps."""
    groups, first, start = [], 0, 0
    while first < len(lengths):
        width = -(-lengths[first] // 8) * 8
        rows = 1 << max(0, (BLOCK_TOKENS // width).bit_length() - 1)
        width = max(width, -(-max(lengths[first : first + rows]) // 8) * 8)
        part = lengths[first : first + rows]
        groups.append(_group(part, start, rows, width, device))
        start += sum(part)
        first += rows
    return groups


def _step(count: int) -> int:
    """Counts near this one are rounded up to a multiple of it: 3 % more on average."""
    return max(8, 1 << max(0, (count // 16).bit_length() - 1))


def _rounded_up(places: np.ndarray) -> np.ndarray:
    """As many as its step asks for, the first one standing in for what is missing."""
    return np.concatenate([places, np.repeat(places[:1], -len(places) % _step(len(places)))])


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over the current pack; query [1, H, N, D], key and value [1, K, N, D] -> [1, N, H, D]."""
    if softcap is not None or s_aux is not None or attention_mask is not None:
        raise NotImplementedError("capped or sinking attention scores, or a mask of the model's own")
    pack = _pack[0]
    assert pack is not None, "packed attention outside a pack"
    heads = query.shape[1]
    parts = []
    for group in pack.groups:
        q, k, v = (_rows(states, group) for states in (query, key, value))
        banded = sliding_window is not None and group.width > sliding_window
        mask = _band(group.width, sliding_window, query.device) if banded else None
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=heads != key.shape[1]
        )
        parts.append(mixed.transpose(0, 1).reshape(heads, group.rows * group.width, -1).index_select(1, group.back))
    joined = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
    return joined.transpose(0, 1)[None].contiguous(), None


@contextmanager
def _packed_attention(configs: Sequence[object], pack: Pack) -> Iterator[None]:
    """The model attends within the pack's rows for as long as this lasts."""
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = NAME
    _pack[0] = pack
    try:
        yield
    finally:
        _pack[0] = None
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def _group(lengths: Sequence[int], start: int, rows: int, width: int, device: str) -> Group:
    gather = np.zeros((rows, width), np.int64)
    back = []
    for row, length in enumerate(lengths):
        # What is gathered past a row's end is some token of the pack; causal masking keeps it from mattering.
        gather[row, :length] = start + np.arange(length)
        back.append(row * width + np.arange(length))
        start += length
    whole = (torch.from_numpy(gather.reshape(-1)), torch.from_numpy(np.concatenate(back)))
    return Group(rows, width, *(index.to(device) for index in whole))


def _rows(states: torch.Tensor, group: Group) -> torch.Tensor:
    """[1, H, N, D] -> [rows, H, width, D]"""
    heads, size = states.shape[1], states.shape[-1]
    return states[0].index_select(1, group.gather).view(heads, group.rows, group.width, size).transpose(0, 1)


def _band(width: int, window: int, device: torch.device) -> torch.Tensor:
    """True where a token may look: at itself and the window - 1 tokens before it."""
    ages = torch.arange(width, device=device)[:, None] - torch.arange(width, device=device)
    return (ages >= 0) & (ages < window)
