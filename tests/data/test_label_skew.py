from __future__ import annotations

import pytest
import torch

from fpcli.data.partition import count_labels, partition
from fpcli.errors import DataError
from fpcli.settings.tasks import Partition

LABELS = torch.arange(1000).remainder(10)[torch.randperm(1000, generator=torch.manual_seed(1))]


def test_a_dominant_label_has_its_share_and_the_others_the_rest() -> None:
    """1,000 samples, 10 clients of 100: 40 of the main label, 60 over nine labels: 6 or 7 each."""
    parts = partition(LABELS, 10, Partition("dominant", dominant_share=0.4), seed=0)
    table = count_labels(LABELS, parts, 10)
    ordered = table.sort(1).values
    assert table.sum(1).tolist() == [100] * 10
    assert ordered[:, -1].tolist() == [40] * 10
    assert table.argmax(1).sort().values.tolist() == list(range(10))
    assert set(ordered[:, :-1].flatten().tolist()) <= {6, 7}


def test_dominant_share_zero_is_iid_and_one_gives_a_label_each() -> None:
    iid = partition(LABELS, 10, Partition("iid"), seed=5)
    zero = partition(LABELS, 10, Partition("dominant", dominant_share=0.0), seed=5)
    assert all(a.equal(b) for a, b in zip(iid, zero, strict=True))
    whole = partition(LABELS, 20, Partition("dominant", dominant_share=1.0), seed=5)
    assert count_labels(LABELS, whole, 10).amax(1).tolist() == [50] * 20


def test_a_share_below_the_label_s_own_changes_nothing() -> None:
    parts = partition(LABELS, 10, Partition("dominant", dominant_share=0.05), seed=0)
    assert count_labels(LABELS, parts, 10).tolist() == [[10] * 10] * 10


def test_large_labels_are_the_main_label_of_more_clients() -> None:
    """Of 400, 200, 200 and 200 samples, five clients of 200: the first serves two."""
    labels = torch.arange(1000).floor_divide(200).sub(1).clamp(min=0)
    parts = partition(labels, 5, Partition("dominant", dominant_share=0.9), seed=0)
    table = count_labels(labels, parts, 4)
    assert table.sum(1).tolist() == [200] * 5
    assert table.argmax(1).bincount().tolist() == [2, 1, 1, 1]
    assert table.amax(1).tolist() == [180] * 5


def test_an_impossible_dominant_share_names_the_largest_possible() -> None:
    """Four clients of 250 with labels of 100 samples: 100 / 250 = 0.4 is the most."""
    with pytest.raises(DataError, match=r"share of 0\.7 is impossible for 4 clients") as caught:
        partition(LABELS, 4, Partition("dominant", dominant_share=0.7), seed=0)
    assert "dominant_share to 0.4," in caught.value.hint
    parts = partition(LABELS, 4, Partition("dominant", dominant_share=0.4), seed=0)
    assert count_labels(LABELS, parts, 10).amax(1).tolist() == [100] * 4


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_dominant_share_is_a_fraction(share: float) -> None:
    with pytest.raises(DataError, match="must be from 0 to 1"):
        partition(LABELS, 4, Partition("dominant", dominant_share=share), seed=0)


def held(table: torch.Tensor) -> torch.Tensor:
    """Return how many classes each client has."""
    return (table > 0).sum(1)


def test_every_client_holds_its_number_of_classes() -> None:
    """20 clients with 3 of 10 classes: every class has 6 holders, and they 16 or 17 of its 100."""
    parts = partition(LABELS, 20, Partition("classes", classes_per_client=3), seed=0)
    table = count_labels(LABELS, parts, 10)
    assert held(table).tolist() == [3] * 20
    assert (table > 0).sum(0).tolist() == [6] * 10
    assert table.sum(0).tolist() == [100] * 10
    assert set(table[table > 0].tolist()) == {16, 17}
    assert len({tuple(row.tolist()) for row in table > 0}) > 10  # drawn, not in fixed groups


def test_every_client_lacks_its_number_of_classes() -> None:
    parts = partition(LABELS, 10, Partition("missing", missing_classes=3), seed=0)
    table = count_labels(LABELS, parts, 10)
    assert held(table).tolist() == [7] * 10
    assert (table > 0).sum(0).tolist() == [7] * 10
    assert set(table[table > 0].tolist()) == {14, 15}
    nothing = partition(LABELS, 10, Partition("missing", missing_classes=0), seed=0)
    assert count_labels(LABELS, nothing, 10).tolist() == [[10] * 10] * 10


def test_holders_differ_by_one_at_most_where_they_must() -> None:
    """7 clients with 4 of 10 classes: 28 = 8 * 3 + 2 * 2."""
    parts = partition(LABELS, 7, Partition("classes", classes_per_client=4), seed=1)
    holders = (count_labels(LABELS, parts, 10) > 0).sum(0)
    assert sorted(holders.tolist()) == [2, 2] + [3] * 8


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Partition("classes", classes_per_client=1), "3 clients cannot share 10 classes with 1"),
        (Partition("classes", classes_per_client=11), "with 11 classes each"),
        (Partition("missing", missing_classes=10), "with 0 classes each"),
        (Partition("missing", missing_classes=7), None),
    ],
)
def test_classes_must_suffice(how: Partition, message: str | None) -> None:
    if message is None:
        with pytest.raises(DataError, match="cannot share") as caught:
            partition(LABELS, 3, how, seed=0)
        assert "from 4 to 10 classes" in caught.value.hint
        return
    with pytest.raises(DataError, match=message):
        partition(LABELS, 3, how, seed=0)


def test_a_rare_class_cannot_be_held_by_many() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3)
    with pytest.raises(DataError, match="label 1 has 3 samples for 5 clients"):
        partition(labels, 5, Partition("classes"), seed=0)
