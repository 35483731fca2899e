"""Regression: a number is to be predicted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.tasks.learning_task import Batch, LearningTask, Score

_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss}


@dataclass(frozen=True)
class Regress(LearningTask):
    """Targets are numbers; a network returns ``[b, 1]``, the target in standard units.

    Learning rates that suit other tasks suit standard units, whatever the target's own are.

    Attributes:
        mean, std: of the training targets; a prediction is the output times ``std`` plus ``mean``.
        loss_name: `mse`, the squared error, or `l1`, the absolute one, in standard units.
    """

    kind: ClassVar[str] = "regress"
    primary_name: ClassVar[str] = "mae"
    num_outputs: Annotated[int, Ge(1), Le(1)] = 1
    mean: float = 0.0
    std: Annotated[float, Gt(0)] = 1.0
    loss_name: Literal["mse", "l1"] = "mse"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Mean absolute error in the target's units, and R2."""
        return ("mae", "r2")

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared or absolute error of one batch, in standard units."""
        x, y = batch
        return _LOSSES[self.loss_name](model(x).flatten(), (y - self.mean) / self.std)

    def judge_each(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return absolute errors in the target's units, and squared or absolute ones in standard
        units."""
        output, target = outputs.flatten().double(), targets.double()
        losses = _LOSSES[self.loss_name](output, (target - self.mean) / self.std, reduction="none")
        return (output * self.std + self.mean - target).abs(), losses

    @torch.no_grad()
    def score(
        self, model: nn.Module, batches: Iterable[Batch], own_classes: Tensor | None = None
    ) -> Score:
        """Return ``mae``, the mean absolute error in the target's units; ``r2``, 1 minus the
        squared error over that of the samples' own mean (0 where they are all alike); and the loss.
        """
        model.eval()
        outputs, targets = [torch.empty(0)], [torch.empty(0)]
        for x, y in batches:
            outputs.append(model(x).flatten().cpu())
            targets.append(y.cpu())
        output, target = torch.cat(outputs).double(), torch.cat(targets).double()
        if not len(target):
            return Score(0.0, dict.fromkeys(self.metrics, 0.0), 0)
        error = output * self.std + self.mean - target
        spread = float(((target - target.mean()) ** 2).sum())
        loss = _LOSSES[self.loss_name](output, (target - self.mean) / self.std)
        r2 = 1 - float((error**2).sum()) / spread if spread else 0.0
        return Score(float(loss), {"mae": float(error.abs().mean()), "r2": r2}, len(target))

    def restore(self, outputs: Tensor) -> Tensor:
        """Return predictions in the target's own units."""
        return outputs * self.std + self.mean

    def standardise(self, restored: Tensor) -> Tensor:
        """Return predictions in standard units."""
        return (restored - self.mean) / self.std

    def make_targets(self, batch: int) -> Tensor:
        """Return targets a standard deviation above and below the mean in turn, ``[batch]``."""
        return self.mean + self.std * (1 - 2 * (torch.arange(batch) % 2)).float()

    def describe(self) -> str:
        """Return that a single number is wanted."""
        return "a number to predict"
