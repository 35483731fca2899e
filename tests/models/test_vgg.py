"""VGG networks: the counts that papers print."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fpcli.models.build import build, find_factory
from fpcli.structure.cost import count_cost
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors
from fpcli.tasks.classify import Classify

CIFAR = (3, 32, 32)


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return find_factory(name)(CIFAR, 10)


def weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)


def channels(model: nn.Module) -> int:
    return sum(part.out_channels for part in model.modules() if isinstance(part, nn.Conv2d))


def test_vgg16_is_the_network_of_pruning_filters() -> None:
    model = on_meta("vgg16")
    assert (weights(model), channels(model)) == (14_977_728, 4_224)
    layout = list_tensors(build("vgg16", CIFAR, Classify(10), seed=0), torch.zeros(1, *CIFAR))
    assert count_cost(layout, Support()).macs == 313_463_808


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vgg19", 20_035_018), ("vgg19@0.5", 5_013_226), ("vgg19@0.25", 1_255_546)],
)
def test_vgg19_is_the_network_of_slimming_in_any_width(name: str, parameters: int) -> None:
    """Sum of 9 a b + 2 b over the convolutions from a to b channels, + 10 c + 10 at the end."""
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert [n for n, part in model.named_modules() if isinstance(part, nn.Linear)] == ["fc"]


@pytest.mark.parametrize(("name", "width"), [("vgg11", 2752), ("vgg13", 2944), ("vgg19", 5504)])
def test_channels(name: str, width: int) -> None:
    assert channels(on_meta(name)) == width
