from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.data.arrays import apportion, fill_table, group_by_label

NO_SQUARES = ~np.eye(3, dtype=bool)


def test_groups_are_by_ascending_label() -> None:
    groups = group_by_label(np.array([7, 0, 7, 3, 0]))
    assert [group.tolist() for group in groups] == [[1, 4], [3], [0, 2]]
    assert group_by_label(np.zeros(0, np.int64)) == []


def test_apportion_by_hand() -> None:
    """7 in proportion 1 : 1 : 2 is 1.75, 1.75 and 3.5: the remainders .75 are rounded up."""
    rng = np.random.default_rng(0)
    assert apportion(np.array([1.0, 1.0, 2.0]), 7, rng).tolist() == [2, 2, 3]
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert apportion(np.array([0.29, 0.71]), 100, rng).tolist() == [29, 71]


def test_apportion_draws_between_equal_remainders() -> None:
    ones = np.ones(4)
    found = {tuple(apportion(ones, 5, np.random.default_rng(seed)).tolist()) for seed in range(40)}
    assert found == {(2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)}


def test_fill_by_hand() -> None:
    """Sums 2 everywhere and an empty diagonal leave ones beside it."""
    twos = np.array([2, 2, 2])
    table = fill_table(twos, twos, NO_SQUARES)
    assert table is not None
    assert table.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_fill_finds_the_only_table() -> None:
    """Row 0 alone may take column 1, and column 0 must then go to the other rows."""
    table = fill_table(np.array([3, 2, 1]), np.array([3, 3, 0]), NO_SQUARES)
    assert table is not None
    assert table.tolist() == [[0, 3, 0], [2, 0, 0], [1, 0, 0]]


def test_fill_knows_what_is_impossible() -> None:
    assert fill_table(np.array([5, 1, 0]), np.array([4, 1, 1]), NO_SQUARES) is None


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_fill_meets_every_sum_that_some_table_has(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    cells = st.lists(st.integers(0, 9), min_size=height * width, max_size=height * width)
    some = np.array(data.draw(cells)).reshape(height, width)
    is_allowed = (some > 0) | (np.array(data.draw(cells)).reshape(height, width) > 4)
    table = fill_table(some.sum(1), some.sum(0), is_allowed)
    assert table is not None
    assert table.sum(1).tolist() == some.sum(1).tolist()
    assert table.sum(0).tolist() == some.sum(0).tolist()
    assert table.min() >= 0
    assert not table[~is_allowed].any()
