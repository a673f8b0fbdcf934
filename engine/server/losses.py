"""What is minimised: pure functions of log-probabilities. Each loss is a SUM over tokens, never an average.

p(x) is the model's probability of the target token, q(x) that of the sampler that drew it, A the advantage.

    cross_entropy        L = sum w * -log p                                     (w may be negative: preference methods)
    importance_sampling  L = sum -(p/q) * A                                     (off-policy REINFORCE)
    ppo                  L = sum -min(p/q * A, clip(p/q, low, high) * A)        (Schulman et al. 2017, arXiv:1707.06347)
    cispo                L = sum -clip(p/q, low, high) * log p * A              (Chen et al. 2025, arXiv:2506.13585)
    dro                  L = sum -log p * A + beta/2 * (log p/q)^2              (Richemond et al. 2024, arXiv:2405.19107)
    gspo                 L = sum -min(s * A, clip(s, low, high) * A)            (Zheng et al. 2025, arXiv:2507.18071)

In cispo the clipped ratio is a weight: no gradient flows through it. In gspo s is one ratio for the whole sequence, the
geometric mean of p/q over its tokens, and each token passes on the gradient of its own log p (the paper's GSPO-token);
the sum over tokens stays a sum, so on-policy its gradient is that of the others. A sequence's tokens are those whose
advantage isn't 0: the prompt's is 0 by the API's custom. dro's penalty, as it is documented, is for every token: give the
prompt's own log-probabilities as q, or it is trained on.

Names and inputs are the Tinker API's, and so are the first five definitions (tinker-docs.thinkingmachines.ai/tinker/losses);
gspo isn't written up there: it follows the paper. Clip bounds are `clip_low_threshold` and `clip_high_threshold`, 0.8 and
1.2 (gspo: the paper's 1 - 3e-4 and 1 + 4e-4, for a mean over many tokens moves little); dro's `beta` is 0.05.
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
    advantages = inputs["advantages"]
    return -torch.minimum(ratio * advantages, _clipped(ratio, config) * advantages).sum()


def cispo(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """REINFORCE weighted by the clipped ratio; all [T]."""
    weight = _clipped(torch.exp(logprobs - inputs["logprobs"]), config).detach()
    return -(weight * logprobs * inputs["advantages"]).sum()


def dro(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Policy gradient held back by a quadratic penalty instead of a ratio; all [T]."""
    penalty = (logprobs - inputs["logprobs"]) ** 2
    return -(logprobs * inputs["advantages"] - 0.5 * config.get("beta", 0.05) * penalty).sum()


def gspo(logprobs: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """The clipped surrogate objective with one ratio for the sequence; all [T]."""
    advantages = inputs["advantages"]
    own = advantages != 0
    mean = torch.where(own, logprobs - inputs["logprobs"], 0).sum() / own.sum().clamp(min=1)
    ratio = torch.exp(mean.detach() + logprobs - logprobs.detach())
    return -torch.minimum(ratio * advantages, _clipped(ratio, config, 1 - 3e-4, 1 + 4e-4) * advantages).sum()


def _clipped(ratio: torch.Tensor, config: Config, low: float = 0.8, high: float = 1.2) -> torch.Tensor:
    return ratio.clamp(config.get("clip_low_threshold", low), config.get("clip_high_threshold", high))


LossFn = Callable[[torch.Tensor, Inputs, Config], torch.Tensor]
LOSSES: dict[str, tuple[LossFn, tuple[str, ...], tuple[str, ...]]] = {
    "cross_entropy": (cross_entropy, ("target_tokens", "weights"), ()),
    "importance_sampling": (importance_sampling, ("target_tokens", "logprobs", "advantages"), ()),
    "ppo": (ppo, ("target_tokens", "logprobs", "advantages"), ("clip_low_threshold", "clip_high_threshold")),
    "cispo": (cispo, ("target_tokens", "logprobs", "advantages"), ("clip_low_threshold", "clip_high_threshold")),
    "dro": (dro, ("target_tokens", "logprobs", "advantages"), ("beta",)),
    "gspo": (gspo, ("target_tokens", "logprobs", "advantages"), ("clip_low_threshold", "clip_high_threshold")),
}
OF_WHOLE_SEQUENCES = ("gspo",)  # the others look at each token by itself, so many rows may come as one


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
