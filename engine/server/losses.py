"""What is minimised: pure functions of log-probabilities. Each loss is a SUM over tokens, never an average.

p(x) is the model's probability of the target token, q(x) that of the sampler that drew it, A the advantage.

    cross_entropy        L = sum w * -log p                                     (w may be negative: preference methods)
    importance_sampling  L = sum -(p/q) * A                                     (off-policy REINFORCE)
    ppo                  L = sum -min(p/q * A, clip(p/q, low, high) * A)        (Schulman et al. 2017, arXiv:1707.06347)

Names and inputs are the Tinker API's; clip bounds are `clip_low_threshold` and `clip_high_threshold`, 0.8 and 1.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from engine.errors import DataError

Inputs = Mapping[str, torch.Tensor]
Config = Mapping[str, float | str]


def cross_entropy(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Weighted negative log-likelihood; logprobs and weights [T] or [T, K]."""
    return -(inputs["weights"] * logprobs).sum()


def importance_sampling(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """REINFORCE with the sampler's probabilities corrected for; all [T]."""
    ratio = torch.exp(logprobs - inputs["logprobs"])
    return -(ratio * inputs["advantages"]).sum()


def ppo(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """The clipped surrogate objective; all [T]."""
    ratio = torch.exp(logprobs - inputs["logprobs"])
    low, high = config.get("clip_low_threshold", 0.8), config.get("clip_high_threshold", 1.2)
    advantages = inputs["advantages"]
    return -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages).sum()


LossFn = Callable[[torch.Tensor, Inputs, Config], torch.Tensor]
LOSSES: dict[str, tuple[LossFn, tuple[str, ...], tuple[str, ...]]] = {
    "cross_entropy": (cross_entropy, ("target_tokens", "weights"), ()),
    "importance_sampling": (importance_sampling, ("target_tokens", "logprobs", "advantages"), ()),
    "ppo": (ppo, ("target_tokens", "logprobs", "advantages"), ("clip_low_threshold", "clip_high_threshold")),
}


def get_loss(name: str, config: Config) -> tuple[LossFn, tuple[str, ...]]:
    """The loss and the inputs that each datum must bring. Raises DataError for an unknown name or a bad option."""
    if name not in LOSSES:
        raise DataError(f"this server has no loss {name!r}", f"It has {', '.join(LOSSES)}.", where="loss_fn")
    loss, inputs, options = LOSSES[name]
    for option, value in config.items():
        if option not in options:
            known = ", ".join(options) or "none"
            raise DataError(f"the loss {name} has no option {option!r}", f"Its options: {known}.", where="loss_fn_config")
        if isinstance(value, str) or not math.isfinite(value):
            raise DataError(f"{option} has to be a finite number, not {value!r}", "Correct the loss options.", where="loss_fn_config")
    return loss, inputs
