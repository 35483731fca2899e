from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from datafiles import COUNT, write_cifar100, write_mnist, write_svhn
from torchvision import datasets

from fpcli.data import DATASETS
from fpcli.data.catalogue import CATALOGUE
from fpcli.data.datasets import load_dataset
from fpcli.errors import DataError

MNIST_PARTS = ("train", "t10k")


def test_the_catalogue_has_all_names() -> None:
    assert list(CATALOGUE) == list(DATASETS)
    for entry in CATALOGUE.values():
        is_bundled = not entry.files
        assert hasattr(datasets, entry.reader) or is_bundled or (entry.url and entry.md5)


@pytest.mark.parametrize(
    ("name", "folder", "mean"),
    [("mnist", "MNIST", (0.1307,)), ("fashion-mnist", "FashionMNIST", None)],
)
def test_mnist_and_fashion_mnist(
    tmp_path: Path, name: str, folder: str, mean: tuple[float, ...] | None
) -> None:
    labels = np.arange(COUNT) % 10
    images = write_mnist(tmp_path / folder / "raw", MNIST_PARTS, labels)
    data = load_dataset(name, tmp_path, seed=0)
    assert (data.input_shape, data.num_classes, len(data.test)) == ((1, 28, 28), 10, COUNT)
    assert torch.from_numpy(images[:, None]).equal(data.test.images)
    assert data.mean == (mean or pytest.approx((images.mean() / 255,)))
    first = {"mnist": "0", "fashion-mnist": "T-shirt/top"}
    assert data.class_names[0] == first[name]


@pytest.mark.parametrize(
    ("name", "split", "first_label", "names"),
    [
        ("emnist", "balanced", 0, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        ("emnist-letters", "letters", 1, "abcdefghijklmnopqrstuvwxyz"),
        ("emnist-digits", "digits", 0, "0123456789"),
    ],
)
def test_emnist_stands_upright(
    tmp_path: Path, name: str, split: str, first_label: int, names: str
) -> None:
    labels = np.arange(2 * len(names)) % len(names) + first_label
    prefixes = (f"emnist-{split}-train", f"emnist-{split}-test")
    images = write_mnist(tmp_path / "EMNIST" / "raw", prefixes, labels)
    data = load_dataset(name, tmp_path, seed=0)
    assert "".join(data.class_names) == names
    assert data.test.labels.tolist() == (labels - first_label).tolist()
    assert data.test.images[3, 0, 5, 9] == images[3, 9, 5]


def test_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_cifar100(tmp_path / "cifar-100-python", monkeypatch)
    data = load_dataset("cifar100", tmp_path, seed=0)
    assert data.class_names == ("apple", "bee")
    assert data.test.images.flatten(1).numpy().tolist() == images.tolist()
    with (tmp_path / "cifar-100-python" / "train").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"`cifar100` in .* cannot be read: .*corrupted") as caught:
        load_dataset("cifar100", tmp_path, seed=0)
    assert "fp data fetch cifar100" in caught.value.hint


def test_svhn_calls_ten_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_svhn(tmp_path, monkeypatch)
    data = load_dataset("svhn", tmp_path, seed=0)
    assert (data.input_shape, data.class_names) == ((3, 32, 32), tuple("0123456789"))
    assert data.test.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert data.test.images[7, 2, 4, 1] == images[4, 1, 2, 7]


def test_cifar10_from_npz(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(20) % 10
    np.savez(
        tmp_path / "cifar10.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    data = load_dataset("cifar10", tmp_path, seed=0)
    assert data.input_shape == (3, 32, 32)
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.class_names[6] == "frog"
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="no file cifar-10-batches-py/data_batch_1"):
        load_dataset("cifar10", tmp_path, seed=0)


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.files])
def test_missing_files_name_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none was given") as caught:
        load_dataset(name, None, seed=0)
    assert "FP_DATA_DIR" in caught.value.hint
    with pytest.raises(DataError, match=str(tmp_path)) as caught:
        load_dataset(name, tmp_path, seed=0)
    assert "--data-dir" in caught.value.hint
    assert f"`fp data fetch {name}`" in caught.value.hint


def test_damaged_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in MNIST_PARTS:
        for what in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{what}-ubyte").write_bytes(b"\x00\x00\x08\x03" + b"\x01" * 40)
    with pytest.raises(DataError, match=f"`mnist` in {tmp_path} cannot be read"):
        load_dataset("mnist", tmp_path, seed=0)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("mnist", (1, 28, 28), (54001, 5999, 10000)),
        ("cifar10", (3, 32, 32), (45000, 5000, 10000)),
    ],
)
def test_real_data(name: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    data = load_dataset(name, Path(os.environ["FP_DATA_DIR"]), seed=0)
    assert data.input_shape == shape
    assert tuple(map(len, (data.train, data.validation, data.test))) == sizes
    values = data.normalise(data.train.images[:5000])
    assert values.mean().item() == pytest.approx(0, abs=0.05)
    assert values.std().item() == pytest.approx(1, abs=0.05)
