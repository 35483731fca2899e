from __future__ import annotations

import pytest
import torch

from fpcli.errors import RecipeError
from fpcli.structure.layout import Group, Layout
from fpcli.structure.patterns import num_kept, ranked
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
    assert num_kept(width, ratio, block) == kept


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_a_fraction(ratio):
    with pytest.raises(RecipeError, match="pruning ratio"):
        num_kept(4, ratio)


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
    keep = ranked(LAYOUT, SCORES, 0.5)
    assert {name: kept.tolist() for name, kept in keep.items()} == {
        "conv": [1, 2],
        "norm": [0, 1, 4, 5],
    }
    Support(keep).check(LAYOUT)


def test_ties_keep_the_lower_index():
    keep = ranked(LAYOUT, {"conv": torch.ones(4), "norm": torch.ones(6)}, 0.5)
    assert keep["conv"].tolist() == [0, 1] and keep["norm"].tolist() == [0, 1, 2, 3]


def test_groups_that_lose_nothing_are_absent():
    assert ranked(LAYOUT, SCORES, 0.0) == {}
    assert list(ranked(LAYOUT, SCORES, 0.3)) == ["conv"]
