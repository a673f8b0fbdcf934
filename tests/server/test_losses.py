"""Losses and their gradients against numbers worked out by hand from the formulas in the module's docstring."""

from __future__ import annotations

import math
from typing import ClassVar

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


def test_cispo() -> None:
    # The ratios 2, 0.5, 1, 0.8 clipped to [0.8, 1.2] are the weights 1.2, 0.8, 1, 0.8 of ln p x A.
    # -(1.2 x ln 1/2 x 1 + 0.8 x ln 1/4 x 2 + 1 x ln 4/5 x -3 + 0.8 x ln 1/10 x -1)
    value, gradient = run("cispo", {"logprobs": [math.log(q) for q in Q], "advantages": A})
    assert value == close(1.2 * 0.6931471805599453 + 1.6 * 1.3862943611198906 - 3 * 0.2231435513142097 - 0.8 * 2.302585092994046)
    # The clipped tokens go on learning, which sets it apart from ppo.
    assert gradient == close([-1.2, -1.6, 3.0, 0.8])
    # Bounds [0, 1.5]: only the first ratio is cut.
    wide = run("cispo", {"logprobs": [math.log(q) for q in Q], "advantages": A}, {"clip_low_threshold": 0.0, "clip_high_threshold": 1.5})
    assert wide[1] == close([-1.5, -1.0, 3.0, 0.8])


def test_dro() -> None:
    # ln p/q = ln 2, -ln 2, 0, ln 0.8; -sum(ln p x A) + beta/2 x sum(ln p/q)^2, its derivative -A + beta x ln p/q.
    policy = 0.6931471805599453 + 2 * 1.3862943611198906 - 3 * 0.2231435513142097 - 2.302585092994046
    penalty = 2 * 0.6931471805599453**2 + 0.2231435513142097**2
    inputs = {"logprobs": [math.log(q) for q in Q], "advantages": A}
    value, gradient = run("dro", inputs)
    assert value == close(policy + 0.025 * penalty)
    assert gradient == close([-1 + 0.05 * 0.6931471805599453, -2 - 0.05 * 0.6931471805599453, 3, 1 - 0.05 * 0.2231435513142097])
    assert run("dro", inputs, {"beta": 2.0})[0] == close(policy + penalty)


class TestGspo:
    """One ratio a sequence: the geometric mean over the tokens with an advantage."""

    OPEN: ClassVar = {"clip_low_threshold": 0.5, "clip_high_threshold": 2.0}

    def inputs(self, advantage: float) -> dict[str, list]:
        return {"logprobs": [math.log(q) for q in Q], "advantages": [0.0, *[advantage] * 3]}

    def test_between_the_bounds(self) -> None:
        # The first token is the prompt's. The others' ratios 0.5, 1, 0.8 have the geometric mean 0.4^(1/3) = 0.7368...
        mean = 0.7368062997280773
        value, gradient = run("gspo", self.inputs(1.5), self.OPEN)
        assert value == close(-3 * mean * 1.5)
        assert gradient == close([0.0, *[-mean * 1.5] * 3])

    def test_past_the_bounds(self) -> None:
        # A gain that is clipped from above has no gradient; below 1 - 3e-4 that is so for what is to become rarer.
        value, gradient = run("gspo", self.inputs(-2.0))
        assert (value, gradient) == (close(3 * 0.9997 * 2.0), [0.0, 0.0, 0.0, 0.0])
        value, gradient = run("gspo", {"logprobs": [math.log(0.25)] * 2, "advantages": [1.0, 1.0]}, p=[0.5, 0.5])
        assert (value, gradient) == (close(-2 * 1.0004), [0.0, 0.0])
        # On the other side it is pulled back.
        assert run("gspo", self.inputs(1.0))[1] == close([0.0, *[-0.7368062997280773] * 3])

    def test_a_sequence_without_advantages_weighs_nothing(self) -> None:
        value, gradient = run("gspo", {"logprobs": [math.log(q) for q in Q], "advantages": [0.0] * 4})
        assert (value, gradient) == (0.0, [0.0] * 4)


def test_on_policy_they_agree() -> None:
    """Where p = q all have the gradient of plain REINFORCE, and those built on the ratio are -sum A."""
    inputs = {"logprobs": [math.log(p) for p in P], "advantages": A}
    for name in ("importance_sampling", "ppo", "gspo"):
        assert run(name, inputs)[0] == close(1.0)
    for name in ("importance_sampling", "cispo", "dro", "gspo"):
        assert run(name, inputs)[1] == close([-a for a in A])


def test_names_inputs_and_options() -> None:
    assert set(LOSSES) == {"cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "gspo"}
    assert get_loss("ppo", {})[1] == ("target_tokens", "logprobs", "advantages")
    for name, config, words in (
        ("stable_reinforce", {}, "no loss 'stable_reinforce'"),
        ("dro", {"clip_low_threshold": 0.9}, "Its options: beta"),
        ("ppo", {"clip": 0.2}, "no option 'clip'"),
        ("cross_entropy", {"clip_low_threshold": 0.9}, "Its options: none"),
        ("ppo", {"clip_low_threshold": "low"}, "finite number"),
        ("ppo", {"clip_high_threshold": float("inf")}, "finite number"),
    ):
        with pytest.raises(DataError) as caught:
            get_loss(name, config)
        assert words in str(caught.value)
