"""VGG networks for small images, with batch norm and one without."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fpcli.models.widths import ImageShape, widen

_CHANNELS = (64, 128, 256, 512, 512)


def vgg11(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return VGG-11 with one linear layer (9,228,362 parameters on CIFAR-10)."""
    return _vgg(input_shape, num_classes, width, depths=(1, 1, 2, 2, 2))


def vgg11_plain(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return VGG-11 without batch norm, three linear layers (9,750,922 parameters on CIFAR-10).

    Any image goes through, as in the others.

    Source: the official code of PruneFL (Jiang et al., TNNLS 2023), initial values included.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, number = input_shape[0], 0
    for stage, (channels, depth) in enumerate(zip(_CHANNELS, (1, 1, 2, 2, 2), strict=True), 1):
        outputs = widen(channels, width)
        for _ in range(depth):
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers[f"relu{number}"] = nn.ReLU()
            inputs = outputs
        layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    for name in ("fc1", "fc2"):
        layers[name] = hidden = nn.Linear(inputs, inputs)
        layers[f"{name}_relu"] = nn.ReLU()
        nn.init.kaiming_uniform_(hidden.weight)
    layers["fc3"] = output = nn.Linear(inputs, num_classes)
    nn.init.kaiming_uniform_(output.weight, a=1.5, mode="fan_out")
    return nn.Sequential(layers)


def vgg13(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return VGG-13 with one linear layer (9,413,066 parameters on CIFAR-10)."""
    return _vgg(input_shape, num_classes, width, depths=(2, 2, 2, 2, 2))


def vgg16(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return VGG-16 with a hidden linear layer of 512 (14,987,210 parameters on CIFAR-10).

    Source: Li et al., ICLR 2017, whose counts leave out batch norm and biases: 14,977,728 weights.
    """
    return _vgg(input_shape, num_classes, width, depths=(2, 2, 3, 3, 3), has_hidden=True)


def vgg19(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return VGG-19 with one linear layer (20,035,018 parameters on CIFAR-10).

    Source: the variant of Network Slimming (Liu et al., ICCV 2017), which has no dropout either.
    """
    return _vgg(input_shape, num_classes, width, depths=(2, 2, 4, 4, 4))


def _vgg(
    input_shape: ImageShape,
    num_classes: int,
    width: float,
    *,
    depths: tuple[int, ...],
    has_hidden: bool = False,
) -> nn.Module:
    """Return five stages of 3x3 convolutions without bias, half the resolution after each.

    Pooling rounds up, which changes nothing at 32 pixels and lets any image through; what is left
    of larger ones is averaged.

    Args:
        depths: convolutions of each stage.
        has_hidden: a linear layer with batch norm and ReLU before the last one.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, number = input_shape[0], 0
    for stage, (channels, depth) in enumerate(zip(_CHANNELS, depths, strict=True), start=1):
        outputs = widen(channels, width)
        for _ in range(depth):
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
            layers[f"relu{number}"] = nn.ReLU()
            inputs = outputs
        if stage < len(depths) or has_hidden:
            layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if has_hidden:
        layers["fc1"] = nn.Linear(inputs, inputs, bias=False)
        layers["fc1_norm"] = nn.BatchNorm1d(inputs)
        layers["fc1_relu"] = nn.ReLU()
    layers["fc2" if has_hidden else "fc"] = nn.Linear(inputs, num_classes)
    for layer in layers.values():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layers)
