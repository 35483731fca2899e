"""Regression by hand: losses in standard units, metrics in those of the target."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fpcli.tasks.regress import Regress

TARGETS = torch.tensor([100.0, 120.0, 140.0, 160.0])
OUTPUTS = torch.tensor([[-1.0], [-0.5], [1.5], [1.0]])
"""In units of 20 around 120: predictions 100, 110, 150, 140; errors 0, -10, 10, -20."""


class Given(nn.Module):
    """A network whose output is its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_metrics_are_in_the_target_s_units() -> None:
    task = Regress(mean=120.0, std=20.0)
    batches = [(OUTPUTS[:3], TARGETS[:3]), (OUTPUTS[3:], TARGETS[3:])]
    score = task.score(Given(), batches)
    # Squared errors 0 + 100 + 100 + 400 against 900 + 100 + 100 + 900 around the mean of 130.
    assert score.metrics == pytest.approx({"mae": 10.0, "r2": 1 - 600 / 2000})
    assert score.loss == pytest.approx(600 / 400 / 4)
    assert (score.num_examples, task.primary.direction) == (4, "min")


@pytest.mark.parametrize(("name", "want"), [("mse", 600 / 400 / 4), ("l1", 40 / 20 / 4)])
def test_the_loss_is_in_standard_units(name: str, want: float) -> None:
    task = Regress(mean=120.0, std=20.0, loss_name=name)
    assert float(task.loss(Given(), (OUTPUTS, TARGETS))) == pytest.approx(want)
    assert task.score(Given(), [(OUTPUTS, TARGETS)]).loss == pytest.approx(want)


def test_targets_that_are_all_alike_explain_nothing() -> None:
    score = Regress().score(Given(), [(torch.ones(3, 1), torch.full((3,), 2.0))])
    assert score.metrics == {"mae": 1.0, "r2": 0.0}
    assert Regress().score(Given(), []).metrics == {"mae": 0.0, "r2": 0.0}
