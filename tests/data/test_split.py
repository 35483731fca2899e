from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fpcli.data.split import Split, cut_test, draw_fraction, find_num_items, make_splits
from fpcli.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    good: dict[str, Any] = {
        "train_images": rng.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def test_channels_last_becomes_channels_first() -> None:
    given = arrays()
    train = make_splits("x", given)["train"]
    assert train.images.shape == (12, 3, 5, 4)
    assert train.images.dtype == torch.uint8
    assert train.images.is_contiguous()
    assert train.images[7, 2, 4, 1].item() == given["train_images"][7, 4, 1, 2]
    assert train.labels.dtype == torch.int64
    assert len(train) == 12


def test_grey_images_get_one_channel_and_column_labels_are_flattened() -> None:
    given = arrays(
        train_images=np.zeros((12, 5, 4), np.float64),
        test_images=np.ones((6, 5, 4), np.float32)[..., None],
        train_labels=(np.arange(12) % 3).astype(np.uint8)[:, None],
    )
    splits = make_splits("x", given)
    assert splits["train"].images.shape == (12, 1, 5, 4)
    assert splits["test"].images.dtype == splits["train"].images.dtype == torch.float32
    assert splits["train"].labels.tolist() == [0, 1, 2] * 4


def test_tensors_are_accepted_and_copied() -> None:
    images = torch.zeros(12, 5, 4, 3, dtype=torch.uint8)
    splits = make_splits("x", arrays(train_images=images))
    images += 1
    assert int(splits["train"].images.sum()) == 0


def test_validation_pair_makes_a_third_split() -> None:
    given = arrays()
    given |= {"val_images": given["test_images"], "val_labels": given["test_labels"]}
    assert list(make_splits("x", given)) == ["train", "val", "test"]


def test_take_copies_the_chosen_samples() -> None:
    split = Split(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), torch.arange(4))
    taken = split.take(torch.tensor([3, 1]))
    assert taken.images.flatten().tolist() == taken.labels.tolist() == [3, 1]


def test_a_table_stays_as_it_is() -> None:
    rows = np.arange(60.0).reshape(12, 5)
    splits = make_splits("x", arrays(train_images=rows, test_images=rows[:6]))
    assert splits["train"].images.dtype == torch.float32
    assert splits["train"].images.tolist() == rows.tolist()


def test_whole_numbers_may_be_stored_as_floats() -> None:
    labels = (np.arange(12) % 3).astype(np.float16)
    assert make_splits("x", arrays(train_labels=labels))["train"].labels.tolist() == [0, 1, 2] * 4


def test_owners_stay_with_their_training_samples() -> None:
    splits = make_splits("x", arrays(train_owners=np.arange(12)[:, None] % 4))
    taken = splits["train"].take(torch.tensor([7, 4]))
    assert taken.owners is not None
    assert taken.owners.tolist() == [3, 0]
    assert splits["test"].owners is None
    assert len(splits["train"].tensors()) == len(splits["test"].tensors()) + 1 == 3


nan = np.zeros((12, 5, 4, 3), np.float32)
nan[9, 0, 0, 0] = np.nan

