from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.errors import LayoutError
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.support import Support

INDEX = torch.arange(12)


def layout_of_three() -> Layout:
    """conv (4 channels) and side (2) feed a linear layer through a flatten of 2 pixels."""
    conv = Group(
        "conv",
        4,
        (
            Member("conv.weight", 0, INDEX[:4, None], produces=True),
            Member("fc.weight", 1, INDEX[:8].reshape(4, 2)),
        ),
    )
    side = Group(
        "side",
        2,
        (
            Member("side.weight", 0, INDEX[:2, None], produces=True),
            Member("fc.weight", 1, INDEX[8:].reshape(2, 2)),
        ),
    )
    fc = Group("fc", 3, (Member("fc.weight", 0, INDEX[:3, None], produces=True),), protected=True)
    specs = {
        "conv.weight": TensorSpec((4, 1, 2, 2), True, 2.0),
        "side.weight": TensorSpec((2, 1), True, 2.0),
        "fc.weight": TensorSpec((3, 12), True, 1.0),
        "mean": TensorSpec((5,), False),
    }
    return Layout(specs, {"conv": conv, "side": side, "fc": fc})


LAYOUT = layout_of_three()


def ramp() -> dict[str, torch.Tensor]:
    return {
        name: torch.arange(1.0, 1 + torch.Size(spec.shape).numel()).reshape(spec.shape)
        for name, spec in LAYOUT.tensors.items()
    }


def channels(width: int) -> st.SearchStrategy[torch.Tensor | None]:
    some = st.sets(st.integers(0, width - 1), min_size=1).map(lambda s: torch.tensor(sorted(s)))
    return st.none() | some


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[torch.Tensor | None]:
    size = torch.Size(shape).numel()
    bits = st.lists(st.booleans(), min_size=size, max_size=size)
    return st.none() | bits.map(lambda b: torch.tensor(b).reshape(shape))


@st.composite
def supports(draw: st.DrawFn) -> Support:
    keep = {name: draw(channels(LAYOUT.groups[name].width)) for name in ("conv", "side")}
    mask = {name: draw(masks(LAYOUT.tensors[name].shape)) for name in ("side.weight", "fc.weight")}
    return Support(
        {name: value for name, value in keep.items() if value is not None},
        {name: value for name, value in mask.items() if value is not None},
    )


def dense(support: Support) -> dict[str, torch.Tensor]:
    block = {name: torch.ones(shape) for name, shape in support.block_shapes(LAYOUT).items()}
    return {name: x.bool() for name, x in support.scatter(LAYOUT, block)[1].items()}


def test_an_axis_behind_flatten_and_concatenation():
    support = Support({"conv": torch.tensor([0, 3]), "side": torch.tensor([1])})
    support.check(LAYOUT)
    assert support.axes(LAYOUT)["fc.weight"][1].tolist() == [0, 1, 6, 7, 10, 11]
    assert support.axes(LAYOUT)["fc.weight"][0] is None
    assert support.axes(LAYOUT) is support.axes(LAYOUT)
    only = Support({"side": torch.tensor([0])})
    assert only.axes(LAYOUT)["fc.weight"][1].tolist() == list(range(10))
    assert support.block_shapes(LAYOUT) == {
        "conv.weight": (2, 1, 2, 2),
        "side.weight": (1, 1),
        "fc.weight": (3, 6),
        "mean": (5,),
    }


def test_the_empty_support_is_everything():
    values = ramp()
    support = Support()
    block = support.gather(LAYOUT, values)
    assert all(block[name] is values[name] for name in values)
    assert support.num_alive(LAYOUT) == 16 + 2 + 36
    assert support.count(LAYOUT)["mean"] == 5


def test_cut_tensors_own_their_memory():
    values = ramp()
    before = {name: value.clone() for name, value in values.items()}
    block = Support({"conv": torch.tensor([1])}).gather(LAYOUT, values)
    block["conv.weight"].fill_(-1.0)
    assert block["fc.weight"].is_contiguous()
    assert all(torch.equal(values[name], before[name]) for name in values)


@settings(max_examples=60, deadline=None)
@given(supports())
def test_scatter_undoes_gather_where_covered(support):
    support.check(LAYOUT)
    values = ramp()
    block = support.gather(LAYOUT, values)
    back, coverage = support.scatter(LAYOUT, block)
    for name, value in values.items():
        assert torch.equal(back[name], value * coverage[name])
        assert int(coverage[name].sum()) == support.count(LAYOUT)[name]
    assert {n: tuple(x.shape) for n, x in block.items()} == support.block_shapes(LAYOUT)


@settings(max_examples=60, deadline=None)
@given(supports(), supports())
def test_intersection_is_what_both_have(one, two):
    both = one.intersect(two)
    try:
        both.check(LAYOUT)
    except LayoutError as error:
        assert "keeps 0 of" in error.message
        return
    a, b, c = dense(one), dense(two), dense(both)
    assert all(torch.equal(c[name], a[name] & b[name]) for name in c)
    assert both.is_within(LAYOUT, one) and both.is_within(LAYOUT, two)
    if one.is_within(LAYOUT, two):
        assert all(bool((~a[name] | b[name]).all()) for name in a)


def test_is_within_compares_channels_and_masks():
    half = Support({"conv": torch.tensor([0, 1])})
    quarter = Support({"conv": torch.tensor([1])})
    assert quarter.is_within(LAYOUT, half) and not half.is_within(LAYOUT, quarter)
    assert not Support().is_within(LAYOUT, half) and half.is_within(LAYOUT, Support())
    columns = torch.ones(3, 12, dtype=torch.bool)
    columns[:, 4:8] = False
    masked = Support(mask={"fc.weight": columns})
    assert half.is_within(LAYOUT, masked) and not Support().is_within(LAYOUT, masked)


LONG = Layout({}, {"gn": Group("gn", 6, (), block=3)})


@pytest.mark.parametrize(
    ("layout", "support", "message"),
    [
        (LAYOUT, Support({"convv": INDEX[:1]}), "unknown group 'convv'"),
        (LAYOUT, Support(mask={"x": INDEX[:1].bool()}), "unknown tensor 'x'"),
        (LAYOUT, Support({"conv": INDEX[:0]}), "group 'conv' keeps 0 of 4 channels"),
        (LAYOUT, Support({"conv": torch.tensor([0, 4])}), "keeps a channel that it has not"),
        (LAYOUT, Support({"conv": torch.tensor([-1, 2])}), "keeps a channel that it has not"),
        (LAYOUT, Support({"conv": torch.tensor([2, 1])}), "unsorted or repeated"),
        (LAYOUT, Support({"conv": torch.tensor([1, 1])}), "unsorted or repeated"),
        (LAYOUT, Support({"conv": torch.tensor([1.0])}), "has channels torch.float32"),
        (LAYOUT, Support({"fc": INDEX[:2]}), "group 'fc' is protected"),
        (LAYOUT, Support(mask={"mean": torch.ones(5)}), "mask of 'mean' is torch.float32"),
        (LAYOUT, Support(mask={"mean": torch.ones(4).bool()}), r"mask of 'mean' .* \[4\]"),
        (LONG, Support({"gn": torch.tensor([0, 1])}), "parts of a block"),
        (LONG, Support({"gn": torch.tensor([1, 2, 3])}), "parts of a block"),
    ],
)
def test_what_does_not_fit_is_named(layout, support, message):
    with pytest.raises(LayoutError, match=message) as caught:
        support.check(layout)
    assert caught.value.hint


def test_whole_blocks_fit():
    Support({"gn": torch.tensor([3, 4, 5])}).check(LONG)
