"""Residual networks for small images, with batch normalisation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fpcli.models.widths import ImageShape, widen


def resnet20(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return the residual network of 20 layers (272,474 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 3, width)


def resnet32(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return the residual network of 32 layers (466,906 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 5, width)


def resnet44(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return the residual network of 44 layers (661,338 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 7, width)


def resnet56(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return the residual network of 56 layers (855,770 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 9, width)


def resnet110(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return the residual network of 110 layers (1,730,714 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 18, width)


def resnet20_pad(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return `resnet20` with padded shortcuts (269,722 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 3, width, is_padded=True)


def resnet32_pad(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return `resnet32` with padded shortcuts (464,154 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 5, width, is_padded=True)


def resnet44_pad(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return `resnet44` with padded shortcuts (658,586 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 7, width, is_padded=True)


def resnet56_pad(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return `resnet56` with padded shortcuts (853,018 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 9, width, is_padded=True)


def resnet110_pad(input_shape: ImageShape, num_classes: int, width: float = 1.0) -> nn.Module:
    """Return `resnet110` with padded shortcuts (1,727,962 parameters on CIFAR-10)."""
    return ResNet(input_shape[0], num_classes, 18, width, is_padded=True)


class Padding(nn.Module):
    """A shortcut without weights: every second pixel, and channels of zeros around the others."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.before, self.behind = extra // 2, extra - extra // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, channels + extra, H / stride, W / stride]``."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.behind))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; where the shape changes, it is padded or projected."""

    def __init__(self, inputs: int, outputs: int, stride: int, is_padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and inputs == outputs:
            return
        if is_padded:
            self.shortcut = Padding(outputs - inputs, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, outputs, H / stride, W / stride]``."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, each but the first at half the resolution.

    Source: He et al., CVPR 2016, section 4.2, whose networks for CIFAR-10 have padded shortcuts
    (option A). Padding ties the channels that flow from block to block to their places, so that
    only those inside of blocks can be pruned; projections (option B) let all of them go.
    """

    def __init__(
        self,
        inputs: int,
        num_classes: int,
        blocks_per_stage: int,
        width: float,
        *,
        is_padded: bool = False,
    ) -> None:
        super().__init__()
        first, second, third = (widen(channels, width) for channels in (16, 32, 64))
        self.conv = nn.Conv2d(inputs, first, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(first)
        self.stage1 = _stage(first, first, 1, blocks_per_stage, is_padded)
        self.stage2 = _stage(first, second, 2, blocks_per_stage, is_padded)
        self.stage3 = _stage(second, third, 2, blocks_per_stage, is_padded)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[n, num_classes]``."""
        x = functional.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(self.pool(x).flatten(1))


def _stage(
    inputs: int, outputs: int, stride: int, num_blocks: int, is_padded: bool
) -> nn.Sequential:
    first = Block(inputs, outputs, stride, is_padded)
    others = (Block(outputs, outputs, 1, is_padded) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *others)
