"""Importance from gradients: the rules, and flat parts that do not fit."""

from __future__ import annotations

import pytest
import torch

from fpcli.scores.gradients import Rule, accumulated, snip, spread, squared


@pytest.mark.parametrize(("rule", "want"), [("sum", 5 * 9.0), ("last", 5 * 4.0), ("step_sq", 25.0)])
def test_rules(rule: Rule, want: float) -> None:
    """Gradients 1 and 2 of five samples: (1 + 2)^2, 2^2, 1 + 4."""
    total = torch.zeros(1)
    for gradient in (1.0, 2.0):
        total = accumulated(total, torch.tensor([gradient]), rule)
    assert squared(total, 5, rule).tolist() == [want]


def test_the_last_gradient_is_a_copy() -> None:
    gradient = torch.ones(1)
    total = accumulated(torch.zeros(1), gradient, "last")
    gradient += 1
    assert total.tolist() == [1.0]


def test_snip_adds_gradients_before_the_size() -> None:
    weights = {"w": torch.tensor([2.0, 3.0])}
    parts = [{"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([-1.0, 1.0])}]
    assert snip(weights, parts)["w"].tolist() == [0.0, 6.0]


def test_spread_ignores_what_does_not_fit() -> None:
    place = torch.tensor([[True, False], [False, True]])
    assert spread(torch.tensor([1.0, 2.0]), place).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    for wrong in (None, torch.ones(3), torch.ones(1, 2), torch.ones(2, dtype=torch.int64)):
        assert not spread(wrong, place).any()
