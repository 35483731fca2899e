"""Small networks of two or four convolutions and a few linear layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fpcli.models.widths import ImageShape


def digits_cnn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return a network of two 3x3 convolutions for 8x8 images (38,282 parameters on digits).

    Raises:
        ValueError: the image is smaller than 2x2.
    """
    inputs, height, width = input_shape
    if min(height, width) < 2:
        raise ValueError(f"{height}x{width} images are too small")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(inputs, 16, 3, padding=1),
        conv1_relu=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        conv2_relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(32 * (height // 2) * (width // 2), 64),
        fc1_relu=nn.ReLU(),
        fc2=nn.Linear(64, num_classes),
    )
    # With PyTorch's smaller initial weights the first rounds on this little data learn nothing.
    for layer in layers.values():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layers)


def lenet5(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return LeNet-5 with ReLU and max pooling (61,706 parameters on MNIST).

    Source: LeCun et al., Proc. IEEE 1998, section II-B; differs: every map of the second
    convolution sees all maps of the first, ReLU instead of tanh, a linear output.
    """
    return _two_convolutions(
        input_shape, num_classes, channels=(6, 16), kernel=5, paddings=(2, 0), hidden=(120, 84)
    )


def mnist_cnn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return a network of 5x5 convolutions for MNIST (429,746 parameters there)."""
    return _two_convolutions(
        input_shape, num_classes, channels=(32, 64), kernel=5, paddings=(2, 2), hidden=(120,)
    )


def fedavg_cnn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return the FedAvg paper's network for MNIST (1,663,370 parameters there).

    Source: McMahan et al., AISTATS 2017, section 3.
    """
    return _two_convolutions(
        input_shape, num_classes, channels=(32, 64), kernel=5, paddings=(2, 2), hidden=(512,)
    )


def conv2(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return PruneFL's network for FEMNIST (6,603,710 parameters with its 62 classes).

    Source: the official code of PruneFL (Jiang et al., TNNLS 2023), initial values included.
    """
    model = _two_convolutions(
        input_shape, num_classes, channels=(32, 64), kernel=5, paddings=(2, 2), hidden=(2048,)
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, mode="fan_out")
    return model


def conv4(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return PruneFL's network for CelebA (31,202 parameters on 3x84x84 and 2 classes).

    No ReLU stands between its convolutions, only batch norm and max pooling.

    Source: the official code of PruneFL (Jiang et al., TNNLS 2023), initial values included.

    Raises:
        ValueError: nothing is left of the image behind a pooling.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, *size = input_shape
    for number, padding in enumerate((1, 1, 2, 2), start=1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, 32, 3, padding=padding)
        layers[f"norm{number}"] = nn.BatchNorm2d(32)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        inputs, size = 32, [(side + 2 * padding - 2) // 2 for side in size]
        if min(size) < 1:
            raise ValueError(f"{input_shape[1]}x{input_shape[2]} images are too small")
    layers["flatten"] = nn.Flatten()
    layers["fc"] = output = nn.Linear(32 * size[0] * size[1], num_classes)
    nn.init.kaiming_uniform_(output.weight)
    return nn.Sequential(layers)


def _two_convolutions(
    input_shape: ImageShape,
    num_classes: int,
    *,
    channels: tuple[int, int],
    kernel: int,
    paddings: tuple[int, int],
    hidden: tuple[int, ...],
) -> nn.Sequential:
    """Return conv1, pool1, conv2, pool2, then one linear layer fc1, fc2, ... per width.

    Raises:
        ValueError: nothing is left of the image behind the second pooling.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, *size = input_shape
    for number, (outputs, padding) in enumerate(zip(channels, paddings, strict=True), start=1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel, padding=padding)
        layers[f"conv{number}_relu"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        size = [(side + 2 * padding - kernel + 1) // 2 for side in size]
        inputs = outputs
    if min(size) < 1:
        raise ValueError(f"{input_shape[1]}x{input_shape[2]} images are too small")
    layers["flatten"] = nn.Flatten()
    widths = [inputs * size[0] * size[1], *hidden, num_classes]
    for number in range(1, len(widths)):
        layers[f"fc{number}"] = nn.Linear(widths[number - 1], widths[number])
        if number <= len(hidden):
            layers[f"fc{number}_relu"] = nn.ReLU()
    return nn.Sequential(layers)
