"""The minimum coverage index against counting holders element by element."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.structure import min_coverage as counting
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.min_coverage import count_least_holders, measure_rare_channels
from fpcli.structure.support import Support


def rows(tensor: str, dim: int, first: int, width: int, repeat: int = 1) -> Member:
    index = first + torch.arange(width * repeat).reshape(width, repeat)
    return Member(tensor, dim, index, produces=dim == 0)


def layout_of_everything() -> Layout:
    """A concatenation behind a flatten, a tensor cut on three axes, a buffer, free and protected.

    ``a`` (3 channels, 2 pixels) and ``b`` (2) meet on the second axis of ``join``; ``cube`` has
    ``a``, ``b`` and ``c`` on an axis each; ``out`` is protected; ``free`` is in no group.
    """
    specs = {
        "a.weight": TensorSpec((3, 2), True, 1.0),
        "a.bias": TensorSpec((3,), True),
        "a.mean": TensorSpec((3,), False),
        "b.weight": TensorSpec((2, 3), True, 1.0),
        "join.weight": TensorSpec((4, 9), True, 1.0),
        "cube": TensorSpec((3, 2, 2), True),
        "c.weight": TensorSpec((2, 4), True, 1.0),
        "out.weight": TensorSpec((2, 2), True, 1.0),
        "out.bias": TensorSpec((2,), True),
        "free": TensorSpec((2, 2), True),
        "scale": TensorSpec((), True),
    }
    a = Group(
        "a",
        3,
        (
            rows("a.weight", 0, 0, 3),
            rows("a.bias", 0, 0, 3),
            rows("a.mean", 0, 0, 3),
            rows("b.weight", 1, 0, 3),
            rows("join.weight", 1, 0, 3, repeat=2),
            rows("cube", 0, 0, 3),
        ),
    )
    # Position 8 of the joined axis belongs to no group.
    b = Group(
        "b",
        2,
        (rows("b.weight", 0, 0, 2), rows("join.weight", 1, 6, 2), rows("cube", 1, 0, 2)),
    )
    join = Group("join", 4, (rows("join.weight", 0, 0, 4), rows("c.weight", 1, 0, 4)))
    c = Group(
        "c", 2, (rows("c.weight", 0, 0, 2), rows("cube", 2, 0, 2), rows("out.weight", 1, 0, 2))
    )
    out = Group("out", 2, (rows("out.weight", 0, 0, 2), rows("out.bias", 0, 0, 2)), protected=True)
    return Layout(specs, {group.name: group for group in (a, b, join, c, out)})


LAYOUT = layout_of_everything()
MASKABLE = ("a.weight", "join.weight", "cube", "out.weight", "free", "scale")


OWNERS = [
    (
        member.tensor,
        member.dim,
        group.name,
        {place: channel for channel, row in table for place in row},
    )
    for group in LAYOUT.groups.values()
    for member in group.members
    for table in [list(enumerate(member.index.tolist()))]
]
"""Tensor, axis, group, and which channel owns each position."""


def is_held(support: Support, name: str, place: tuple[int, ...]) -> bool:
    for tensor, dim, group, channel_of in OWNERS:
        is_cut = tensor == name and group in support.keep and place[dim] in channel_of
        if is_cut and channel_of[place[dim]] not in support.keep[group].tolist():
            return False
    return name not in support.mask or bool(support.mask[name][place])


def brute_force(supports: Sequence[Support]) -> int:
    lowest = len(supports)
    masked = {name for support in supports for name in support.mask}
    cut = {m.tensor for g in LAYOUT.groups.values() if not g.protected for m in g.members}
    for name, spec in LAYOUT.tensors.items():
        if spec.is_parameter and name in masked | cut:
            for place in itertools.product(*map(range, spec.shape)):
                lowest = min(lowest, sum(is_held(one, name, place) for one in supports))
    return lowest


@st.composite
def supports(draw: st.DrawFn) -> Support:
    keep = {
        name: torch.tensor(sorted(draw(st.sets(st.integers(0, group.width - 1), min_size=1))))
        for name, group in LAYOUT.prunable.items()
        if draw(st.booleans())
    }
    mask = {}
    for name in draw(st.sets(st.sampled_from(MASKABLE), max_size=2)):
        shape = LAYOUT.tensors[name].shape
        size = torch.Size(shape).numel()
        # Mostly ones, or nearly every example would have an index of 0.
        zeros = draw(st.sets(st.integers(0, size - 1), max_size=2))
        bits = torch.tensor([place not in zeros for place in range(size)])
        mask[name] = bits.reshape(shape)
    return Support(keep, mask)


@settings(deadline=None, max_examples=120)
@given(st.lists(supports(), min_size=1, max_size=5), st.integers(0, 4))
def test_it_is_the_smallest_count_of_holders(some: list[Support], num_full: int) -> None:
    everyone = [*some, *[Support()] * num_full]
    assert count_least_holders(LAYOUT, everyone) == brute_force(everyone)


@settings(deadline=None, max_examples=50)
@given(st.lists(supports(), min_size=1, max_size=4))
def test_order_is_nothing_and_one_more_full_client_adds_one(some: list[Support]) -> None:
    index = count_least_holders(LAYOUT, some)
    assert 0 <= index <= len(some)
    assert count_least_holders(LAYOUT, some[::-1]) == index
    assert count_least_holders(LAYOUT, [*some, Support()]) == index + 1


@settings(deadline=None, max_examples=50)
@given(st.lists(supports(), min_size=1, max_size=4))
def test_counts_of_the_slow_way_agree(some: list[Support]) -> None:
    for name in ("b.weight", "join.weight", "cube"):
        want = torch.zeros(LAYOUT.tensors[name].shape)
        for place in itertools.product(*map(range, want.shape)):
            want[place] = sum(is_held(one, name, place) for one in some)
        assert torch.equal(counting._count(LAYOUT, name, some), want)


@settings(deadline=None, max_examples=50)
@given(st.lists(supports(), max_size=4))
def test_rare_channels_are_those_of_fewer_than_two(some: list[Support]) -> None:
    holders = [
        sum(name not in one.keep or channel in one.keep[name].tolist() for one in some)
        for name, group in LAYOUT.prunable.items()
        for channel in range(group.width)
    ]
    rare = sum(number < 2 for number in holders) / len(holders)
    assert measure_rare_channels(LAYOUT, some) == pytest.approx(rare)
    assert measure_rare_channels(Layout(LAYOUT.tensors, {}), some) == 0.0


def test_full_models_and_nobody() -> None:
    assert count_least_holders(LAYOUT, [Support()] * 3) == 3
    assert count_least_holders(LAYOUT, []) == 0


def test_rows_and_columns_held_by_different_clients_count_for_nobody() -> None:
    """Every channel of a and of b has a holder, but a0 x b1 and a1 x b0 have none."""
    one = Support({"a": torch.tensor([0]), "b": torch.tensor([0])})
    two = Support({"a": torch.tensor([1, 2]), "b": torch.tensor([1])})
    assert count_least_holders(LAYOUT, [one, two]) == 0
    assert count_least_holders(LAYOUT, [one, two, Support()]) == 1


def test_a_mask_under_a_removed_channel_does_not_count() -> None:
    """Client 1 holds only row 0 of a.weight; its mask adds nothing elsewhere."""
    ones = torch.ones(3, 2, dtype=torch.bool)
    masked = Support({"a": torch.tensor([0])}, {"a.weight": ones})
    assert count_least_holders(LAYOUT, [masked, Support()]) == 1
    hole = ones.clone()
    hole[0, 1] = False
    other = Support({"a": torch.tensor([1, 2])}, {})
    assert count_least_holders(LAYOUT, [Support(mask={"a.weight": hole}), Support()]) == 1
    assert count_least_holders(LAYOUT, [Support(mask={"a.weight": hole}), masked, other]) == 1


@pytest.mark.parametrize("name", ["free", "out.weight"])
def test_parameters_that_cannot_be_cut_count_once_they_are_masked(name: str) -> None:
    nothing = torch.zeros(LAYOUT.tensors[name].shape, dtype=torch.bool)
    assert count_least_holders(LAYOUT, [Support(mask={name: nothing}), Support()]) == 1


def test_buffers_and_protected_groups_do_not_count() -> None:
    """Only the running mean of a is masked away; it is no parameter."""
    nothing = torch.zeros(3, dtype=torch.bool)
    assert count_least_holders(LAYOUT, [Support(mask={"a.mean": nothing})]) == 1
