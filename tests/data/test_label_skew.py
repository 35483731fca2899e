from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.data.label_skew import fill
from fpcli.data.partition import label_table, partition
from fpcli.errors import DataError

LABELS = torch.arange(1000).remainder(10)[torch.randperm(1000, generator=torch.manual_seed(1))]
NO_SQUARES = ~np.eye(3, dtype=bool)


def test_fill_by_hand() -> None:
    """Sums 2 everywhere and an empty diagonal leave ones beside it."""
    twos = np.array([2, 2, 2])
    table = fill(twos, twos, NO_SQUARES)
    assert table is not None
    assert table.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_fill_finds_the_only_table() -> None:
    """Row 0 alone may take column 1, and column 0 must then go to the other rows."""
    table = fill(np.array([3, 2, 1]), np.array([3, 3, 0]), NO_SQUARES)
    assert table is not None
    assert table.tolist() == [[0, 3, 0], [2, 0, 0], [1, 0, 0]]


def test_fill_knows_what_is_impossible() -> None:
    assert fill(np.array([5, 1, 0]), np.array([4, 1, 1]), NO_SQUARES) is None


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_fill_meets_every_sum_that_some_table_has(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    cells = st.lists(st.integers(0, 9), min_size=height * width, max_size=height * width)
    some = np.array(data.draw(cells)).reshape(height, width)
    is_allowed = (some > 0) | (np.array(data.draw(cells)).reshape(height, width) > 4)
    table = fill(some.sum(1), some.sum(0), is_allowed)
    assert table is not None
    assert table.sum(1).tolist() == some.sum(1).tolist()
    assert table.sum(0).tolist() == some.sum(0).tolist()
    assert table.min() >= 0
    assert not table[~is_allowed].any()


def test_a_dominant_label_has_its_share_and_the_others_the_rest() -> None:
    """1,000 samples, 10 clients of 100: 40 of the main label, 60 over nine labels: 6 or 7 each."""
    parts = partition(LABELS, 10, kind="dominant", dominant_share=0.4, seed=0)
    table = label_table(LABELS, parts, 10)
    ordered = table.sort(1).values
    assert table.sum(1).tolist() == [100] * 10
    assert ordered[:, -1].tolist() == [40] * 10
    assert table.argmax(1).sort().values.tolist() == list(range(10))
    assert set(ordered[:, :-1].flatten().tolist()) <= {6, 7}


def test_dominant_share_zero_is_iid_and_one_gives_a_label_each() -> None:
    iid = partition(LABELS, 10, kind="iid", seed=5)
    zero = partition(LABELS, 10, kind="dominant", dominant_share=0.0, seed=5)
    assert all(a.equal(b) for a, b in zip(iid, zero, strict=True))
    whole = partition(LABELS, 20, kind="dominant", dominant_share=1.0, seed=5)
    assert label_table(LABELS, whole, 10).amax(1).tolist() == [50] * 20


def test_a_share_below_the_label_s_own_changes_nothing() -> None:
    parts = partition(LABELS, 10, kind="dominant", dominant_share=0.05, seed=0)
    assert label_table(LABELS, parts, 10).tolist() == [[10] * 10] * 10


def test_large_labels_are_the_main_label_of_more_clients() -> None:
    """Of 400, 200, 200 and 200 samples, five clients of 200: the first serves two."""
    labels = torch.arange(1000).floor_divide(200).sub(1).clamp(min=0)
    parts = partition(labels, 5, kind="dominant", dominant_share=0.9, seed=0)
    table = label_table(labels, parts, 4)
    assert table.sum(1).tolist() == [200] * 5
    assert table.argmax(1).bincount().tolist() == [2, 1, 1, 1]
    assert table.amax(1).tolist() == [180] * 5


def test_an_impossible_dominant_share_names_the_largest_possible() -> None:
    """Four clients of 250 with labels of 100 samples: 100 / 250 = 0.4 is the most."""
    with pytest.raises(DataError, match=r"share of 0\.7 is impossible for 4 clients") as caught:
        partition(LABELS, 4, kind="dominant", dominant_share=0.7, seed=0)
    assert "dominant_share to 0.4," in caught.value.hint
    parts = partition(LABELS, 4, kind="dominant", dominant_share=0.4, seed=0)
    assert label_table(LABELS, parts, 10).amax(1).tolist() == [100] * 4


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_dominant_share_is_a_fraction(share: float) -> None:
    with pytest.raises(DataError, match="must be from 0 to 1"):
        partition(LABELS, 4, kind="dominant", dominant_share=share, seed=0)