BAD = {
    "flat floats": (arrays(train_images=np.zeros((12, 60))), r"test_images has type torch.uint8"),
    "half a table": (
        arrays(train_images=np.zeros((12, 60)), test_images=np.zeros((6, 59))),
        r"test_images has sample shape \[59\], train_images \[60\]",
    ),
    "no features": (arrays(train_images=np.zeros((12, 0))), "empty"),
    "owner count": (arrays(train_owners=np.zeros(11, int)), "11 owners for 12 samples"),
    "owner names": (arrays(train_owners=["a"] * 12), "train_owners has type <U1"),
    "missing key": (arrays(test_labels=None), "test_labels"),
    "half a validation pair": (arrays(val_labels=np.zeros(2, int)), "val_images"),
    "objects": (arrays(train_images=np.array([object()] * 12)), "train_images has type object"),
    "whole numbers": (arrays(train_images=np.zeros((12, 5, 4, 3), int)), "type int64"),
    "flat images": (arrays(train_images=np.zeros((12, 60), np.uint8)), r"shape \[12, 60\]"),
    "no images": (arrays(test_images=np.zeros((0, 5, 4, 3), np.uint8)), "test_images is empty"),
    "no pixels": (arrays(train_images=np.zeros((12, 0, 4, 3), np.uint8)), "empty"),
    "nan": (arrays(train_images=nan), "non-finite value in sample 9"),
    "overflow": (arrays(train_images=np.full((12, 5, 4, 3), 1e300)), "non-finite"),
    "types differ": (arrays(test_images=np.zeros((6, 5, 4, 3), np.float32)), "train_images torch"),
    "shapes differ": (arrays(test_images=np.zeros((6, 4, 4, 3), np.uint8)), r"\[3, 4, 4\]"),
    "ragged": (arrays(train_images=[[1], [1, 2]]), "train_images is no array"),
    "bfloat16": (arrays(train_images=torch.zeros(12, 5, 4, dtype=torch.bfloat16)), "no array"),
    "count": (arrays(train_labels=np.arange(11) % 3), "11 labels for 12 samples"),
    "fractions": (arrays(train_labels=np.arange(12) / 2), r"0.5 in sample 1, no class"),
    "no label": (arrays(train_labels=[0.0] * 11 + [np.nan]), "nan in sample 11, no label"),
    "no number": (arrays(train_labels=[0.0] * 11 + [-np.inf]), "-inf in sample 11, no label"),
    "huge float": (arrays(train_labels=[0.0] * 11 + [1e300]), r"1e\+300 in sample 11, no class"),
    "complex": (arrays(train_labels=np.zeros(12, complex)), "type complex128"),
    "truth values": (arrays(train_labels=np.arange(12) % 2 == 0), "type bool"),
    "one hot": (arrays(train_labels=np.eye(12, dtype=int)), r"shape \[12, 12\]"),
    "negative": (arrays(train_labels=np.arange(12) % 3 - 1), "from -1 to 1"),
    "huge": (arrays(train_labels=np.full(12, 2**63, np.uint64)), "9223372036854775808"),
    "from one": (arrays(train_labels=np.arange(12) % 3 + 1), "3 classes from 1 to 3"),
    "large gap": (arrays(train_labels=np.arange(12) % 2 * (2**31 - 1)), "2 classes from 0"),
    "one class": (arrays(train_labels=np.zeros(12, int)), "one class only, `0`"),
    "unknown in test": (arrays(test_labels=np.arange(6) % 4), "test_labels has label 3"),
}


ROWS = np.arange(24.0).reshape(12, 2)
SEQUENCES = np.array([[0, 0, 1], [0, 1, 2], [3, 3, 4]], dtype=np.int16)


def numbers(**changes: Any) -> dict[str, Any]:
    good = {"train_images": ROWS, "test_images": ROWS, "test_labels": np.arange(12)}
    return good | {"train_labels": np.arange(12) / 2} | changes


