"""Layers of a dense product per band: what they compute, and for which masks they are there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fpcli.structure.mask_units import number_units
from fpcli.structure.packed_kernel import PackedLinear, find_bands, multiply_bands
from fpcli.structure.sparse_kernels import SparseLinear, make_sparse

W = torch.tensor(
    [
        [0.9, -0.1, 0.4, 0.2],
        [-0.3, 0.8, -0.05, 0.6],
        [0.1, -0.2, 0.7, -0.9],
        [0.05, 0.3, -0.6, 0.15],
    ]
)


def draw_kept(pattern: str, shape: tuple[int, int]) -> Tensor:
    """Return a mask of half of the units of a pattern, drawn from a fixed seed."""
    units = number_units(shape, pattern)
    num = int(units.max()) + 1
    kept = torch.randperm(num, generator=torch.Generator().manual_seed(1)) < num // 2
    return kept[units]


def test_two_dense_products_by_hand() -> None:
    """The upper outputs read inputs 0 and 1, the lower ones 2 and 3; x = (1, 2, -1, 0.5)."""
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    bands = find_bands(mask)
    cuts = [band.cut(W) for band in bands]
    assert [cut.tolist() for cut in cuts] == [W[:2, :2].tolist(), W[2:, 2:].tolist()]
    out = multiply_bands(torch.tensor([[1.0, 2.0, -1.0, 0.5]]), cuts, bands)
    torch.testing.assert_close(out, torch.tensor([[0.7, 1.3, -1.15, 0.675]]))


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("column", PackedLinear), ("half-column", PackedLinear), ("row", SparseLinear),
        ("half-row", SparseLinear), ("block:3x2", SparseLinear), ("element", SparseLinear),
    ],
)  # fmt: skip
def test_what_stays_computes_what_the_masked_layer_does(pattern: str, kind: type) -> None:
    """In evaluation and in training, gradients included, that of the weight dense."""
    torch.manual_seed(0)
    layer, mask = nn.Linear(14, 11), draw_kept(pattern, (11, 14))
    layer.weight = nn.Parameter(torch.where(mask, layer.weight.detach(), 0.0))
    packed = make_sparse(copy.deepcopy(layer), mask)
    assert isinstance(packed, kind)
    x = torch.randn(2, 3, 14)
    with torch.no_grad():
        for mode in (True, False):
            got = packed.train(mode)(x)
            torch.testing.assert_close(got, layer(x), rtol=0, atol=1e-6)
    grads = []
    for one in (layer, packed.train()):
        inputs = x.clone().requires_grad_()
        one(inputs).square().sum().backward()
        grads.append([inputs.grad, one.weight.grad, one.bias.grad])
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_evaluation_reads_the_weight_anew_after_training() -> None:
    layer, mask = nn.Linear(4, 4, bias=False), draw_kept("column", (4, 4))
    layer.weight = nn.Parameter(mask.float())
    packed, x = make_sparse(layer, mask).eval(), torch.ones(1, 4)
    with torch.no_grad():
        assert packed(x).tolist() == [[2.0] * 4]
        packed.train()
        packed.weight.mul_(3.0)
        assert packed.eval()(x).tolist() == [[6.0] * 4]


def test_a_mask_of_many_bands_has_none() -> None:
    assert find_bands(torch.eye(3).bool()) == []
    (whole,) = find_bands(torch.ones(3, 2, dtype=torch.bool))
    assert (whole.rows, whole.columns.tolist()) == (slice(0, 3), [0, 1])
