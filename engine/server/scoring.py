"""Log-probabilities of tokens that are already written, and the likeliest ones at each place, in one pass. Knows no requests."""

from __future__ import annotations

import torch

from engine.server.memory import check_logits
from engine.server.model import BaseModel
from engine.server.weights import Weights

# (the token's own log-probability, the likeliest tokens with theirs, best first)
Score = tuple[float, list[tuple[int, float]]]
_SLICE = 256  # places at once, so that a large vocabulary doesn't fill the memory with log-probabilities


@torch.no_grad()
def score(base: BaseModel, adapter: Weights | None, tokens: list[int], start: int, top: int) -> list[Score]:
    """One for each token from place `start` (1 or more, since nothing comes before the first)."""
    if start >= len(tokens):
        return []
    check_logits(len(tokens) - start, base.vocab_size, base.device)
    ids = torch.tensor([tokens], device=base.device)
    with base.using(adapter):
        logits = base.model(input_ids=ids, use_cache=False, logits_to_keep=len(tokens) - start + 1).logits[0, :-1]
    top = min(top, logits.shape[-1])
    scores: list[Score] = []
    for places, targets in zip(logits.split(_SLICE), ids[0, start:].split(_SLICE), strict=True):
        logs = torch.log_softmax(places.float(), dim=-1)
        own = logs.gather(-1, targets[:, None])[:, 0].tolist()
        best = logs.topk(top)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        scores += [(one, list(zip(*row, strict=True))) for one, row in zip(own, rows, strict=True)]
    return scores
