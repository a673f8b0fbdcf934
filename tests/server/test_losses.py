"""Losses and their gradients against numbers worked out by hand from the formulas in the module's docstring."""

from __future__ import annotations

import math

import pytest
import torch

from engine.errors import DataError
from engine.server.losses import LOSSES, get_loss

P = [0.5, 0.25, 0.8, 0.1]  # the model's probabilities of four target tokens
Q = [0.25, 0.5, 0.8, 0.125]  # the sampler's: ratios 2, 0.5, 1, 0.8
A = [1.0, 2.0, -3.0, -1.0]


def run(name: str, inputs: dict[str, list], config: dict[str, float] | None = None, p: list = P) -> tuple[float, list[float]]:
    """The loss, and its gradient by each log-probability."""
    logprobs = torch.log(torch.tensor(p, dtype=torch.float64)).requires_grad_()
    loss, _ = get_loss(name, config or {})
    value = loss(logprobs, {key: torch.tensor(row, dtype=torch.float64) for key, row in inputs.items()}, config or {})
    value.backward()
    return float(value.detach()), logprobs.grad.tolist()


def close(expected) -> object:
    return pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_cross_entropy() -> None:
    # -(1 ln 1/2 + 0 + 2 ln 4/5 - 0.5 ln 1/10) = 0.693147... + 0.446287... - 1.151292...
    value, gradient = run("cross_entropy", {"weights": [1.0, 0.0, 2.0, -0.5]})
    assert value == close(0.6931471805599453 + 2 * 0.2231435513142097 - 0.5 * 2.302585092994046)
    assert gradient == [-1.0, 0.0, -2.0, 0.5]


def test_cross_entropy_with_soft_targets() -> None:
    value, gradient = run("cross_entropy", {"weights": [[0.75, 0.25], [1.0, 0.0]]}, p=[[0.5, 0.25], [0.125, 0.0625]])
    assert value == close((0.75 * 1 + 0.25 * 2 + 3) * math.log(2))
    assert gradient == [[-0.75, -0.25], [-1.0, 0.0]]


def test_importance_sampling() -> None:
    # -(2 x 1 + 0.5 x 2 + 1 x -3 + 0.8 x -1); the derivative by log p is -ratio x A.
    value, gradient = run("importance_sampling", {"logprobs": [math.log(q) for q in Q], "advantages": A})
    assert value == close(0.8)
    assert gradient == close([-2.0, -1.0, 3.0, 0.8])


def test_ppo() -> None:
    # ratios 2, 0.5, 1, 0.8 clipped to [0.8, 1.2] are 1.2, 0.8, 1, 0.8.
    # min(2, 1.2) + min(0.5 x 2, 0.8 x 2) + min(-3, -3) + min(-0.8, -0.8) = 1.2 + 1 - 3 - 0.8 = -1.6
    value, gradient = run("ppo", {"logprobs": [math.log(q) for q in Q], "advantages": A})
    assert value == close(1.6)
    # The first ratio is past its bound where more would be gained: no gradient. The second is, but on the other side.
    assert gradient[:2] == close([0.0, -1.0])
    # A negative advantage is clipped from below: ratio 0.5 (< 0.8) with A = -1 gives min(-0.5, -0.8) and no gradient.
    value, gradient = run("ppo", {"logprobs": [math.log(0.5)], "advantages": [-1.0]}, p=[0.25])
    assert (value, gradient) == (close(0.8), [0.0])


def test_the_bounds_of_ppo_can_be_set() -> None:
    wide = {"clip_low_threshold": 0.0, "clip_high_threshold": 100.0}
    inputs = {"logprobs": [math.log(q) for q in Q], "advantages": A}
    assert run("ppo", inputs, wide)[0] == close(run("importance_sampling", inputs)[0])
    # [0.9, 1.5]: min(2, 1.5) + min(1, 1.8) + -3 + min(-0.8, -0.9) = 1.5 + 1 - 3 - 0.9 = -1.4
    assert run("ppo", inputs, {"clip_low_threshold": 0.9, "clip_high_threshold": 1.5})[0] == close(1.4)


def test_on_policy_they_agree() -> None:
    """Where p = q both are -sum A, with the gradient of plain REINFORCE."""
    inputs = {"logprobs": [math.log(p) for p in P], "advantages": A}
    for name in ("importance_sampling", "ppo"):
        assert run(name, inputs)[0] == close(1.0)
    assert run("importance_sampling", inputs)[1] == close([-a for a in A])


def test_names_inputs_and_options() -> None:
    assert set(LOSSES) == {"cross_entropy", "importance_sampling", "ppo"}
    assert get_loss("ppo", {})[1] == ("target_tokens", "logprobs", "advantages")
    for name, config, words in (
        ("cispo", {}, "no loss 'cispo'"),
        ("ppo", {"clip": 0.2}, "no option 'clip'"),
        ("cross_entropy", {"clip_low_threshold": 0.9}, "Its options: none"),
        ("ppo", {"clip_low_threshold": "low"}, "finite number"),
        ("ppo", {"clip_high_threshold": float("inf")}, "finite number"),
    ):
        with pytest.raises(DataError) as caught:
            get_loss(name, config)
        assert words in str(caught.value)
