"""What preference methods minimise, as plain arithmetic on log-probabilities: losses and their gradients by hand.

c and r are the log-probabilities of the chosen and the rejected answer (sums over their tokens), c0 and r0 those of the
reference, n_c and n_r their token counts.

    dpo    L = -log sigmoid(beta d),  d = (c - c0) - (r - r0)                      (Rafailov et al. 2023, arXiv:2305.18290)
    ipo    L = (d - 1 / (2 beta))^2,  d = (c - c0)/n_c - (r - r0)/n_r              (Azar et al. 2023, arXiv:2310.12036)
    simpo  L = -log sigmoid(beta (c/n_c - r/n_r) - gamma)                          (Meng et al. 2024, arXiv:2405.14734)
    kto    L = w_good (1 - sigmoid(beta (c - c0) - z))    for answers found good   (Ethayarajh et al. 2024, arXiv:2402.01306)
           L = w_bad (1 - sigmoid(z - beta (r - r0)))     for answers found bad; z is beta times the batch's KL estimate, not below 0

The NLL term adds nll * (-c / n_c). The API's cross_entropy is a sum of weight * -logprob, so that the weight of each token of an
answer is minus the loss's derivative by that answer's log-probability: no framework of differentiation is needed.
ipo averages over tokens, as its authors advise in practice and TRL does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """One answer: its log-probability now and in the reference (nats, summed over its tokens), and its token count."""

    now: float
    before: float
    tokens: int

    @property
    def gain(self) -> float:
        """By how much likelier it has become: log p / p0."""
        return self.now - self.before


@dataclass(frozen=True)
class Pull:
    """A pair's loss and its derivatives by the log-probabilities of the chosen and of the rejected answer."""

    loss: float
    by_chosen: float
    by_rejected: float


def pair(variant: str, chosen: Side, rejected: Side, beta: float, margin: float = 0.0, nll: float = 0.0) -> Pull:
    """The loss of one pair."""
    if variant == "dpo":
        logit = beta * (chosen.gain - rejected.gain)
        slope = -sigmoid(-logit) * beta
        loss, by_c, by_r = -log_sigmoid(logit), slope, -slope
    elif variant == "ipo":
        off = chosen.gain / chosen.tokens - rejected.gain / rejected.tokens - 1 / (2 * beta)
        loss, by_c, by_r = off * off, 2 * off / chosen.tokens, -2 * off / rejected.tokens
    elif variant == "simpo":
        logit = beta * (chosen.now / chosen.tokens - rejected.now / rejected.tokens) - margin
        slope = -sigmoid(-logit) * beta
        loss, by_c, by_r = -log_sigmoid(logit), slope / chosen.tokens, -slope / rejected.tokens
    else:
        raise ValueError(variant)
    return Pull(loss - nll * chosen.now / chosen.tokens, by_c - nll / chosen.tokens, by_r)


def single(answer: Side, good: bool, beta: float, baseline: float, weight: float) -> tuple[float, float]:
    """KTO's loss of one answer and its derivative by the answer's log-probability; `baseline` is z / beta, the KL estimate in nats."""
    lead = beta * (answer.gain - baseline) * (1 if good else -1)
    fit = sigmoid(lead)
    slope = weight * beta * fit * (1 - fit)
    return weight * (1 - fit), -slope if good else slope


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    """log sigmoid(x), without overflow."""
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))
