"""From scores to advantages: how much better an answer was than the others to the same prompt. Pure arithmetic.

    centred      A = r - mean(r)                        (Liu et al. 2025, Dr. GRPO, arXiv:2503.20783)
    normalised   A = (r - mean(r)) / (std(r) + 1e-6)    (Shao et al. 2024, GRPO, arXiv:2402.03300)

mean and std (of the sample, n - 1) are over one prompt's group of answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

EPSILON = 1e-6
_FLAT = 1e-9


def group_advantages(scores: Sequence[float], kind: str) -> list[float]:
    """One group's advantages; all 0 where the scores are all the same."""
    if is_flat(scores):
        return [0.0] * len(scores)
    mean = fmean(scores)
    spread = stdev(scores) + EPSILON if kind == "normalised" else 1.0
    return [(score - mean) / spread for score in scores]


def is_flat(scores: Sequence[float]) -> bool:
    """Whether nothing tells the answers apart."""
    return max(scores) - min(scores) <= _FLAT


def kl_advantages(drawn: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], weight: float) -> list[list[float]]:
    """What straying costs each token: -weight x (log p - log p0), less its mean over all tokens, so that it favours no length.

    `drawn` and `reference` hold each answer's log-probabilities, token by token. As in the tinker-cookbook.
    """
    gaps = [[p - p0 for p, p0 in zip(one, other, strict=True)] for one, other in zip(drawn, reference, strict=True)]
    flat = [gap for row in gaps for gap in row]
    mean = fmean(flat) if flat else 0.0
    return [[-weight * (gap - mean) for gap in row] for row in gaps]


def clipped_share(now: Sequence[float], drawn: Sequence[float], advantages: Sequence[float], low: float, high: float) -> float:
    """The share of tokens that count whose probability ratio lies outside 1 - low to 1 + high."""
    ratios = [math.exp(min(50.0, p - q)) for p, q, a in zip(now, drawn, advantages, strict=True) if a]
    return fmean(not 1 - low <= ratio <= 1 + high for ratio in ratios) if ratios else 0.0
