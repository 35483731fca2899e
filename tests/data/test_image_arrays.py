from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.image_arrays import read_images, usual_scale
from fpcli.errors import DataError


def opened(path: Path, images: np.ndarray, option: str = "") -> Dataset:
    """Return images of two classes as data, the same for training and test."""
    arrays = {}
    for part in ("train", "test"):
        arrays |= {f"{part}_images": images, f"{part}_labels": np.arange(len(images)) % 2}
    np.savez(path / "x.npz", **arrays)
    return load_dataset(f"npz:{path / 'x.npz'}{option}", None, seed=0)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (4, 4, 3), (48, 64, 3), (32, 32, 10)])
def test_clear_shapes_are_read_either_way(shape: tuple[int, ...]) -> None:
    last = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    wanted = torch.from_numpy(last).permute(0, 3, 1, 2)
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    for array in (last, first):
        images = read_images("x", "train_images", array)
        assert images.is_contiguous() and torch.equal(images, wanted)


@pytest.mark.parametrize(
    "shape", [(3, 3, 3), (3, 32, 3), (1, 28, 1), (4, 4, 16), (30, 20, 10), (28, 1, 1), (8, 8, 8)]
)
def test_unclear_shapes_are_refused_until_somebody_says_it(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    images = np.arange(8 * np.prod(shape)).reshape(8, *shape).astype(np.float32)
    with pytest.raises(DataError, match="does not tell whether channels come first") as caught:
        opened(tmp_path, images)
    assert "`npz:PATH,layout=NHWC`" in caught.value.hint
    first = opened(tmp_path, images, ",layout=NCHW").test.images
    assert torch.equal(first, torch.from_numpy(images))
    last = opened(tmp_path, images, ",layout=NHWC").test.images
    assert torch.equal(last, torch.from_numpy(images).permute(0, 3, 1, 2))


def test_what_is_said_is_checked(tmp_path: Path) -> None:
    images = np.zeros((8, 6, 6, 3), np.uint8)
    with pytest.raises(DataError, match="`layout` is `nchw`") as caught:
        opened(tmp_path, images, ",layout=nchw")
    assert "`layout=NHWC` or `layout=NCHW`" in caught.value.hint
    with pytest.raises(DataError, match="layout is `CHW`"):
        read_images("x", "train_images", images, "CHW")


def test_a_function_says_it_by_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {}
    for part in ("train", "test"):
        arrays |= {f"{part}_images": np.zeros((8, 3, 5, 3)), f"{part}_labels": np.arange(8) % 2}
    given = arrays | {"layout": "NCHW"}
    monkeypatch.setattr("fpcli.plugins.lookup", lambda kind, name: lambda data_dir: given)
    assert load_dataset("theirs", None, seed=0).input_shape == (3, 5, 3)


def test_16_bits_count_as_0_to_1(tmp_path: Path) -> None:
    images = np.full((8, 2, 2), 13107, np.uint16)
    images[4:] = 65535
    data = opened(tmp_path, images)
    assert data.train.images.dtype == torch.float32
    assert (data.scale, data.mean) == (1 / 65535, (pytest.approx(0.6),))
    assert data.notes == ("images of 16 bits: 0 to 65535 counts as 0 to 1",)
    assert opened(tmp_path, images.astype(np.uint8)).notes == ()
    unit = load_dataset(data.name, None, normalise="unit", seed=0)
    assert unit.normalise(unit.test.images[:1]).flatten().tolist() == pytest.approx([0.2] * 4)
    with pytest.raises(DataError, match=r"shape \[8, 4\] and type uint16"):
        opened(tmp_path, images.reshape(8, 4))


def test_scales() -> None:
    scales = [usual_scale(np.dtype(word)) for word in ("u1", "<u2", ">u2", "f4")]
    assert scales == [1 / 255, 1 / 65535, 1 / 65535, 1]
