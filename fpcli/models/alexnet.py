"""AlexNet for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fpcli.models.widths import ImageShape, widen


def alexnet(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return five 3x3 convolutions and three linear layers (23,272,266 parameters on CIFAR-10).

    FedMP (ICDE 2022) trains an AlexNet on CIFAR-10 and says nothing about its layers. This is the
    form that is usual for 32x32 images: channels and dropout as in torchvision's, 3x3 kernels, and
    a first stride of 2 instead of 4.

    Raises:
        ValueError: nothing is left of the image behind the last pooling.
    """
    inputs, *size = input_shape
    # Halved by the first convolution, which rounds up, and by three poolings, which round down.
    left = [(side + 1) // 16 for side in size]
    if min(left) < 1:
        raise ValueError(f"{size[0]}x{size[1]} images are too small")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, channels in enumerate((64, 192, 384, 256, 256), start=1):
        outputs, stride = widen(channels, width), 2 if number == 1 else 1
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        layers[f"conv{number}_relu"] = nn.ReLU()
        if number in (1, 2, 5):
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        inputs = outputs
    layers["flatten"] = nn.Flatten()
    inputs *= left[0] * left[1]
    for number in (1, 2):
        outputs = widen(4096, width)
        layers[f"fc{number}_dropout"] = nn.Dropout(0.5)
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"fc{number}_relu"] = nn.ReLU()
        inputs = outputs
    layers["fc3"] = nn.Linear(inputs, num_classes)
    return nn.Sequential(layers)
