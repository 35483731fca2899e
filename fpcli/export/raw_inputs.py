"""A network with its normalisation in front, for files that take values as they are read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fpcli.engine.trained import Inputs
from fpcli.tasks.learning_task import LearningTask


class RawInputs(nn.Module):
    """Takes raw samples, float32 ``[batch, ...]``, and computes what ``Dataset.normalise`` does.

    Where numbers are predicted, it returns them in the target's own units.

    Args:
        model: takes normalised samples.
        inputs: what these are.
        num_dims: of one sample.
        task: what the model is for.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, inputs: Inputs, num_dims: int, task: LearningTask) -> None:
        super().__init__()
        mean, std = (
            torch.tensor(values).view(-1, *[1] * (num_dims - 1))
            for values in (inputs.mean, inputs.std)
        )
        self.model, self.task = model, task
        self.register_buffer("factor", inputs.scale / std)
        self.register_buffer("shift", mean / std)

    def forward(self, raw: Tensor) -> Tensor:
        """Return the logits of raw samples, or predicted numbers."""
        return self.task.restore(self.model(raw * self.factor - self.shift))

    def invert(self, normalised: Tensor) -> Tensor:
        """Return the raw samples of normalised ones, but for rounding."""
        return (normalised + self.shift) / self.factor
