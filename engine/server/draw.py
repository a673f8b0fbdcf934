"""The next token of many rows at once, and its log-probability. The same tokens as `sampler.draw_token`, row by row.

torch.multinomial takes the largest p / e with e exponentially distributed (the Gumbel trick, without logarithms); here
e is drawn for each seeded row from its own generator and for all others in one call, and the rest is done for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.errors import ModelError
from engine.server.sampler import GREEDY_BELOW, Row


class Draw:
    """How a fixed sequence of rows is drawn; made anew when rows join or leave."""

    def __init__(self, rows: Sequence[Row], device: str, free: torch.Generator):
        """`free` serves the rows without a seed."""
        self._free = free
        jobs = [row.job for row in rows]
        chance = [i for i, job in enumerate(jobs) if job.temperature >= GREEDY_BELOW]
        chosen = [jobs[i] for i in chance]
        self._none, self._all = not chance, len(chance) == len(rows)
        self._chance = torch.tensor(chance, device=device, dtype=torch.long)
        self._temperature = None
        if any(job.temperature != 1 for job in chosen):
            self._temperature = torch.tensor([job.temperature for job in chosen], device=device)[:, None]
        self._seeded = [(place, rows[i].generator) for place, i in enumerate(chance) if rows[i].job.seed is not None]
        self._top_k = self._column([max(job.top_k, 0) for job in chosen], device, torch.long)
        self._top_p = self._column([job.top_p if job.top_p < 1 else 2.0 for job in chosen], device, torch.float32)
        self._any_top_k = any(job.top_k > 0 for job in chosen)
        self._any_top_p = any(job.top_p < 1 for job in chosen)
        self._largest_k = max((job.top_k for job in chosen), default=0)

    @staticmethod
    def _column(values: list, device: str, dtype: torch.dtype) -> torch.Tensor:
        top = 2**62
        return torch.tensor([min(value, top) for value in values], device=device, dtype=dtype)[:, None]

    @torch.inference_mode()
    def __call__(self, logits: torch.Tensor) -> tuple[torch.Tensor, list[int], list[float]]:
        """float32 [N, V] -> the tokens on the device, as a list, and their log-probabilities. Raises ModelError for NaN."""
        if self._none:
            tokens = logits.argmax(-1)
        elif self._all:
            tokens = self._by_chance(logits)
        else:
            tokens = logits.argmax(-1)
            tokens[self._chance] = self._by_chance(logits[self._chance])
        logprobs = (logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
        if any(value != value for value in logprobs):
            raise ModelError("the model's output isn't a number", "The weights have diverged: sample from an earlier checkpoint.")
        return tokens, tokens.tolist(), logprobs

    def _by_chance(self, logits: torch.Tensor) -> torch.Tensor:
        scaled = logits if self._temperature is None else logits / self._temperature
        if self._any_top_k:
            scaled = self._only_top_k(scaled)
        odds = torch.softmax(scaled, dim=-1)
        if self._any_top_p:
            ordered, order = odds.sort(descending=True, dim=-1)
            dropped = ordered.cumsum(-1) - ordered >= self._top_p
            odds = odds.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), 0)
        return (odds / self._noise(odds)).argmax(-1)

    def _only_top_k(self, scaled: torch.Tensor) -> torch.Tensor:
        size = scaled.shape[-1]
        limits = self._top_k.clamp(max=size)
        values = scaled.topk(min(self._largest_k, size), dim=-1).values
        least = values.gather(1, (limits - 1).clamp(min=0, max=values.shape[1] - 1))
        return scaled.masked_fill((scaled < least) & (limits > 0), float("-inf"))

    def _noise(self, odds: torch.Tensor) -> torch.Tensor:
        if not self._seeded:
            return torch.empty_like(odds).exponential_(generator=self._free)
        # A seed gives the same on any device, so its noise is drawn on the CPU as the plain sampler draws it.
        noise = torch.empty(odds.shape)
        if len(self._seeded) < len(noise):
            noise.exponential_(generator=self._free if self._free.device.type == "cpu" else None)
        for place, generator in self._seeded:
            noise[place].exponential_(generator=generator)
        return noise.to(odds.device)
