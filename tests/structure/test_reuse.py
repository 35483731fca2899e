"""A cut network that goes on from recorded outputs computes what it would compute anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.structure.layout import Layout
from fpcli.structure.reuse import NOTHING, Resumed, SharedPrefix, drop_prefix, find_prefix, record
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace

pytestmark = pytest.mark.processor


def cut(model: nn.Module, layout: Layout, group: str, keep: Tensor) -> nn.Module:
    values = {name: model.state_dict()[name] for name in layout.tensors}
    return shrink(model, Support({group: keep}).gather(layout, values)).eval()


def half(layout: Layout, group: str) -> Tensor:
    found = layout.groups[group]
    blocks = torch.arange(0, found.width // found.block, 2)
    return (blocks[:, None] * found.block + torch.arange(found.block)).flatten()


def prefix_of(model: nn.Module, layout: Layout, group: str, x: Tensor) -> SharedPrefix:
    keep = half(layout, group)
    small = cut(model, layout, group, keep)
    return find_prefix(model, small, layout, group, layout.groups[group].width, keep, x)


@torch.no_grad()
def resumed(
    model: nn.Module, layout: Layout, group: str, keep: Tensor, prefix: SharedPrefix, x: Tensor
) -> Tensor:
    rest = drop_prefix(model, prefix)
    return Resumed(cut(rest, _left(layout, rest), group, keep), prefix, keep)(
        record(model, prefix.read, x), x
    )


def _left(layout: Layout, model: nn.Module) -> Layout:
    left = model.state_dict().keys()
    return Layout(
        {name: spec for name, spec in layout.tensors.items() if name in left}, layout.groups
    )


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """Compare outputs; kernels that see a recorded input elsewhere in memory sum in another order.

    Ten steps of float32 next to the largest, where a channel left out or taken twice makes tenths.
    """
    torch.testing.assert_close(found, wanted, rtol=0, atol=1.2e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["plain", "norms", "resnet20_padding"])
@torch.no_grad()
def test_going_on_equals_computing_anew(net: Callable, name: str) -> None:
    model, x = net(name, batch=5)
    layout = trace(model, x[:1])
    for group in list(layout.prunable)[::2]:
        prefix = prefix_of(model, layout, group, x[:2])
        assert prefix is not NOTHING, group
        keep = half(layout, group)
        wanted = cut(model, layout, group, keep)(x)
        assert_close(resumed(model, layout, group, keep, prefix, x), wanted)
        everything = torch.arange(layout.groups[group].width)
        assert_close(resumed(model, layout, group, everything, prefix, x), model(x))


def test_what_comes_before_the_reader_is_not_computed(net: Callable) -> None:
    model, x = net("resnet20_padding")
    layout = trace(model, x[:1])
    prefix = prefix_of(model, layout, "blocks.5.conv1", x)
    # The block's input goes to its shortcut, its first convolution is narrowed behind its norm.
    assert prefix.read == {"blocks.4", "blocks.5.bn1"}
    assert (prefix.axes["blocks.4"], prefix.axes["blocks.5.bn1"]) == (None, 1)
    assert not prefix.reads_input
    left = drop_prefix(model, prefix).state_dict()
    assert not any(key.startswith(("conv1", "blocks.0.", "blocks.4.")) for key in left)
    assert "blocks.5.conv2.weight" in left and "blocks.6.conv1.weight" in left


class InPlace(nn.Module):
    """Overwrites outputs of modules, reuses one activation, and reads the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc, self.out = nn.Linear(64, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.act(y)
        z = self.b(y)
        z += y
        return self.out(self.act(self.fc(z.reshape(len(z), -1))))


@torch.no_grad()
def test_recorded_outputs_survive_code_that_overwrites_them() -> None:
    torch.manual_seed(0)
    model, x = InPlace().eval(), torch.randn(5, 1, 4, 4)
    layout = trace(model, x[:1])
    for group in layout.prunable:
        prefix, keep = prefix_of(model, layout, group, x[:2]), half(layout, group)
        recorded = record(model, prefix.read, x)
        before = {name: value.clone() for name, value in recorded.items()}
        rest = drop_prefix(model, prefix)
        goes_on = Resumed(cut(rest, _left(layout, rest), group, keep), prefix, keep)
        wanted = cut(model, layout, group, keep)(x)
        assert torch.allclose(goes_on(recorded, x), wanted, atol=1e-5)
        assert torch.allclose(goes_on(recorded, x), wanted, atol=1e-5)
        assert all(torch.equal(recorded[name], value) for name, value in before.items())


@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d((2, 2), (2, 2)),
        nn.MaxPool2d(2, stride=1), nn.MaxPool2d(3), nn.MaxPool2d(2, padding=1),
    ],
    ids=str,
)  # fmt: skip
def test_faster_pooling_returns_the_same(pool: nn.Module, side: int) -> None:
    x = torch.randn(2, 3, side, side)
    assert torch.equal(drop_prefix(nn.Sequential(pool), NOTHING)(x), pool(x))


class Peeking(nn.Module):
    """Looks into a module that would be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) * self.a.bias.numel() / self.a.bias.numel()


def test_a_network_that_cannot_go_on_is_computed_whole() -> None:
    model, x = Peeking().eval(), torch.randn(3, 4)
    layout = trace(model, x[:1])
    assert prefix_of(model, layout, "a", x) is NOTHING
    keep = half(layout, "a")
    got = resumed(model, layout, "a", keep, NOTHING, x)
    assert torch.equal(got, cut(model, layout, "a", keep)(x))
