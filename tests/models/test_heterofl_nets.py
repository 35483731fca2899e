"""Sizes of HeteroFL's networks at its five levels."""

from __future__ import annotations

import pytest
import torch

from fpcli.models.build import build
from fpcli.models.heterofl_nets import hetero_cnn
from fpcli.structure.layout import Layout
from fpcli.structure.patterns import keep_window
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("hetero-cnn", MNIST, [1556874, 391370, 98922, 25274, 6594]),
        ("preresnet-hfl", CIFAR, [9622090, 2408746, 603802, 151762, 38350]),
        ("preresnet18", CIFAR, [11172170, 2796714, 701018, 176178, 44510]),
    ],
)
def test_level_sizes_are_the_papers_and_levels_are_nested(
    name: str, shape: tuple[int, int, int], sizes: list[int]
) -> None:
    model = build(name, shape, Classify(10), seed=0)
    layout: Layout = trace(model, torch.zeros(1, *shape))
    levels = [Support(keep_window(layout, 0.5**level)) for level in range(5)]
    assert [level.num_alive(layout) for level in levels] == sizes
    for small, large in zip(levels[1:], levels, strict=False):
        assert small.is_within(layout, large)
    state = {name: model.state_dict()[name] for name in layout.tensors}
    smallest = shrink(model, levels[-1].gather(layout, state))
    assert smallest(torch.zeros(2, *shape)).shape == (2, 10)


def test_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="7x8 images are too small"):
        hetero_cnn((1, 7, 8), 10)
