"""Networks of linear layers only."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn

from fpcli.models.widths import InputShape


def tabular_mlp(input_shape: InputShape, num_classes: int) -> nn.Module:
    """Return a network for tables: 64 and 32 hidden neurons (4,130 parameters on 30 features)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(prod(input_shape), 64),
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(64, 32),
        fc2_relu=nn.ReLU(),
        fc3=nn.Linear(32, num_classes),
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
