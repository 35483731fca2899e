"""Importance from gradients: the rules, and flat parts that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fpcli.scores.gradients import GradientTotals, SquareRule, place_values, snip


def totals_of(gradients: list[float], rule: SquareRule) -> GradientTotals:
    """Return what is known after steps with these gradients of one weight."""
    weight = nn.Parameter(torch.zeros(1))
    totals = GradientTotals({"w": weight}, rule)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        totals.add(nn.Module())
        weight.grad.zero_()  # a total is no alias of what torch reuses
    return totals


@pytest.mark.parametrize(("rule", "want"), [("sum", 5 * 9.0), ("last", 5 * 4.0), ("step_sq", 25.0)])
def test_rules(rule: SquareRule, want: float) -> None:
    """Gradients 1 and 2 of five samples: (1 + 2)^2, 2^2, 1 + 4."""
    assert totals_of([1.0, 2.0], rule).importance(5)["w"].tolist() == [want]


def test_a_weight_without_gradient_has_no_importance() -> None:
    totals = GradientTotals({"w": nn.Parameter(torch.ones(2))}, "last")
    totals.add(nn.Module())
    assert totals.importance(3)["w"].tolist() == [0.0, 0.0]


def test_snip_adds_gradients_before_the_size() -> None:
    weights = {"w": torch.tensor([2.0, 3.0])}
    parts = [{"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([-1.0, 1.0])}]
    assert snip(weights, parts)["w"].tolist() == [0.0, 6.0]


def test_spread_ignores_what_does_not_fit() -> None:
    place = torch.tensor([[True, False], [False, True]])
    assert place_values(torch.tensor([1.0, 2.0]), place).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    for wrong in (None, torch.ones(3), torch.ones(1, 2), torch.ones(2, dtype=torch.int64)):
        assert not place_values(wrong, place).any()
