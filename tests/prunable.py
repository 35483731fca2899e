"""Small trained models and contexts for tests of pruning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.split import Split
from fpcli.engine.trained import DataKey, Trained
from fpcli.pruning.pruner import PruneContext
from fpcli.settings.learning import FitConfig
from fpcli.structure.support import Support
from fpcli.structure.trace import trace


class Convs(nn.Module):
    """Two convolutions with batch norm, a residual sum and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(5)
        self.conv3 = nn.Conv2d(5, 5, 3, padding=1)
        self.fc = nn.Linear(5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = x + torch.relu(self.conv3(x))
        return self.fc(x.mean((2, 3)))


def digits(num: int = 256) -> Dataset:
    """Return the digits with few training samples."""
    whole = load_dataset("digits", None, seed=0)
    return replace(whole, train=Split(whole.train.images[:num], whole.train.labels[:num]))


def of_model(model: nn.Module, shape: tuple[int, ...] = (1, 8, 8)) -> Trained:
    """Return a model as if it had been trained."""
    layout = trace(model, torch.zeros(1, *shape))
    values = {name: model.state_dict()[name].detach().clone() for name in layout.tensors}
    return Trained("toy", model, layout, Support(), values, shape, 10, DataKey("digits", 0.1, 0))


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give biases, scales and statistics values that a wrong cut would show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.dim() == 1:
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(noise + (0.5 if "var" in name else -0.3))
    return model.eval()


def context(options: Any, dataset: Dataset | None = None, **more: Any) -> PruneContext:
    """Return a context that says and logs nothing unless told otherwise."""
    return PruneContext(
        found=dataset or digits(),
        options=options,
        retraining=FitConfig(epochs=1, batch_size=32, lr=0.05),
        seed=3,
        **{"tell": lambda text: None} | more,
    )
