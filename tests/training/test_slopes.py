"""Derivatives of what people write, against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.training.methods import slopes

given = slopes._GIVEN
theirs = {"exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
theirs["log_sigmoid"] = torch.nn.functional.logsigmoid
FORMULAS: list[Callable[[Any, Any], Any]] = [
    lambda x, f: x[0] * x[1] - x[2] / x[0] + 3,
    lambda x, f: 2 / x[1] - (1 - x[0]) ** 3 + abs(x[2]),
    lambda x, f: f["exp"](x[0]) * f["sigmoid"](x[1]) + f["log_sigmoid"](-x[2]),
    lambda x, f: f["tanh"](x[0]) + f["sqrt"](x[1] * x[1] + 1) - f["log"](f["exp"](x[2]) + 1),
    lambda x, f: sum(one * one for one in x) / 3 + 2 ** x[0] + (-x[1]) ** (1 + x[2] * x[2]),
    lambda x, f: (x[0] - x[1]) * (x[0] - x[1]) * (+x[2]),
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_slopes_equal_pytorchs(formula: Callable[[Any, Any], Any]) -> None:
    values = [-0.7, -1.3, -2.1]
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    expected = formula(x, theirs)
    expected.backward()
    loss, found = slopes._with_slopes(lambda known, weights, row: formula(known, given), values, [], {})
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert found == pytest.approx(x.grad.tolist(), rel=1e-9)


def test_a_number_that_is_used_twice_counts_twice() -> None:
    def doubled(known: list, weights: list, row: dict) -> Any:
        once = known[0] * 3
        return once * once + once

    assert slopes._with_slopes(doubled, [2.0], [], {}) == [42.0, [39.0]]


def test_what_forgets_its_slope_is_refused() -> None:
    with pytest.raises(TypeError, match="forgets its slope"):
        float(slopes.Slope(1.0))


def test_a_long_sum_needs_no_deep_stack() -> None:
    loss, found = slopes._with_slopes(lambda known, weights, row: sum(known), [1.0] * 20_000, [], {})
    assert loss == 20_000 and set(found) == {1.0}