def sequences(**changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {"train_owners": [0, 0, 1], "num_items": 5}
    for part in ("train", "val", "test"):
        good |= {f"{part}_images": SEQUENCES, f"{part}_labels": np.array([1, 0, 4])}
    return {key: value for key, value in (good | changes).items() if value is not None}


def test_numbers_to_be_predicted_are_floats_of_32_bits() -> None:
    splits = make_splits("x", numbers(train_labels=(np.arange(12) / 2)[:, None]), "regress")
    assert splits["train"].labels.tolist() == [number / 2 for number in range(12)]
    assert splits["train"].labels.dtype == splits["test"].labels.dtype == torch.float32


def test_sequences_stay_whole_numbers() -> None:
    given = sequences(
        test_owners=[1, 0, 1], test_negatives=[[0, 2], [3, 4], [1, 1]],
        **{f"{part}_images": SEQUENCES.astype(np.uint64) for part in ("train", "val", "test")},
    )  # fmt: skip
    splits = make_splits("x", given, "rank")
    assert splits["train"].images.dtype == torch.int32
    assert splits["train"].images.tolist() == SEQUENCES.tolist()
    assert splits["train"].labels.tolist() == [1, 0, 4]
    test = splits["test"]
    assert test.owners is not None and test.owners.tolist() == [1, 0, 1]
    assert test.negatives is not None and test.negatives.tolist() == [[0, 2], [3, 4], [1, 1]]
    assert splits["val"].owners is splits["val"].negatives is None
    assert make_splits("x", sequences(), "rank")["val"].images.dtype == torch.int16
    assert find_num_items("x", given, splits) == 5
    assert find_num_items("x", {}, splits) == 5


def test_a_fraction_without_classes_is_of_all() -> None:
    """A fifth of 25 is 5; of each of 25 different labels none could be drawn."""
    labels = torch.arange(25) / 3
    kept, drawn = draw_fraction(labels, 0.2, 0, "validation", "regress")
    assert (len(kept), len(drawn)) == (20, 5)
    assert torch.cat([kept, drawn]).sort().values.equal(torch.arange(25))
    assert drawn.equal(draw_fraction(labels, 0.2, 0, "validation", "rank")[1])
    assert len(draw_fraction(labels[:1], 0.2, 0, "validation", "regress")[1]) == 0


def test_a_fixed_fifth_is_for_testing() -> None:
    given = {"train_images": torch.arange(10.0)[:, None], "train_labels": torch.arange(10.0)}
    made = cut_test(given, "csv", "x", "regress")
    assert len(made["test_labels"]) == 2
    assert made["test_labels"].equal(made["test_images"][:, 0])
    assert {*made["test_labels"].tolist(), *made["train_labels"].tolist()} == {*range(10)}


BAD_NUMBERS = {
    "no number": (numbers(train_labels=[*range(11), np.nan]), "nan in sample 11, no finite"),
    "infinite": (numbers(test_labels=[-np.inf, *range(11)]), "test_labels holds -inf in sample 0"),
    "huge": (
        numbers(train_labels=[1e39, *range(11)]),
        r"1e\+39 in sample 0, no finite number of 32",
    ),
    "words": (numbers(train_labels=["a"] * 12), "type <U1"),
    "truth values": (numbers(train_labels=ROWS[:, 0] > 3), "type bool"),
    "two each": (numbers(train_labels=ROWS), r"shape \[12, 2\]"),
    "constant": (numbers(train_labels=[7] * 12), "train_labels holds one number only, 7"),
    "count": (numbers(train_labels=range(11)), "11 labels for 12 samples"),
}
BAD_SEQUENCES = {
    "floats": (sequences(train_images=SEQUENCES / 1.0), r"shape \[3, 3\] and type float64"),
    "flat": (sequences(val_images=SEQUENCES[0]), r"val_images has shape \[3\]"),
    "empty": (sequences(train_images=SEQUENCES[:0]), "train_images is empty"),
    "negative": (sequences(train_images=-SEQUENCES), "ids from -4 to 0"),
    "huge": (sequences(train_images=SEQUENCES.astype(np.int64) * 10**8), "ids from 0 to 400000000"),
    "zeros behind": (sequences(test_images=SEQUENCES[:, ::-1]), "a 0 behind .* sequence 0"),
    "a hole": (sequences(test_images=[[1, 1, 1], [0, 1, 1], [1, 0, 1]]), "in sequence 2"),
    "nothing": (sequences(test_images=SEQUENCES * [[1], [0], [1]]), "in sequence 1"),
    "lengths": (sequences(test_images=SEQUENCES[:, 1:]), r"sample shape \[2\], train_images \[3\]"),
    "count": (sequences(test_labels=[1, 2]), "2 labels for 3 samples"),
    "owners": (sequences(test_owners=[1, 2]), "test_owners has 2 owners for 3 samples"),
    "label": (sequences(test_labels=[0, 1, 5]), "num_items is 5, and the data holds item 6"),
    "item": (sequences(num_items=3), "num_items is 3, and the data holds item 5"),
    "number": (sequences(num_items=4.5), "num_items is 4.5"),
    "numbers": (sequences(num_items=[5, 5]), r"num_items is \[5, 5\]"),
    "one item": (sequences(num_items=1), "num_items is 1"),
    "fractions": (sequences(train_labels=[0.5, 1, 1]), "0.5 in sample 0"),
    "negatives": (sequences(test_negatives=[[5]] * 3), "num_items is 5, and the data holds item 6"),
    "few negatives": (sequences(test_negatives=[[1]]), "test_negatives has 1 negatives for 3"),
    "below": (sequences(test_negatives=[[-1]] * 3), "test_negatives ranges from -1 to -1"),
    "flat negatives": (sequences(test_negatives=[1, 2, 3]), r"test_negatives has shape \[3\]"),
}


@pytest.mark.parametrize("case", [*BAD_NUMBERS, *BAD_SEQUENCES])
def test_unsuitable_targets_and_sequences_are_refused(case: str) -> None:
    for cases, kind in ((BAD_NUMBERS, "regress"), (BAD_SEQUENCES, "rank")):
        if case in cases:
            given, message = cases[case]
            with pytest.raises(DataError, match=message) as caught:
                make_splits("some.npz", given, kind)
            assert caught.value.message.startswith("some.npz: ")
            assert caught.value.hint


@pytest.mark.parametrize("case", BAD)
def test_unsuitable_data_is_refused(case: str) -> None:
    given, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        make_splits("some.npz", given)
    assert caught.value.message.startswith("some.npz: ")
    assert caught.value.hint
    assert "\n" not in caught.value.message
