"""Small networks for tests, importable in worker processes as ``nets:NAME``."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from fpcli.models.group_norm import replace_batch_norm


class Tiny(nn.Module):
    """A residual sum, batch norm, dropout and a flatten in as few parameters as possible."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(32, 12)
        self.out = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + torch.relu(self.branch(x))
        x = self.drop(torch.flatten(self.pool(x), 1))
        return self.out(torch.relu(self.hidden(x)))


def levels(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a network that tells three levels of grey, of 0 to 1, by the bounds 0.35 and 0.65."""
    net = nn.Sequential(
        OrderedDict(
            spread=nn.Conv2d(input_shape[0], 3, 1),
            relu=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            out=nn.Linear(3, num_classes),
        )
    )
    with torch.no_grad():
        net.spread.weight.fill_(1.0)
        net.spread.bias.copy_(torch.tensor([0.0, -0.35, -0.65]))
        net.out.weight.copy_(torch.tensor([[0.0, 0, 0], [0, 10, 0], [0, 0, 40]]))
        net.out.bias.copy_(torch.tensor([0.0, -0.01, -0.02]))
    return net


def tiny(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the toy network."""
    return Tiny(input_shape[0], num_classes)


def pocket(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a network of 181 parameters for digits, small enough for all its eigenvalues."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(input_shape[0], 3, 4, stride=4),
            tanh=nn.Tanh(),
            flat=nn.Flatten(),
            out=nn.Linear(12, num_classes),
        )
    )


def averaging(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the toy network, whose batch norm weights all batches alike and so counts them."""
    model = Tiny(input_shape[0], num_classes)
    model.norm.momentum = None
    return model


def normed(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return a network for tables with batch norm, which sees one value per channel and sample."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden=nn.Linear(math.prod(input_shape), 8),
            norm=nn.BatchNorm1d(8),
            relu=nn.ReLU(),
            out=nn.Linear(8, num_classes),
        )
    )


def grouped(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the same with group norm."""
    model = normed(input_shape, num_classes)
    replace_batch_norm(model)
    return model


def narrow(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a network whose output width is not the number of classes."""
    return Tiny(input_shape[0], num_classes - 1)


class Reshaped(nn.Module):
    """A network whose forward pass hard-codes a width, so that it cannot be cut."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.out = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.stem(x).reshape(len(x), 8, 16).reshape(-1, 128))


def reshaped(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a network that cannot be traced for pruning."""
    return Reshaped(num_classes)


class Shuffled(nn.Module):
    """A network that shuffles its channels three times, where the tracer gives up."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.mix = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.out = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for mix in self.mix:
            left, right = x.chunk(2, 1)
            x = torch.cat([left, mix(right)], 1)
            x = x.view(len(x), 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return self.out(x.mean((2, 3)))


def shuffled(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a network that cannot be traced at all."""
    return Shuffled(input_shape[0], num_classes)


def cifar_resnet18(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return ResNet-18 with the stem that 32x32 images are given: 3x3, stride 1, no pooling."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


class Smooth(Tiny):
    """The toy network with a derivative that never jumps, as that of a ReLU does at 0.

    What a last digit changes in its inputs or weights then stays of the size of a last digit.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.stem(x)))
        x = x + torch.tanh(self.branch(x))
        x = self.drop(torch.flatten(self.pool(x), 1))
        return self.out(torch.tanh(self.hidden(x)))


def smooth(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the toy network without kinks."""
    return Smooth(input_shape[0], num_classes)


def nudged(input_shape: tuple[int, int, int], num_classes: int, size: float = 1e-5) -> nn.Module:
    """Return the toy network without kinks, every weight a little off."""
    model = smooth(input_shape, num_classes)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1 + size * torch.empty_like(weight).uniform_(-1, 1)
    return model
