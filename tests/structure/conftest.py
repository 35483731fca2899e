from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class PlainCNN(nn.Module):
    """Flatten in the middle, PReLU, a transposed convolution and odd widths."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 7, 3, padding=1, bias=False),
            nn.BatchNorm2d(7),
            nn.PReLU(7),
            nn.ConvTranspose2d(7, 5, 2, stride=2),
            nn.LeakyReLU(),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(5 * 16, 11),
            nn.BatchNorm1d(11),
            nn.Dropout(),
            nn.Linear(11, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Block(nn.Module):
    def __init__(self, width_in: int, width: int, padding: bool) -> None:
        super().__init__()
        stride = 1 if width_in == width else 2
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.padding = padding
        self.short: nn.Module = nn.Identity()
        if stride == 2 and not padding:
            project = nn.Conv2d(width_in, width, 1, 2, bias=False)
            self.short = nn.Sequential(project, nn.BatchNorm2d(width))
        self.extra = (width - width_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra and self.padding:
            short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        else:
            short = self.short(x)
        return F.relu(y + short)


class CifarResNet(nn.Module):
    def __init__(self, depth: int, padding: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [w for w in (16, 32, 64) for _ in range((depth - 2) // 6)]
        before = [16, *widths[:-1]]
        self.blocks = nn.Sequential(
            *(Block(a, b, padding) for a, b in zip(before, widths, strict=True))
        )
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Norms(nn.Module):
    """Three normalisations, a depthwise convolution, a gate and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.gn = nn.GroupNorm(4, 12)
        self.b = nn.Conv2d(12, 8, 1)
        self.ln = nn.GroupNorm(1, 8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.inorm = nn.InstanceNorm2d(8, affine=True)
        self.c = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6 + 12, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.gn(self.a(x)))
        b = F.silu(self.inorm(self.depth(self.ln(self.b(a)))))
        c = torch.sigmoid(self.c(b))
        return self.fc(torch.cat([c, a], 1).mean((2, 3)))


def _torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(weights=None, **options)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (LeNet5, (1, 28, 28)),
    "plain": (PlainCNN, (3, 8, 8)),
    "norms": (Norms, (3, 8, 8)),
    "resnet20": (lambda: CifarResNet(20), (3, 16, 16)),
    "resnet20_padding": (lambda: CifarResNet(20, padding=True), (3, 16, 16)),
    "resnet56": (lambda: CifarResNet(56), (3, 32, 32)),
    "vgg16": (lambda: _torchvision("vgg16", num_classes=10), (3, 32, 32)),
    "googlenet": (
        lambda: _torchvision("googlenet", aux_logits=False, init_weights=False),
        (3, 64, 64),
    ),
    "vit_b_16": (lambda: _torchvision("vit_b_16", image_size=64), (3, 64, 64)),
}
for _name in [
    *["resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "squeezenet1_1", "swin_t"],
    *["convnext_tiny", "efficientnet_b0", "mnasnet0_5", "regnet_y_400mf"],
]:
    NETS[_name] = (lambda name=_name: _torchvision(name), (3, 64, 64))


@pytest.fixture
def net() -> Callable[..., tuple[nn.Module, Tensor]]:
    """Build a named network with nothing at its initial 0 or 1, in eval mode, and a batch."""

    def build(name: str, batch: int = 2) -> tuple[nn.Module, Tensor]:
        factory, shape = NETS[name]
        torch.manual_seed(0)
        model = factory().eval()
        with torch.no_grad():
            for x in [*model.parameters(), *model.buffers()]:
                if x.is_floating_point() and x.numel() == max(x.shape, default=1):
                    x.add_(0.1 * torch.rand(x.shape))
        return model, torch.randn(batch, *shape)

    return build
