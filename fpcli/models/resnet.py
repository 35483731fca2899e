"""Residual networks for small images, with batch normalisation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]


def resnet20(input_shape: Shape, num_classes: int) -> nn.Module:
    """Return the residual network of 20 layers (272,474 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, blocks_per_stage=3)


def resnet56(input_shape: Shape, num_classes: int) -> nn.Module:
    """Return the residual network of 56 layers (855,770 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, blocks_per_stage=9)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, outputs, H / stride, W / stride]``."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, each but the first at half the resolution.

    Source: He et al., CVPR 2016, section 4.2; differs: projection shortcuts (their option B).
    """

    def __init__(self, inputs: int, num_classes: int, blocks_per_stage: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = _stage(16, 16, 1, blocks_per_stage)
        self.stage2 = _stage(16, 32, 2, blocks_per_stage)
        self.stage3 = _stage(32, 64, 2, blocks_per_stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, num_classes]``."""
        x = functional.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(self.pool(x).flatten(1))


def _stage(inputs: int, outputs: int, stride: int, num_blocks: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(num_blocks - 1)))
