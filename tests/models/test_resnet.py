"""Residual networks: the counts of the two kinds of shortcuts."""

from __future__ import annotations

import pytest
import torch

from fpcli.models.build import build
from fpcli.models.resnet import Padding
from fpcli.structure.cost import count_cost
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors
from fpcli.tasks.classify import Classify

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "macs", "weights"),
    [
        ("resnet56-pad", 125_485_696, 848_944),
        ("resnet110-pad", 252_887_680, 1_719_856),
        ("resnet56", 125_747_840, 851_504),
    ],
)
def test_published_counts_are_those_of_padded_shortcuts(name: str, macs: int, weights: int) -> None:
    """Projections add 16 * 32 + 32 * 64 = 2,560 weights, each used at 256 or 64 positions."""
    model = build(name, CIFAR, Classify(10), seed=0)
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == weights
    assert count_cost(list_tensors(model, torch.zeros(1, *CIFAR)), Support()).macs == macs


def test_padding_by_hand() -> None:
    x = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    assert Padding(3, 2)(x).flatten().tolist() == [0.0, 1.0, 5.0, 0.0, 0.0]


def test_any_width_fits_together() -> None:
    for name in ("resnet20@0.3", "resnet20-pad@0.3"):
        model = build(name, CIFAR, Classify(10), seed=0)
        assert [model.stage1[0].conv1.out_channels, model.fc.in_features] == [5, 19]
