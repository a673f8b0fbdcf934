"""Preference losses and their gradients, against numbers worked out by other means: by hand, and by PyTorch's differentiation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from engine.training.methods.preference import Side, log_sigmoid, pair, sigmoid, single

CASES = [(-12.0, -11.0, 5, -14.0, -10.5, 7), (-3.0, -6.5, 2, -2.0, -2.0, 3), (-80.0, -20.0, 40, -9.0, -60.0, 12)]


def sides(case: tuple) -> tuple[Side, Side]:
    return Side(*case[:3]), Side(*case[3:])


def by_torch(variant: str, case: tuple, beta: float, margin: float, nll: float) -> tuple[float, float, float]:
    """The papers' formulas, differentiated by PyTorch."""
    c, r = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (case[0], case[3]))
    c0, n_c, r0, n_r = case[1], case[2], case[4], case[5]
    if variant == "dpo":
        loss = -F.logsigmoid(beta * ((c - c0) - (r - r0)))
    elif variant == "ipo":
        loss = ((c - c0) / n_c - (r - r0) / n_r - 1 / (2 * beta)) ** 2
    else:
        loss = -F.logsigmoid(beta * (c / n_c - r / n_r) - margin)
    loss = loss - nll * c / n_c
    loss.backward()
    return loss.item(), c.grad.item(), r.grad.item()


@pytest.mark.parametrize("variant", ["dpo", "ipo", "simpo"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_pytorchs(variant: str, case: tuple) -> None:
    found = pair(variant, *sides(case), beta=0.3, margin=0.5, nll=0.2)
    loss, by_chosen, by_rejected = by_torch(variant, case, 0.3, 0.5, 0.2)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    assert found.by_chosen == pytest.approx(by_chosen, rel=1e-9)
    assert found.by_rejected == pytest.approx(by_rejected, rel=1e-9)


def test_dpo_begins_at_log_2_and_by_hand() -> None:
    same = Side(-7.0, -7.0, 4)
    assert pair("dpo", same, same, beta=0.1).loss == pytest.approx(0.693147, abs=1e-6)
    # beta 0.1, gains of 2 and -1: d = 3, L = log(1 + e^-0.3) = 0.554355, slope = -0.1 / (1 + e^0.3) = -0.0425557
    found = pair("dpo", Side(-5.0, -7.0, 4), Side(-8.0, -7.0, 4), beta=0.1)
    assert found.loss == pytest.approx(0.554355, abs=1e-6)
    assert (found.by_chosen, found.by_rejected) == (pytest.approx(-0.0425557, abs=1e-7), pytest.approx(0.0425557, abs=1e-7))


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize(("now", "before", "drift"), [(-4.0, -5.0, 0.0), (-9.0, -5.0, 0.5), (-30.0, -2.0, 3.0)])
def test_kto_equals_pytorch(good: bool, now: float, before: float, drift: float) -> None:
    p = torch.tensor(now, dtype=torch.float64, requires_grad=True)
    z = 0.2 * drift
    value = torch.sigmoid(0.2 * (p - before) - z) if good else torch.sigmoid(z - 0.2 * (p - before))
    loss = 1.5 * (1 - value)
    loss.backward()
    found, slope = single(Side(now, before, 3), good, 0.2, drift, 1.5)
    assert found == pytest.approx(loss.item(), rel=1e-9)
    assert slope == pytest.approx(p.grad.item(), rel=1e-9)


def test_nothing_overflows() -> None:
    assert (sigmoid(-1e4), sigmoid(1e4)) == (0.0, 1.0)
    assert (log_sigmoid(-1e4), log_sigmoid(1e4)) == (-1e4, 0.0)
    assert math.isfinite(pair("dpo", Side(-1e5, 0.0, 9), Side(0.0, -1e5, 9), beta=10).loss)
