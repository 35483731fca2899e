from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fpcli.data import next_item
from fpcli.data.next_item import add_negatives, filter_core, leave_one_out
from fpcli.data.split import Split, make_splits
from fpcli.errors import DataError

USERS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
ITEMS = np.array([3, 1, 4, 1, 5, 2, 6, 5, 6, 6, 2, 3])


def rows(arrays: dict[str, Any], part: str) -> list[tuple[list[int], int, int]]:
    columns = (arrays[f"{part}_{what}"].tolist() for what in ("images", "labels", "owners"))
    return list(zip(*columns, strict=True))


def test_three_users_by_hand() -> None:
    """Their last items are 5, 5 and 3, the last but one 1, 6 and 2. User 1 has one item to train
    on, and no item before it."""
    arrays = leave_one_out("x", USERS, ITEMS, 6, length=3)
    assert (arrays["task"], arrays["num_items"]) == ("rank", 6)
    assert rows(arrays, "train") == [([0, 0, 3], 0, 0), ([0, 3, 1], 3, 0), ([0, 0, 6], 5, 2)]
    assert rows(arrays, "val") == [([3, 1, 4], 0, 0), ([0, 0, 2], 5, 1), ([0, 6, 6], 1, 2)]
    assert rows(arrays, "test") == [([1, 4, 1], 4, 0), ([0, 2, 6], 4, 1), ([6, 6, 2], 2, 2)]


def test_short_users_are_trained_on_only() -> None:
    """User 0 has two items, user 1 one, user 2 four."""
    users, items = np.array([0, 0, 1, 2, 2, 2, 2]), np.array([1, 2, 3, 1, 2, 3, 4])
    arrays = leave_one_out("x", users, items, 4, length=2)
    assert rows(arrays, "train") == [([0, 1], 1, 0), ([0, 1], 1, 2)]
    assert rows(arrays, "test") == [([2, 3], 3, 2)]


def test_ids_are_stored_compactly() -> None:
    for num_items, dtype in ((2**15 - 1, np.int16), (2**15, np.int32)):
        arrays = leave_one_out("x", np.zeros(4, int), np.full(4, num_items), num_items, length=2)
        assert arrays["train_images"].dtype == dtype
        assert int(arrays["test_images"].max()) == num_items


def test_nothing_to_learn_from_and_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="x: no user has the 4 interactions"):
        leave_one_out("x", np.array([0, 0, 0]), np.array([1, 2, 3]), 3)
    monkeypatch.setattr(next_item, "MAX_BYTES", 71)
    with pytest.raises(DataError, match="x: 12 sequences of 3 items need more than") as caught:
        leave_one_out("x", USERS, ITEMS, 6, length=3)
    assert "smaller length" in caught.value.hint


def test_a_core_is_found_again_and_again() -> None:
    """Users and items with one interaction leave: item 3, then user 3, then item 2, then user 2."""
    users = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    items = np.array([0, 1, 0, 1, 1, 2, 2, 3])
    assert filter_core(users, items, 2).tolist() == [0, 1, 2, 3]
    assert filter_core(users, items, 1).tolist() == list(range(8))
    assert filter_core(users, items, 3).tolist() == []


def splits(num_items: int) -> dict[str, Split]:
    return make_splits("x", leave_one_out("x", USERS, ITEMS, num_items, length=2), "rank")


def test_negatives_are_items_that_a_user_never_meets() -> None:
    """User 0 has met 1, 3, 4 and 5, of which sequences of two items show no more than two; of nine
    items this leaves five."""
    drawn = add_negatives("x", splits(9), 9, 4)
    assert drawn["train"].negatives is None
    for part in ("val", "test"):
        found = drawn[part].negatives
        assert found is not None and found.dtype == torch.int64 and found.shape == (3, 4)
        for user, columns in enumerate(found.tolist()):
            assert len({*columns}) == 4
            assert not {column + 1 for column in columns} & {*ITEMS[user == USERS].tolist()}
            assert {*columns} <= {*range(9)}
    assert len(drawn["test"].tensors()) == 4
    taken = drawn["test"].take(torch.tensor([2, 0])).negatives
    assert taken is not None and drawn["test"].negatives is not None
    assert taken.equal(drawn["test"].negatives[[2, 0]])


def test_negatives_are_the_same_every_time_and_differ_between_users() -> None:
    first, again = (add_negatives("x", splits(500), 500, 9)["test"].negatives for _ in range(2))
    assert first is not None and again is not None
    assert first.equal(again)
    assert not first[0].equal(first[1])
    validation = add_negatives("x", splits(500), 500, 9)["val"].negatives
    assert validation is not None and validation.equal(first)


def test_negatives_that_cannot_be_drawn() -> None:
    with pytest.raises(DataError, match="user 0 has met 4 of 6 items, so that 3 others") as caught:
        add_negatives("x", splits(6), 6, 3)
    assert caught.value.hint == "set task.sampled_negatives to 2 or less"
    known = splits(6)
    known["test"] = Split(known["test"].images, known["test"].labels)
    with pytest.raises(DataError, match="x: no array `test_owners`"):
        add_negatives("x", known, 6, 1)
