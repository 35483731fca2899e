"""A network with its normalisation in front, for files that take values as they are read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fpcli.engine.trained import Inputs


class RawInputs(nn.Module):
    """Takes raw samples, float32 ``[batch, ...]``, and computes what ``Dataset.normalise`` does.

    Args:
        model: takes normalised samples.
        inputs: what these are.
        num_dims: of one sample.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, inputs: Inputs, num_dims: int) -> None:
        super().__init__()
        mean, std = (
            torch.tensor(values).view(-1, *[1] * (num_dims - 1))
            for values in (inputs.mean, inputs.std)
        )
        self.model = model
        self.register_buffer("factor", inputs.scale / std)
        self.register_buffer("shift", mean / std)

    def forward(self, raw: Tensor) -> Tensor:
        """Return the logits of raw samples."""
        logits: Tensor = self.model(raw * self.factor - self.shift)
        return logits

    def invert(self, normalised: Tensor) -> Tensor:
        """Return the raw samples of normalised ones, but for rounding."""
        return (normalised + self.shift) / self.factor
