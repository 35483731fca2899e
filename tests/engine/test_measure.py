"""Measurements on batches, by hand-made numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fpcli.engine.measure import (
    compute_one_hot_loss,
    count_right,
    judge_batches,
    measure_gradients,
)
from fpcli.errors import DivergedError
from fpcli.tasks.classify import Classify


def linear() -> nn.Module:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        model.bias.zero_()
    return model


X = torch.tensor([[1.0, 2.0], [-1.0, 3.0]])


def test_gradients_reach_weights_that_are_zero() -> None:
    """The outputs' sum has the inputs' column sums as gradient of every row."""
    model = linear()
    found = measure_gradients(model, model(X).sum())
    assert found["weight"].tolist() == [[0.0, 5.0], [0.0, 5.0]]
    assert found["bias"].tolist() == [2.0, 2.0]
    assert model.weight.grad is None


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = linear()
    with pytest.raises(DivergedError, match="not finite"):
        measure_gradients(model, model(X).sum() * math.inf)


def test_accuracy_leaves_the_mode() -> None:
    """Outputs (1, 0) and (-1, 0): classes 0 and 1."""
    model = linear().train()
    batches = [(X, torch.tensor([0, 0])), (X[:1], torch.tensor([0]))]
    assert judge_batches(model, batches, Classify(2)).metrics == {"accuracy": 2 / 3}
    assert model.training


def test_right_predictions_are_counted_by_class() -> None:
    """Outputs (1, 0) and (-1, 0): classes 0 and 1, for the first a wrong label once."""
    batches = [(X, torch.tensor([0, 1])), (X[:1], torch.tensor([2]))]
    assert count_right(linear(), batches, 3).tolist() == [[1, 1, 0], [1, 1, 1]]


def test_one_hot_loss() -> None:
    """One sample, outputs (1, 0), class 0: (ln(1 + 1/e) + ln 2) / 2."""
    want = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    got = compute_one_hot_loss(linear(), (X[:1], torch.tensor([0])))
    assert float(got.detach()) == pytest.approx(want)
