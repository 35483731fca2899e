"""The image data sets that torchvision reads, from files that are already there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpcli.data.catalogue import CATALOGUE, require_files
from fpcli.data.npz import read_npz
from fpcli.errors import DataError

_CONSTANTS: Mapping[str, dict[str, Any]] = {
    "mnist": {"mean": (0.1307,), "std": (0.3081,)},
    "cifar10": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)},
}
"""What is customary for a data set; those of others are computed from their training images."""

_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def read_vision(name: str, data_dir: Path | None) -> dict[str, Any]:
    """Return the arrays of a data set of the catalogue that torchvision reads.

    Args:
        name: in the catalogue.
        data_dir: the folder that holds its files in torchvision's own layout.

    Raises:
        DataError: no folder was given, or files are missing or damaged.
    """
    entry = CATALOGUE[name]
    folder, held = require_files(name, data_dir)
    if held == (entry.packed,):
        arrays: dict[str, Any] = dict(read_npz(folder / entry.packed))
        return arrays | _CONSTANTS[name] | {"class_names": _CIFAR10}
    from torchvision import datasets

    try:
        train, test = (
            getattr(datasets, entry.reader)(folder, download=False, **part) for part in entry.parts
        )
        arrays = {}
        for part, data in (("train", train), ("test", test)):
            arrays[f"{part}_images"], arrays[f"{part}_labels"] = _arrays(name, data)
    except Exception as error:  # a damaged file makes the parsers raise almost anything
        raise DataError(
            f"data `{name}` in {folder} cannot be read: {error}".splitlines()[0],
            hint=f"files are damaged: delete {', '.join(held)}, then `fp data fetch {name}`",
            where=str(folder),
        ) from error
    return arrays | _CONSTANTS.get(name, {}) | _names(name, train)


def _arrays(name: str, data: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the images, ``[n, H, W]`` or ``[n, H, W, C]``, and labels of a torchvision object."""
    images = np.asarray(data.data)
    if name == "svhn":
        return images.transpose(0, 2, 3, 1), data.labels
    labels = np.asarray(data.targets)
    if name.startswith("emnist"):
        images = images.transpose(0, 2, 1)  # the files hold them lying on their side
    return images, labels - 1 if name == "emnist-letters" else labels


def _names(name: str, data: Any) -> dict[str, Any]:
    if name == "svhn":
        return {}
    # MNIST's are like "0 - zero"; those of the letters begin with a class that does not exist.
    names = [text.partition(" - ")[0] for text in data.classes if text != "N/A"]
    return {"class_names": names}


mnist = partial(read_vision, "mnist")
fashion_mnist = partial(read_vision, "fashion-mnist")
emnist = partial(read_vision, "emnist")
emnist_letters = partial(read_vision, "emnist-letters")
emnist_digits = partial(read_vision, "emnist-digits")
emnist_byclass = partial(read_vision, "emnist-byclass")
emnist_bymerge = partial(read_vision, "emnist-bymerge")
cifar10 = partial(read_vision, "cifar10")
cifar100 = partial(read_vision, "cifar100")
svhn = partial(read_vision, "svhn")
