"""The plain way to log-probabilities, and the reference for every other: a padded batch through the model as it comes.

Obviously right rather than fast. Knows nothing of losses or optimizers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.server.model import BaseModel
from engine.server.wire import Datum

TOKENS_AT_ONCE = 16_384  # padded
LOGITS_AT_ONCE = 256 * 2**20  # padded tokens x vocabulary; 1 GiB in float32


def padded_batches(data: Sequence[Datum], vocab_size: int, tokens: int | None = None) -> list[list[int]]:
    """Positions in order, cut where padded tokens or logits would pass the budget; a single row always fits."""
    limit = min(TOKENS_AT_ONCE if tokens is None else tokens, max(1, LOGITS_AT_ONCE // vocab_size))
    batches: list[list[int]] = []
    widest = 0
    for i, datum in enumerate(data):
        widest = max(widest, len(datum.tokens))
        if batches and (len(batches[-1]) + 1) * widest <= limit:
            batches[-1].append(i)
        else:
            batches.append([i])
            widest = len(datum.tokens)
    return batches


def padded_logprobs(base: BaseModel, rows: Sequence[Datum]) -> list[torch.Tensor]:
    """Log-probabilities of each row's targets, [T] or [T, K], float32, with whichever adapter is active."""
    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.from_numpy(row.tokens)
        mask[i, : len(row.tokens)] = 1
    logits = base.model(input_ids=tokens.to(base.device), attention_mask=mask.to(base.device), use_cache=False).logits
    found = []
    for i, row in enumerate(rows):
        targets = torch.as_tensor(np.array(row.inputs["target_tokens"]), dtype=torch.long, device=base.device)
        logs = torch.log_softmax(logits[i, : len(row.tokens)].float(), dim=-1)
        picked = logs.gather(-1, targets if targets.ndim == 2 else targets[:, None])
        found.append(picked if targets.ndim == 2 else picked[:, 0])
    return found
