from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.normalise import read_normalise
from fpcli.errors import DataError


def opened(path: Path, images: np.ndarray, normalise: str) -> Dataset:
    """Return images of two classes as data, the same for training and test."""
    labels = np.arange(len(images)) % 2
    arrays: dict[str, Any] = {f"{part}_images": images for part in ("train", "test")}
    np.savez(path / "x.npz", **arrays, train_labels=labels, test_labels=labels)
    return load_dataset(f"npz:{path / 'x.npz'}", None, normalise=normalise, seed=0)


def first(data: Dataset) -> list[float]:
    """Return what a network gets of the first test sample."""
    return data.normalise(data.test.images[:1]).flatten().tolist()


GREY = np.tile(np.array([0, 51, 102, 255], np.uint8).reshape(1, 2, 2), (8, 1, 1))
GREY[4:] //= 3


@pytest.mark.parametrize(
    ("normalise", "wanted"),
    [
        ("none", [0, 51, 102, 255]),
        ("unit", [0, 0.2, 0.4, 1]),
        ("0.2/0.5", [-0.4, 0, 0.4, 1.6]),
    ],
)
def test_bytes(tmp_path: Path, normalise: str, wanted: list[float]) -> None:
    data = opened(tmp_path, GREY, normalise)
    assert first(data) == pytest.approx(wanted, abs=1e-6)
    assert data.normalised_by == normalise


def test_auto_is_as_before(tmp_path: Path) -> None:
    """Half of the images have a third of the others' values."""
    values = np.array([0, 51, 102, 255, 0, 17, 34, 85]) / 255
    data = opened(tmp_path, GREY, "auto")
    assert data.mean == pytest.approx((68 / 255,))
    assert data.std == pytest.approx((values.std(),))
    plain = load_dataset(data.name, None, seed=0)
    assert (plain.mean, plain.std, plain.scale) == (data.mean, data.std, 1 / 255)


def test_imagenet_is_for_three_channels(tmp_path: Path) -> None:
    """White: (1 - 0.485) / 0.229 and so on."""
    white = np.full((8, 2, 2, 3), 255, np.uint8)
    values = first(opened(tmp_path, white, "imagenet"))
    assert values[::4] == pytest.approx([2.248908, 2.428571, 2.64], abs=1e-6)
    with pytest.raises(DataError, match="`imagenet`, for 3 channels; the data has 1"):
        opened(tmp_path, GREY, "imagenet")


@pytest.mark.parametrize("normalise", ["unit", "imagenet", "0.5,0.5,0.5/1,1,1"])
def test_floats_must_lie_between_0_and_1(tmp_path: Path, normalise: str) -> None:
    images = np.linspace(0, 1, 8 * 12, dtype=np.float32).reshape(8, 2, 2, 3)
    assert opened(tmp_path, images, normalise).scale == 1
    with pytest.raises(DataError, match="from 0 to 1, and these range from 0 to 255") as caught:
        opened(tmp_path, images * 255, normalise)
    assert "--normalise none" in caught.value.hint
    with pytest.raises(DataError, match="these range from -1 to 1"):
        opened(tmp_path, images * 2 - 1, normalise)
    assert first(opened(tmp_path, images * 255, "none"))[-1] == pytest.approx(255 * 11 / 95)


def test_tables_take_numbers_of_their_own(tmp_path: Path) -> None:
    rows = np.tile(np.array([[100.0, 7.0]]), (8, 1))
    assert first(opened(tmp_path, rows, "none")) == [100, 7]
    assert first(opened(tmp_path, rows, "90,5/20,4")) == pytest.approx([0.5, 0.5])
    with pytest.raises(DataError, match="for 1 features; the data has 2"):
        opened(tmp_path, rows, "90/20")
    for normalise in ("unit", "imagenet"):
        with pytest.raises(DataError, match="is for images, and this is a table") as caught:
            opened(tmp_path, rows, normalise)
        assert "auto, none, or a MEAN/STD" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "half", "0.5", "0.5/0", "0.5/-1", "0.5/nan", "inf/1", "1/1/1", "1,2/1", "a/b", "/"]
)
def test_what_means_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is none of auto, none, unit, imagenet"):
        read_normalise(text)
    with pytest.raises(DataError, match="and no MEAN/STD such as"):
        opened(tmp_path, GREY, text)
