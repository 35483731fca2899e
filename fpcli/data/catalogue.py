"""What is known of the named data sets before one of them is read; loading this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fpcli.errors import DataError


@dataclass(frozen=True)
class Entry:
    """One named data set.

    Attributes:
        about: what it holds, in a few words.
        num_samples: all training and test samples.
        num_outputs: of a network for it: labels are 0..num_outputs-1; 1 for a number.
        input_shape: of one sample.
        reader: torchvision's class that reads it; empty for others.
        parts: arguments of that class for training and for test data.
        files: what it needs, below the data folder; torchvision's own places. Without files it
            comes with scikit-learn, or is synthetic.
        packed: one file that may stand in for all of them.
        extras: files that it has besides, and can do without.
        kind: what is learned, of ``tasks.TASKS``.
        url: where an archive with these files is, if torchvision's class does not know.
        md5: of that archive, as its publisher says.
        is_synthetic: it is made from a seed.
    """

    about: str
    num_samples: int
    num_outputs: int
    input_shape: tuple[int, ...]
    reader: str = ""
    parts: tuple[Mapping[str, Any], Mapping[str, Any]] = (
        MappingProxyType({"train": True}),
        MappingProxyType({"train": False}),
    )
    files: tuple[str, ...] = ()
    packed: str = ""
    extras: tuple[str, ...] = ()
    kind: str = "classify"
    url: str = ""
    md5: str = ""
    is_synthetic: bool = False

    def missing(self, data_dir: Path) -> list[str]:
        """Return the files that a data folder lacks."""
        return [file for file in self.files if not (data_dir / file).is_file()]

    def held(self, data_dir: Path) -> tuple[str, ...]:
        """Return the files below a data folder that the data is read from; empty if it lacks some.

        The packed file counts where torchvision's folder is not even begun.
        """
        is_begun = any((data_dir / file).parent.is_dir() for file in self.files)
        if self.packed and not is_begun and (data_dir / self.packed).is_file():
            return (self.packed,)
        if self.missing(data_dir):
            return ()
        return self.files + tuple(file for file in self.extras if (data_dir / file).is_file())


def require_folder(name: str, data_dir: Path | None) -> Path:
    """Return the data folder.

    Raises:
        DataError: none was given.
    """
    if data_dir is None:
        raise DataError(
            f"data `{name}` needs a folder, none was given",
            hint="give --data-dir FOLDER or set FP_DATA_DIR",
            where=name,
        )
    return data_dir


def require_files(name: str, data_dir: Path | None) -> tuple[Path, tuple[str, ...]]:
    """Return the data folder, and the files below it that a named data set is read from.

    Raises:
        DataError: no folder was given, or a file is missing.
    """
    entry, folder = CATALOGUE[name], require_folder(name, data_dir)
    held = entry.held(folder)
    if not held:
        raise DataError(
            f"data `{name}` is not in {folder}: no file {entry.missing(folder)[0]}",
            hint=f"`fp data fetch {name}` downloads it; or name the folder that holds it with "
            "--data-dir or FP_DATA_DIR",
            where=str(folder),
        )
    return folder, held


def _mnist(reader: str, about: str) -> Entry:
    files = [
        f"{reader}/raw/{part}-{what}-ubyte"
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    ]
    return Entry(about, 70_000, 10, (1, 28, 28), reader, files=tuple(files))


def _emnist(split: str, about: str, num_samples: int, num_outputs: int) -> Entry:
    files = [
        f"EMNIST/raw/emnist-{split}-{part}-{what}-ubyte"
        for part in ("train", "test")
        for what in ("images-idx3", "labels-idx1")
    ]
    return Entry(
        about,
        num_samples,
        num_outputs,
        (1, 28, 28),
        "EMNIST",
        ({"split": split, "train": True}, {"split": split, "train": False}),
        tuple(files),
    )


CATALOGUE: Mapping[str, Entry] = {
    "digits": Entry("handwritten digits", 1_797, 10, (1, 8, 8)),
    "breast-cancer": Entry("measurements of tumours", 569, 2, (30,)),
    "diabetes": Entry("a disease's progress in a year", 442, 1, (10,), kind="regress"),
    "mnist": _mnist("MNIST", "handwritten digits"),
    "fashion-mnist": _mnist("FashionMNIST", "clothes"),
    "emnist": _emnist("balanced", "digits and letters, alike ones merged", 131_600, 47),
    "emnist-letters": _emnist("letters", "letters of either case", 145_600, 26),
    "emnist-digits": _emnist("digits", "handwritten digits", 280_000, 10),
    "emnist-byclass": _emnist("byclass", "digits and letters, as often as written", 814_255, 62),
    "emnist-bymerge": _emnist("bymerge", "the same, alike ones merged", 814_255, 47),
    "cifar10": Entry(
        "animals and vehicles",
        60_000,
        10,
        (3, 32, 32),
        "CIFAR10",
        files=(
            *(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
            "cifar-10-batches-py/test_batch",
            "cifar-10-batches-py/batches.meta",
        ),
        packed="cifar10.npz",
    ),
    "cifar100": Entry(
        "a hundred kinds of things",
        60_000,
        100,
        (3, 32, 32),
        "CIFAR100",
        files=tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
    ),
    "svhn": Entry(
        "house numbers",
        99_289,
        10,
        (3, 32, 32),
        "SVHN",
        ({"split": "train"}, {"split": "test"}),
        ("train_32x32.mat", "test_32x32.mat"),
    ),
    "ml-100k": Entry(
        "films as users of MovieLens rated them",
        98_344,
        1_349,
        (50,),
        files=("ml-100k/u.data",),
        packed="ml-100k.zip",
        extras=("ml-100k/u.item",),
        kind="rank",
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        md5="0e33842e24a9c977be4e0107933c0723",
    ),
    "markov": Entry(
        "synthetic: a Markov chain of items",
        8_655,
        100,
        (50,),
        kind="rank",
        is_synthetic=True,
    ),
    "rec-synth": Entry(
        "synthetic: topics, habits and noise",
        67_780,
        500,
        (50,),
        kind="rank",
        is_synthetic=True,
    ),
}
"""Name -> what is known; every name of ours in ``data.DATASETS`` is here."""
