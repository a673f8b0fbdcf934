"""Log-probabilities beyond those of the tokens themselves: the likeliest tokens at each place, chosen ones, drawn ones.

Worked out by a forward pass of its own over the finished text, whatever path sampled it; only for requests that ask.
All are the model's own, at temperature 1 and unfiltered, like the log-probabilities that come with samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import DataError
from engine.server.memory import check_logits
from engine.server.model import BaseModel
from engine.server.weights import Weights

MAX_CELLS = 4_000_000  # numbers in one answer
EMPTY_LOGPROB = -99999.0  # with token 0, the wire's mark of a cell that holds nothing
Cells = tuple[np.ndarray, np.ndarray]  # token ids int32 and log-probabilities float32, both [places, k]


@dataclass(frozen=True)
class Wanted:
    """What a request asks for. `targets` int64 [places, K], -1 where nothing is asked; `last_n` as for prompt_logprobs."""

    topk_prompt: int = 0
    topk_sample: int = 0
    alternatives: int = 0
    targets: np.ndarray | None = None
    last_n: int | None = None
    temperature: float = 1.0
    seed: int | None = None

    def __bool__(self) -> bool:
        return bool(self.topk_prompt or self.topk_sample or self.alternatives or self.targets is not None)

    def check(self, prompt: int, samples: int, tokens: int, base: BaseModel) -> None:
        """For a prompt of that many tokens and so many samples of up to `tokens`. Raises DataError."""
        for name, k in (("topk_prompt_logprobs", self.topk_prompt), ("topk_sample_logprobs", self.topk_sample)):
            if not 0 <= k <= base.vocab_size:
                raise DataError(f"{name} has to be 0 to {base.vocab_size:,}", "That is the vocabulary.", where=name)
        if self.alternatives < 0:
            raise DataError("prompt_alt_tokens_k has to be 0 or more", "0 switches it off.", where="prompt_alt_tokens_k")
        if (self.topk_prompt + self.alternatives) * prompt + self.topk_sample * samples * tokens > MAX_CELLS:
            raise DataError(f"the answer would hold more than {MAX_CELLS:,} log-probabilities", "Ask for fewer.", where="topk")
        if self.targets is not None and self.targets.size and (self.targets.min() < -1 or self.targets.max() >= base.vocab_size):
            raise DataError("a token id lies outside the vocabulary", "Use -1 where none is asked for.", where="target_prompt_logprobs")


@dataclass(frozen=True)
class Scores:
    """The answers to `Wanted`, None where it wasn't asked for; `topk_samples` by sequence."""

    topk_prompt: Cells | None = None
    topk_samples: list[Cells] | None = None
    alternatives: Cells | None = None
    targets: np.ndarray | None = None


@torch.no_grad()
def other_logprobs(
    base: BaseModel, adapter: Weights | None, prompt: Sequence[int], sequences: Sequence[Sequence[int]], wanted: Wanted
) -> Scores:
    """`sequences`: the tokens that were sampled after the prompt."""
    topk_prompt = alternatives = targets = topk_samples = None
    with base.using(adapter):
        if wanted.topk_prompt or wanted.alternatives or wanted.targets is not None:
            logits = _logits(base, prompt[:-1], len(prompt) - 1)
            logs = torch.log_softmax(logits, dim=-1)
            if wanted.topk_prompt:
                topk_prompt = _prompt_cells(logs, wanted)
            if wanted.alternatives:
                alternatives = _draws(logits, logs, wanted)
            if wanted.targets is not None:
                targets = _picked(logs, wanted.targets)
        if wanted.topk_sample:
            topk_samples = [_sample_cells(base, prompt, tokens, wanted.topk_sample) for tokens in sequences]
    return Scores(topk_prompt, topk_samples, alternatives, targets)


def _logits(base: BaseModel, tokens: Sequence[int], last: int) -> torch.Tensor:
    """What the model expects after each of the last so many tokens, float32 [last, V]."""
    if not last:
        return torch.zeros(0, base.vocab_size)
    check_logits(last, base.vocab_size, base.device)
    ids = torch.tensor([list(tokens)], device=base.device)
    return base.model(input_ids=ids, use_cache=False, logits_to_keep=last).logits[0, -last:].float().cpu()


def _cells(logs: torch.Tensor, k: int) -> Cells:
    found = logs.topk(k, dim=-1)
    return found.indices.numpy().astype(np.int32), found.values.numpy().astype(np.float32)


def _prompt_cells(logs: torch.Tensor, wanted: Wanted) -> Cells:
    """A row for each token of the prompt; the first, which nothing stands before, is empty."""
    k, places = wanted.topk_prompt, len(logs) + 1
    ids, values = np.zeros((places, k), np.int32), np.full((places, k), EMPTY_LOGPROB, np.float32)
    first = max(1, places - wanted.last_n) if wanted.last_n else 1
    ids[first:], values[first:] = _cells(logs[first - 1 :], k)
    return ids, values


def _sample_cells(base: BaseModel, prompt: Sequence[int], tokens: Sequence[int], k: int) -> Cells:
    return _cells(torch.log_softmax(_logits(base, [*prompt, *tokens[:-1]], len(tokens)), dim=-1), k)


def _draws(logits: torch.Tensor, logs: torch.Tensor, wanted: Wanted) -> Cells:
    """Independent draws at each place, with replacement, at the request's temperature."""
    generator = torch.Generator()
    generator.manual_seed(wanted.seed % 2**63) if wanted.seed is not None else generator.seed()
    if not len(logits):
        drawn = torch.zeros(0, wanted.alternatives, dtype=torch.long)
    elif wanted.temperature < 1e-5:
        drawn = logits.argmax(-1, keepdim=True).expand(-1, wanted.alternatives)
    else:
        drawn = torch.multinomial(torch.softmax(logits / wanted.temperature, -1), wanted.alternatives, True, generator=generator)
    return drawn.numpy().astype(np.int32), logs.gather(-1, drawn).numpy().astype(np.float32)


def _picked(logs: torch.Tensor, targets: np.ndarray) -> np.ndarray:
    """The log-probability of each target; 0 where none is asked for."""
    ids = torch.from_numpy(np.ascontiguousarray(targets))
    picked = logs.gather(-1, ids.clamp(min=0))
    return torch.where(ids < 0, 0.0, picked).numpy().astype(np.float32)
