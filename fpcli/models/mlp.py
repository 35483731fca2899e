"""Networks of linear layers only."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn

from fpcli.models.widths import InputShape, widen


def tabular_mlp(input_shape: InputShape, num_classes: int) -> nn.Module:
    """Return a network for tables: 64 and 32 hidden neurons (4,130 parameters on 30 features)."""
    return mlp_reg(input_shape, num_classes)


def mlp_reg(input_shape: InputShape, num_outputs: int, width: float = 1.0) -> nn.Module:
    """Return the same for regression, in any width (2,817 parameters on 10 features)."""
    first, second = widen(64, width), widen(32, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(prod(input_shape), first),
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(first, second),
        fc2_relu=nn.ReLU(),
        fc3=nn.Linear(second, num_outputs),
    )
    return nn.Sequential(layers)


def mnist_mlp(input_shape: InputShape, num_classes: int) -> nn.Module:
    """Return a network with 200 hidden neurons and dropout 0.5 (159,010 parameters on MNIST).

    Source: Zhou et al., arXiv 2201.11803, its experiments; dropout lies before the ReLU there.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(prod(input_shape), 200),
        fc1_dropout=nn.Dropout(0.5),
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(200, num_classes),
    )
    return nn.Sequential(layers)
