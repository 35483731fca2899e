"""The networks of the HeteroFL paper at full width (level a); narrower ones are cut from these."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from fpcli.models.widths import ImageShape

WIDTHS = (64, 128, 256, 512)


def hetero_cnn(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return four convolutions with batch norm (1,556,874 parameters on MNIST).

    Source: HeteroFL, ICLR 2021, its network for MNIST.

    Raises:
        ValueError: the image is smaller than 8x8.
    """
    inputs, height, width = input_shape
    if min(height, width) < 8:
        raise ValueError(f"{height}x{width} images are too small")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, outputs in enumerate(WIDTHS, start=1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{number}"] = nn.ReLU()
        last = number == len(WIDTHS)
        layers[f"pool{number}"] = nn.AdaptiveAvgPool2d(1) if last else nn.MaxPool2d(2)
        inputs = outputs
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(inputs, num_classes)
    nn.init.zeros_(layers["fc"].bias)  # type: ignore[arg-type]
    return nn.Sequential(layers)


def preresnet_hfl(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return the residual network of the paper's CIFAR-10 table (9,622,090 parameters there).

    Source: HeteroFL, ICLR 2021. The table's sizes are those of 1, 1, 1 and 2 blocks per stage; the
    official repository changed to 2, 2, 2 and 2 after the paper was accepted.
    """
    return PreResNet(input_shape[0], num_classes, num_blocks=(1, 1, 1, 2))


def preresnet18(input_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return the residual network of the official repository today (11,172,170 parameters).

    Source: HeteroFL's repository after the paper was accepted: 2, 2, 2 and 2 blocks per stage.
    """
    return PreResNet(input_shape[0], num_classes, num_blocks=(2, 2, 2, 2))


class PreBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; nothing behind the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, outputs, H / stride, W / stride]``."""
        y = functional.relu(self.norm1(x))
        short = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(functional.relu(self.norm2(self.conv1(y)))) + short


class PreResNet(nn.Module):
    """Four stages of 64 to 512 channels, each but the first at half the resolution.

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, figure 4e.
    """

    def __init__(self, inputs: int, num_classes: int, num_blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, WIDTHS[0], 3, padding=1, bias=False)
        blocks, before = [], WIDTHS[0]
        for stage, (outputs, number) in enumerate(zip(WIDTHS, num_blocks, strict=True)):
            for block in range(number):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(PreBlock(before, outputs, stride))
                before = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, num_classes)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, num_classes]``."""
        x = functional.relu(self.norm(self.blocks(self.conv(x))))
        return self.fc(self.pool(x).flatten(1))
