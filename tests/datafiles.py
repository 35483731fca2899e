"""Small stand-ins for the files of torchvision's data sets, which have their real layout."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

COUNT = 60


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """Return bytes in the format of MNIST's files."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, prefixes: tuple[str, str], labels: np.ndarray) -> np.ndarray:
    """Write 28x28 images for training and test, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
    for prefix in prefixes:
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return images


def write_cifar100(folder: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    """Write 32x32 images of two classes, and return them as `[n, 3 * 32 * 32]`."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 3072), dtype=np.uint8)
    batch = {"data": images, "fine_labels": [number % 2 for number in range(COUNT)]}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(batch))
        patch.setattr(datasets.CIFAR100, f"{name}_list", [[name, md5(folder / name)]])
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "bee"]}))
    meta = datasets.CIFAR100.meta | {"md5": md5(folder / "meta")}
    patch.setattr(datasets.CIFAR100, "meta", meta)
    return images


def write_svhn(folder: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    """Write 32x32 images of ten classes, and return them as `[32, 32, 3, n]`."""
    from scipy.io import savemat

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, COUNT), dtype=np.uint8)
    labels = np.arange(COUNT)[:, None] % 10 + 1
    known = dict(datasets.SVHN.split_list)
    for part in ("train", "test"):
        path = folder / f"{part}_32x32.mat"
        savemat(path, {"X": images, "y": labels.astype(np.uint8)})
        known[part] = ["", path.name, md5(path)]
    patch.setattr(datasets.SVHN, "split_list", known)
    return images
