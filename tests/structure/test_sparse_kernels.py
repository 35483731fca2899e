"""Sparse layers against numbers worked out by hand, and against dense ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fpcli.structure.sparse_kernels import (
    Pattern,
    SparseConv2d,
    SparseLinear,
    can_be_sparse,
    make_sparse,
    use_sparse,
)

pytestmark = pytest.mark.processor


def masked(layer: Any, density: float = 0.3) -> tuple[Any, Tensor]:
    """Return a layer with zeros off a random mask, and the mask."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(layer.weight.shape, generator=generator) < density
    with torch.no_grad():
        layer.weight.mul_(mask)
    return layer, mask


def test_a_convolution_by_hand() -> None:
    """x = 1..9; kernel [[1, 0], [0, -2]]; y = x[i, j] - 2 x[i + 1, j + 1] + 0.5; dL/dy = 1.

    dL/dw is dense: sums of the four 2x2 windows' entries, 1+2+4+5 = 12 and so on.
    """
    layer = nn.Conv2d(1, 1, 2)
    mask = torch.tensor([[[[True, False], [False, True]]]])
    layer.weight.data = torch.tensor([[[[1.0, 0.0], [0.0, -2.0]]]])
    layer.bias.data = torch.tensor([0.5])
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3).requires_grad_()
    sparse = make_sparse(layer, mask)
    y = sparse(x)
    assert y.tolist() == [[[[-8.5, -9.5], [-11.5, -12.5]]]]
    y.sum().backward()
    assert layer.weight.grad.tolist() == [[[[12.0, 16.0], [24.0, 28.0]]]]
    assert layer.bias.grad.tolist() == [4.0]
    assert x.grad.tolist() == [[[[1.0, 1.0, 0.0], [1.0, -1.0, -2.0], [0.0, -2.0, -2.0]]]]


def test_a_linear_layer_by_hand() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, -1.0]])
    layer.bias.data = torch.tensor([10.0, 20.0])
    x = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    y = make_sparse(layer, layer.weight != 0)(x)
    assert y.tolist() == [[14.0, 18.0]]
    y.backward(torch.tensor([[1.0, 10.0]]))
    assert x.grad.tolist() == [[10.0, 2.0, -10.0]]
    assert layer.weight.grad.tolist() == [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]


CASES = {
    "linear": (nn.Linear(12, 7), (5, 12)),
    "no bias": (nn.Linear(12, 7, bias=False), (5, 12)),
    "more axes": (nn.Linear(12, 7), (2, 3, 12)),
    "conv": (nn.Conv2d(3, 5, 3, padding=1), (4, 3, 8, 6)),
    "stride": (nn.Conv2d(3, 5, 3, stride=2, padding=1), (4, 3, 9, 8)),
    "dilation": (nn.Conv2d(3, 5, 3, padding=2, dilation=2), (4, 3, 8, 8)),
    "both": (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)), (2, 3, 9, 7)),
    "1x1": (nn.Conv2d(3, 5, 1, bias=False), (4, 3, 4, 4)),
    "one image": (nn.Conv2d(3, 5, 3), (1, 3, 3, 3)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_sparse_is_dense(name: str, channels_last: bool) -> None:
    """Outputs and all gradients, in training and in evaluation mode."""
    layer, shape = copy.deepcopy(CASES[name][0]), CASES[name][1]
    layer, mask = masked(layer)
    order = torch.channels_last if channels_last and len(shape) == 4 else torch.contiguous_format
    x = torch.randn(shape).contiguous(memory_format=order)
    dense = copy.deepcopy(layer)
    sparse = make_sparse(layer, mask)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, want = sparse(ours), dense(theirs)
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-6)
    gradient = torch.randn_like(want)
    y.backward(gradient)
    want.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    for name, value in dense.named_parameters():
        torch.testing.assert_close(
            dict(sparse.named_parameters())[name].grad, value.grad, rtol=1e-5, atol=1e-5
        )
    sparse.eval()
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), dense(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alive", [0, 1])
def test_empty_and_nearly_empty_layers(alive: int) -> None:
    layer = nn.Linear(4, 3)
    layer.weight.data.zero_()
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[2, 1] = bool(alive)
    layer.weight.data[mask] = 2.0
    out = make_sparse(layer, mask).eval()(torch.ones(1, 4))
    want = layer.bias + torch.tensor([0.0, 0.0, 2.0 * alive])
    torch.testing.assert_close(out, want[None])


def test_evaluation_sees_new_weights_after_training() -> None:
    layer, mask = masked(nn.Linear(6, 4))
    sparse, x = make_sparse(layer, mask).eval(), torch.randn(2, 6)
    with torch.no_grad():
        before = sparse(x)
        sparse.train()
        sparse.weight.mul_(2.0)
        sparse.bias.mul_(2.0)
        torch.testing.assert_close(sparse.eval()(x), 2 * before)


def test_the_pattern_and_its_transpose() -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])
    own, turned = Pattern.of(mask), Pattern.of(mask, is_transposed=True)
    assert (own.starts.tolist(), own.columns.tolist()) == ([0, 2, 3], [0, 2, 1])
    assert (turned.starts.tolist(), turned.columns.tolist()) == ([0, 1, 2, 3], [0, 1, 0])
    assert turned.places.tolist() == [0, 4, 2]
    weight = torch.arange(6.0).view(2, 3) * mask
    assert torch.equal(own.matrix(weight).to_dense(), weight)
    assert torch.equal(turned.matrix(weight).to_dense(), weight.t())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv1d(4, 4, 3),
        nn.Linear(4, 4).double(),
    ],
)
def test_what_stays_dense(layer: Any) -> None:
    assert not can_be_sparse(layer)
    model = nn.Sequential(layer)
    masks = {"0.weight": torch.zeros_like(layer.weight, dtype=torch.bool)}
    assert use_sparse(model, masks, {"0.weight"})[0] is layer


def test_layers_are_exchanged_in_place_and_tensors_keep_their_names() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Sequential(nn.Linear(12, 4)))
    masks = {}
    for name in ("0", "2.0"):
        _, masks[f"{name}.weight"] = masked(model.get_submodule(name))
    x, state = torch.randn(2, 2, 4, 4), dict(model.state_dict())
    want = model(x)
    assert use_sparse(model, masks, {"2.0.weight"}) is model
    assert type(model[0]) is nn.Conv2d
    assert type(model[2][0]) is SparseLinear
    assert type(use_sparse(model, masks, masks)[0]) is SparseConv2d
    assert {n: v.data_ptr() for n, v in model.state_dict().items()} == {
        n: v.data_ptr() for n, v in state.items()
    }
    torch.testing.assert_close(model(x), want, rtol=1e-5, atol=1e-6)


def test_a_model_that_is_one_layer() -> None:
    layer, mask = masked(nn.Linear(3, 5))
    assert isinstance(use_sparse(layer, {"weight": mask}, {"weight"}), SparseLinear)
