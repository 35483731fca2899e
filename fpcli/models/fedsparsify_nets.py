"""The networks of FedSparsify's classification tasks."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn

from fpcli.models.widths import ImageShape, InputShape


def fedsparsify_mlp(input_shape: InputShape, num_classes: int) -> nn.Module:
    """Return two hidden layers of 128 (118,282 parameters on Fashion-MNIST).

    Source: FedSparsify, official code; initial values are torch's.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(prod(input_shape), 128),
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(128, 128),
        fc2_relu=nn.ReLU(),
        fc3=nn.Linear(128, num_classes),
    )
    return nn.Sequential(layers)


def fedsparsify_cnn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return six convolutions and two linear layers (1,609,930 parameters on CIFAR-10).

    Raises:
        ValueError: the image is smaller than 8x8.

    Source: FedSparsify, official code; batch norm follows the first two poolings; initial values
    are torch's.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, tall, wide = input_shape
    if min(tall, wide) < 8:
        raise ValueError(f"{tall}x{wide} images are too small")
    for stage, width in enumerate((64, 128, 128), start=1):
        for number in (1, 2):
            layers[f"conv{stage}_{number}"] = nn.Conv2d(inputs, width, 3, padding=1)
            layers[f"conv{stage}_{number}_relu"] = nn.ReLU()
            inputs = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
        if stage < 3:
            layers[f"norm{stage}"] = nn.BatchNorm2d(width)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(inputs * (tall // 8) * (wide // 8), 512)
    layers["fc1_relu"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(0.2)
    layers["fc2"] = nn.Linear(512, num_classes)
    return nn.Sequential(layers)
