"""Silent channels are removed where that changes nothing, and stay at exactly 0 elsewhere."""

from __future__ import annotations

import pytest
import torch
from nets import Tiny
from torch import Tensor, nn

from fpcli.structure.layout import Layout
from fpcli.structure.shrink import shrink
from fpcli.structure.silence import silence_channels, zero_silent
from fpcli.structure.support import Support
from fpcli.structure.trace import trace

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plain(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """Return two convolutions in a row; the statistics of the norms are not those of the start."""
    torch.manual_seed(0)
    norms: list[nn.Module] = [nn.GroupNorm(1, 4), nn.GroupNorm(1, 5)]
    if norm is nn.BatchNorm2d:
        norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(5)]
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), norms[0], nn.ReLU(),
        nn.Conv2d(4, 5, 3), norms[1], nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data += 0.1
    model.train()(X)
    return model.eval()


def built(model: nn.Module) -> tuple[Layout, dict[str, Tensor]]:
    layout = trace(model, X[:1])
    return layout, {name: model.state_dict()[name].clone() for name in layout.tensors}


def output(model: nn.Module, layout: Layout, support: Support, values: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return shrink(model, support.gather(layout, values)).eval()(X)


def test_a_chain_is_cut_and_computes_the_same() -> None:
    model = plain()
    layout, values = built(model)
    support = silence_channels(layout, Support(), {"0": torch.tensor([1, 3])}, {"0": "1"})
    assert {name: kept.tolist() for name, kept in support.keep.items()} == {"0": [0, 2]}
    assert support.mask == {}
    small = output(model, layout, support, values)
    masked = {name: value.clone() for name, value in values.items()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        masked[name][[1, 3]] = 0
    assert torch.allclose(small, output(model, layout, Support(), masked), atol=1e-5)
    assert not torch.allclose(small, output(model, layout, Support(), values), atol=1e-3)


def test_without_its_norm_a_channel_still_speaks() -> None:
    layout, _ = built(plain())
    support = silence_channels(layout, Support(), {"0": torch.tensor([1])}, {})
    assert support.keep == {}
    assert sorted(support.mask) == ["0.bias", "0.weight"]


def test_a_norm_over_several_channels_keeps_them() -> None:
    layout, _ = built(plain(nn.GroupNorm))
    support = silence_channels(layout, Support(), {"0": torch.tensor([1])}, {"0": "1"})
    assert support.keep == {}
    assert sorted(support.mask) == ["0.bias", "0.weight", "1.bias", "1.weight"]


@pytest.mark.parametrize("is_training", [True, False])
def test_a_sum_keeps_a_channel_alive_until_all_its_parts_are_silent(is_training: bool) -> None:
    torch.manual_seed(1)
    model = Tiny(1, 3)
    layout, values = built(model)
    one = silence_channels(layout, Support(), {"stem": torch.tensor([2])}, {"stem": "norm"})
    assert one.keep == {}
    small = shrink(model, one.gather(layout, zero_silent(layout, one, values))).train(is_training)
    out = small.norm(small.stem(X))  # type: ignore[operator]
    assert torch.equal(out[:, 2], torch.zeros_like(out[:, 2]))
    assert bool(out[:, 3].any())
    both = silence_channels(layout, one, {"branch": torch.tensor([2, 5])}, {})
    assert both.keep["stem"].tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert sorted(both.mask) == ["branch.bias", "branch.weight"]
    assert both.mask["branch.bias"].tolist() == [True, True, False, True, True, False, True, True]


def test_nothing_changes_nothing() -> None:
    layout, values = built(plain())
    support = silence_channels(
        layout, Support(), {"0": torch.empty(0, dtype=torch.int64)}, {"0": "1"}
    )
    assert (support.keep, support.mask) == ({}, {})
    after = zero_silent(layout, support, values)
    assert all(torch.equal(after[name], value) for name, value in values.items())
