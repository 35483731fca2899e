"""The networks of Sub-FedAvg: LeNet-5 for CIFAR and for MNIST, also with batch norm."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial

from torch import nn

from fpcli.models.widths import ImageShape


def subfedavg_cifar(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return LeNet-5 as used for CIFAR-10 (62,006 parameters there)."""
    return _lenet(input_shape, num_classes, channels=(6, 16), hidden=(120, 84), has_norm=False)


def subfedavg_mnist(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return the smaller one as used for MNIST (21,840 parameters there)."""
    return _lenet(input_shape, num_classes, channels=(10, 20), hidden=(50,), has_norm=False)


def subfedavg_cifar_bn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return `cifar` with batch norm behind the convolutions (62,050 parameters on CIFAR-10)."""
    return _lenet(input_shape, num_classes, channels=(6, 16), hidden=(120, 84), has_norm=True)


def subfedavg_mnist_bn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return `mnist` with batch norm behind the convolutions (21,900 parameters on MNIST)."""
    return _lenet(input_shape, num_classes, channels=(10, 20), hidden=(50,), has_norm=True)


def _lenet(
    input_shape: ImageShape,
    num_classes: int,
    *,
    channels: tuple[int, ...],
    hidden: tuple[int, ...],
    has_norm: bool,
) -> nn.Module:
    """Return 5x5 convolutions, each with ReLU and pooling, then linear layers.

    Pooling rounds up, which changes nothing at 28 and 32 pixels and lets smaller images through.

    Raises:
        ValueError: nothing is left of the image behind the last pooling.

    Source: Sub-FedAvg (ICDCSW 2021), official code, initial values included; differs: ReLU comes
    before pooling on MNIST too, which gives the same.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, *size = input_shape
    for number, outputs in enumerate(channels, start=1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 5)
        if has_norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"conv{number}_relu"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2, ceil_mode=True)
        size = [(side - 3) // 2 for side in size]
        inputs = outputs
    if min(size) < 1:
        raise ValueError(f"{input_shape[1]}x{input_shape[2]} images are too small")
    layers["flatten"] = nn.Flatten()
    widths = [inputs * math.prod(size), *hidden, num_classes]
    for number in range(1, len(widths)):
        layers[f"fc{number}"] = nn.Linear(widths[number - 1], widths[number])
        if number <= len(hidden):
            layers[f"fc{number}_relu"] = nn.ReLU()
    return nn.Sequential(layers).apply(partial(_fill, has_norm=has_norm))


def _fill(layer: nn.Module, has_norm: bool) -> None:
    """Draw a layer's initial values."""
    if isinstance(layer, nn.BatchNorm2d):
        nn.init.constant_(layer.weight, 0.5)
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        return
    assert layer.bias is not None
    if not has_norm:
        nn.init.xavier_normal_(layer.weight)
        nn.init.normal_(layer.bias)
        return
    nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / (25 * layer.out_channels)))
    else:
        nn.init.normal_(layer.weight, 0.0, 0.01)
