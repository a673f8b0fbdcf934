"""How much memory the keys and values of running samples may take. Counts bytes; knows nothing of what is sampled.

The budget is a share of what is free when the server starts, so that training keeps its own. It falls when the memory runs
out nevertheless, and comes back as samples end.
"""

from __future__ import annotations

import logging

import torch

from engine.errors import DataError
from engine.server.model import BaseModel
from engine.server.sampler import MAX_ROWS, SampleJob
from engine.system import free_memory

log = logging.getLogger("thinker.server")


class CacheRoom:
    """The budget of one server: `bytes` for all samples, and `rows` that are continued together."""

    def __init__(self, base: BaseModel, bytes_a_token: float):
        self.whole = self.bytes = int(base.cache_share * free_memory(base.device))
        self.rows = MAX_ROWS
        self.bytes_a_token = bytes_a_token
        self._context = base.context

    @property
    def most_tokens(self) -> int:
        """Of one sample, its prompt included."""
        return int(min(self._context, self.whole / max(self.bytes_a_token, 1)))

    def check(self, job: SampleJob) -> None:
        """Raises DataError for what could never fit. Without max_tokens a sample ends where the room does."""
        needed = min(self._context, len(job.prompt) + (job.max_tokens or 1))
        if needed > self.most_tokens:
            size, most = needed * self.bytes_a_token / 2**30, self.whole / 2**30
            raise DataError(
                f"prompt and answer of {needed:,} tokens take {size:.2g} GiB of memory, and samples have {most:.2g} GiB",
                f"Stay within {self.most_tokens:,} tokens together, or start the server with a larger --cache-share.",
                where="max_tokens",
            )

    def ran_out(self, used: int, rows: int) -> None:
        """With so much in use, by that many rows for the same weights."""
        self.bytes = max(self.whole // MAX_ROWS, min(self.bytes, used) // 2)
        self.rows = max(1, min(self.rows, rows) // 2)
        log.warning("the memory ran out while sampling: keys and values now take %.2g GiB at most", self.bytes / 2**30)

    def recover(self) -> None:
        """Some samples have ended well."""
        self.bytes, self.rows = min(self.whole, 2 * self.bytes), min(MAX_ROWS, 2 * self.rows)


@torch.no_grad()
def measured_bytes_a_token(base: BaseModel) -> float:
    """What transformers' own cache of this model grows by with each token."""
    short, long = (min(n, base.context) for n in (8, 24))
    few, many = (_cache_bytes(base, n) for n in (short, long))
    return (many - few) / (long - short) if many > few else many / long


def _cache_bytes(base: BaseModel, tokens: int) -> int:
    ids = torch.zeros(1, tokens, dtype=torch.long, device=base.device)
    with base.using(None):
        cache = base.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    layers = getattr(cache, "layers", [])
    return sum(value.nbytes for layer in layers for value in vars(layer).values() if isinstance(value, torch.Tensor))
