from __future__ import annotations

import pytest
import torch

from fpcli.errors import RecipeError
from fpcli.structure.layout import Group, Layout
from fpcli.structure.patterns import (
    count_held,
    count_kept_channels,
    keep_ranked,
    keep_scattered,
    keep_window,
)
from fpcli.structure.support import Support


@pytest.mark.parametrize(
    ("width", "ratio", "block", "kept"),
    [
        (4, 0.5, 1, 2),
        (100, 0.29, 1, 71),
        (4, 0.99, 1, 1),
        (4, 1.0, 1, 1),
        (4, 0.0, 1, 4),
        (1, 0.9, 1, 1),
        (12, 0.5, 3, 6),
        (12, 0.9, 3, 3),
    ],
)
def test_how_many_stay(width, ratio, block, kept):
    assert count_kept_channels(width, ratio, block) == kept


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_a_fraction(ratio):
    with pytest.raises(RecipeError, match="pruning ratio"):
        count_kept_channels(4, ratio)


LAYOUT = Layout(
    {},
    {
        "conv": Group("conv", 4, ()),
        "norm": Group("norm", 6, (), block=2),
        "out": Group("out", 3, (), protected=True),
    },
)
SCORES = {
    "conv": torch.tensor([0.5, 2.0, 1.0, 0.1]),
    "norm": torch.tensor([3.0, 0.0, 1.0, 1.0, 2.0, 2.0]),
}


def test_the_highest_scores_stay_in_their_order():
    keep = keep_ranked(LAYOUT, SCORES, 0.5)
    assert {name: kept.tolist() for name, kept in keep.items()} == {
        "conv": [1, 2],
        "norm": [0, 1, 4, 5],
    }
    Support(keep).check(LAYOUT)


def test_ties_keep_the_lower_index():
    keep = keep_ranked(LAYOUT, {"conv": torch.ones(4), "norm": torch.ones(6)}, 0.5)
    assert keep["conv"].tolist() == [0, 1] and keep["norm"].tolist() == [0, 1, 2, 3]


def test_groups_that_lose_nothing_are_absent():
    assert keep_ranked(LAYOUT, SCORES, 0.0) == {}
    assert list(keep_ranked(LAYOUT, SCORES, 0.3)) == ["conv"]


@pytest.mark.parametrize(
    ("width", "share", "block", "kept"),
    [
        (64, 0.0625, 1, 4),
        (6, 0.25, 1, 2),
        (10, 0.3, 1, 3),
        (100, 0.07, 1, 7),
        (3, 0.0, 1, 1),
        (4, 1.0, 1, 4),
        (12, 0.5, 4, 8),
    ],
)
def test_a_share_is_rounded_up(width, share, block, kept):
    assert count_held(width, share, block) == kept


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_fraction(share):
    with pytest.raises(RecipeError, match="share of channels"):
        count_held(4, share)


def test_a_window_goes_round_and_visits_every_channel_equally_often():
    layout = Layout({}, {"g": Group("g", 5, ())})
    kept = [keep_window(layout, 0.6, start=start)["g"].tolist() for start in range(5)]
    assert kept == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 3, 4], [0, 1, 4]]
    assert keep_window(layout, 0.6, start=7)["g"].tolist() == kept[2]


def test_windows_keep_whole_blocks_and_leave_protected_groups_alone():
    keep = keep_window(LAYOUT, 0.5, start=2)
    assert {name: kept.tolist() for name, kept in keep.items()} == {
        "conv": [2, 3],
        "norm": [0, 1, 4, 5],
    }
    Support(keep).check(LAYOUT)
    assert keep_window(LAYOUT, 1.0) == {}


def test_a_window_within_a_part_stays_there():
    layout = Layout({}, {"g": Group("g", 8, ())})
    kept = [keep_window(layout, 0.5, start=start, within=0.5)["g"].tolist() for start in range(4)]
    assert kept == [[0, 1], [1, 2], [2, 3], [0, 3]]
    assert keep_window(layout, 1.0, within=0.5)["g"].tolist() == [0, 1, 2, 3]


def test_scattered_channels_are_drawn_per_group_and_cover_everything_in_time():
    layout = Layout({}, {name: Group(name, 8, ()) for name in ("a", "b")})
    rng = torch.Generator().manual_seed(0)
    draws = [keep_scattered(layout, 0.5, rng, within=0.75) for _ in range(30)]
    assert any(not torch.equal(draw["a"], draw["b"]) for draw in draws)
    for name in ("a", "b"):
        assert {len(draw[name]) for draw in draws} == {3}
        assert set(torch.cat([draw[name] for draw in draws]).tolist()) == set(range(6))
    for draw in draws:
        Support(draw).check(layout)
