"""Data sets by name, file or function: training, validation and test samples in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fpcli import plugins
from fpcli.data.folder import read_folder
from fpcli.data.image_arrays import LAYOUTS, usual_scale
from fpcli.data.kinds import choose_kind
from fpcli.data.next_item import add_negatives
from fpcli.data.normalise import Constants, choose_constants
from fpcli.data.npz import read_npz
from fpcli.data.place import split_place
from fpcli.data.ratings import read_ratings
from fpcli.data.split import (
    Split,
    array_of,
    describe_shortage,
    draw_fraction,
    find_num_items,
    make_splits,
)
from fpcli.data.table import read_table
from fpcli.errors import DataError, FpError, NeedError, RecipeError
from fpcli.tasks.classify import Classify
from fpcli.tasks.learning_task import LearningTask
from fpcli.tasks.rank import Rank
from fpcli.tasks.regress import Regress
from fpcli.user_code import describe_failure, is_wrong_call

__all__ = ["Dataset", "Split", "load_dataset"]


def _read_arrays(place: str) -> dict[str, Any]:
    path, options = split_place(place, {"layout": LAYOUTS})
    return {**read_npz(path), **options}


_READERS: Mapping[str, Callable[[str], Mapping[str, Any]]] = {
    "npz": _read_arrays,
    "folder": read_folder,
    "csv": read_table,
    "ratings": read_ratings,
}
"""Word before the colon -> what reads the rest; the words are those of
``plugins.PATH_PREFIXES``."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything a task needs to know about its data.

    Attributes:
        name: as given to :func:`load_dataset`.
        train: what clients learn from.
        validation: drawn from the training data; may decide things.
        test: reported on, never decides anything.
        task: what is learned.
        scale: stored values times this are in the unit of ``mean`` and ``std``.
        mean: per channel of an image or feature of a table.
        std: likewise, above 0.
        class_names: one per class, where classes are learned.
        owner_names: one per natural client, where ``train.owners`` names them.
        item_names: one per item, where the next one is to be found.
        normalised_by: the value of ``task.normalise`` that scale, mean and std are from.
        notes: what was done to samples, and to weights for them, when they were read, a sentence
            each.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    task: LearningTask
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    owner_names: tuple[str, ...] = ()
    item_names: tuple[str, ...] = ()
    normalised_by: str = "auto"
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) of an image, (features,) of a row."""
        return tuple(self.train.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """Labels are 0..num_classes-1; without classes all samples are of one and the same."""
        return self.task.num_outputs if self.task.kind == "classify" else 1

    def classes_of(self, part: Tensor) -> Tensor:
        """Return which classes some training samples have, bool ``[classes]``.

        Args:
            part: their indices.
        """
        labels = self.train.labels[part]
        if self.task.kind != "classify":
            labels = torch.zeros_like(labels, dtype=torch.int64)
        return torch.bincount(labels, minlength=self.num_classes) > 0

    def normalise(self, images: Tensor) -> Tensor:
        """Return ``(images * scale - mean) / std``: float32, of the same shape, never a view; of
        sequences of items these themselves, as int64."""
        if self.task.kind == "rank":
            return images.long()
        mean = _along_channels(torch.tensor(self.mean, device=images.device), images)
        std = _along_channels(torch.tensor(self.std, device=images.device), images)
        return (images * (self.scale / std)).sub_(mean / std)

    def share(self) -> None:
        """Move all tensors to shared memory, so that worker processes need no copy.

        Raises:
            NeedError: the shared memory of this machine is too small.
        """
        try:
            for split in (self.train, self.validation, self.test):
                for tensor in split.tensors():
                    tensor.share_memory_()
        except RuntimeError as error:
            raise NeedError(
                f"data `{self.name}` does not fit in shared memory: {error}",
                hint="enlarge /dev/shm (docker run --shm-size 2g) or use the inline executor",
            ) from error


def load_dataset(
    name: str,
    data_dir: Path | None,
    *,
    kind: str = "auto",
    sampled_negatives: int = 0,
    validation_fraction: float = 0.1,
    normalise: str = "auto",
    seed: int,
    allow_code: bool = False,
) -> Dataset:
    """Load a data set and cut a validation split from its training data.

    Args:
        name: a registered name; ``npz:PATH``, ``folder:PATH``, ``csv:PATH`` or ``ratings:PATH``;
            or ``pkg.mod:function``, a function without arguments that returns arrays under the keys
            of an npz file.
        data_dir: the folder in which registered data sets find their files.
        kind: what is learned, as ``task.kind`` of recipes.
        sampled_negatives: items that every validation and test sample brings besides the right one,
            where the next item is to be found; 0 means those of the data, if there are any.
        validation_fraction: of every class's training samples (without classes, of all), in (0, 1),
            at least one of them; unused where the data brings a validation split.
        normalise: see ``task.normalise`` of recipes.
        seed: of the validation draw.
        allow_code: True lets ``pkg.mod:function`` run.

    Raises:
        UsageError: no data set has that name, or the function cannot be imported.
        RecipeError: ``name`` is a function and ``allow_code`` is False.
        DataError: the data is missing, corrupt or unsuitable, also for ``normalise`` or ``kind``.
    """
    arrays = _arrays(name, data_dir, allow_code, kind)
    learned = choose_kind(name, arrays, kind)
    splits = make_splits(name, arrays, learned)
    whole = splits["train"]
    if "val" not in splits:
        splits |= _cut_validation(name, whole, validation_fraction, seed, learned)
    task, splits = _make_task(name, arrays, learned, whole, splits, sampled_negatives)
    scale, mean, std = _constants(name, arrays, whole.images, normalise, learned)
    num_owners = 0 if whole.owners is None else int(whole.owners.max()) + 1
    num_items = task.num_outputs if learned == "rank" else 0
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits["val"],
        test=splits["test"],
        task=task,
        scale=scale,
        mean=mean,
        std=std,
        class_names=_names(
            name, arrays, "class_names", task.num_outputs if learned == "classify" else 0
        ),
        owner_names=_names(name, arrays, "owner_names", num_owners),
        item_names=_names(name, arrays, "item_names", num_items),
        normalised_by=normalise,
        notes=(*arrays.get("notes", ()), *_depth_notes(name, arrays, learned)),
    )


def _cut_validation(
    name: str, whole: Split, fraction: float, seed: int, kind: str
) -> dict[str, Split]:
    """Return training and validation samples, drawn from the training samples."""
    kept, drawn = draw_fraction(whole.labels, fraction, seed, "validation", kind)
    if not len(drawn):
        raise DataError(
            f"{name}: {describe_shortage(kind)} that a validation split needs",
            hint="add training samples, or samples for validation",
            where=name,
        )
    return {"train": whole.take(kept), "val": whole.take(drawn)}


def _make_task(
    name: str,
    arrays: Mapping[str, Any],
    kind: str,
    whole: Split,
    splits: dict[str, Split],
    sampled_negatives: int,
) -> tuple[LearningTask, dict[str, Split]]:
    """Return what is learned, and the splits with what it is judged by.

    Args:
        whole: all training samples, validation included (see `_constants`).
    """
    if sampled_negatives and kind != "rank":
        raise RecipeError(
            f"task.sampled_negatives is {sampled_negatives}, and the data's task is `{kind}`",
            hint="leave it out: it is for data whose task is `rank`",
            where="task.sampled_negatives",
        )
    if kind == "classify":
        return Classify(int(whole.labels.max()) + 1), splits
    if kind == "regress":
        std, mean = torch.std_mean(whole.labels.double(), correction=0)
        return Regress(mean=float(mean), std=float(std)), splits
    num_items = find_num_items(name, arrays, splits)
    brought = [splits[part].negatives for part in ("val", "test")]
    if sampled_negatives and brought == [None, None]:
        splits = add_negatives(name, splits, num_items, sampled_negatives)
        return Rank(num_items, sampled_negatives), splits
    widths = {0 if columns is None else columns.shape[1] for columns in brought}
    if len(widths) > 1 or (sampled_negatives and widths != {sampled_negatives}):
        shown = " and ".join(map(str, sorted(widths)))
        raise DataError(
            f"{name}: val_negatives and test_negatives have {shown} columns",
            hint="as many for both, and task.sampled_negatives is as many or left out",
            where=name,
        )
    return Rank(num_items, widths.pop()), splits


def _arrays(name: str, data_dir: Path | None, allow_code: bool, kind: str) -> Mapping[str, Any]:
    prefix, path = plugins.split_path(name)
    if prefix == "csv":
        return read_table(path, kind)
    if prefix:
        return _READERS[prefix](path)
    if not plugins.is_code(name):
        arrays: Mapping[str, Any] = plugins.lookup("datasets", name)(data_dir)
        return arrays
    if not allow_code:
        raise RecipeError(
            f"data `{name}` would run code",
            hint=f"code must stand on the command line: --data {name}",
            where="task.data",
        )
    try:
        made = plugins.load_reference(name)()
    except FpError:
        raise
    except Exception as error:
        raise DataError(
            f"data function `{name}` "
            f"{'takes arguments' if is_wrong_call(error) else 'failed'}: {describe_failure(error)}",
            hint="it is called without arguments and returns a dict of arrays",
            where=name,
        ) from error
    if not isinstance(made, Mapping):
        raise DataError(
            f"data function `{name}` returned {type(made).__name__}",
            hint="return a dict with train_images, train_labels, test_images, test_labels",
            where=name,
        )
    return made


def _names(name: str, arrays: Mapping[str, Any], key: str, count: int) -> tuple[str, ...]:
    """Return the names that came with the data, or the numbers 0..count-1."""
    if key not in arrays:
        return tuple(map(str, range(count)))
    names = tuple(map(str, arrays[key]))
    # A natural client may have lost its last training sample to the test data, a class never.
    most = len(names) if key == "owner_names" else count
    if not count <= len(names) <= most or len(set(names)) < len(names):
        raise DataError(
            f"{name}: {key} must be {count} different names, got {len(names)}",
            hint="give one name each, or leave the names out",
            where=name,
        )
    return names


def _constants(
    name: str, arrays: Mapping[str, Any], images: Tensor, normalise: str, kind: str
) -> Constants:
    """Return what ``normalise`` says; under ``auto`` what came with the data, or ``images`` say.

    ``images`` are all training images, validation included: a seed must not change what the
    weights of another run are fed with. Sequences have none: ids are no amounts.
    """
    if kind == "rank":
        if normalise not in ("auto", "none"):
            raise DataError(
                f"{name}: normalise is `{normalise}`, and items of a sequence have no amounts",
                hint="leave task.normalise (`--normalise`) out",
                where=name,
            )
        return Constants(1.0, (), ())
    dtype = array_of(name, "train_images", arrays).dtype
    scale = float(arrays.get("scale", usual_scale(dtype)))
    span = float(images.min()), float(images.max())
    if fixed := choose_constants(normalise, name, images.shape[1:], scale, span):
        return fixed
    if "mean" not in arrays or "std" not in arrays:
        return Constants(scale, *_moments(images, scale))
    mean, std = tuple(arrays["mean"]), tuple(arrays["std"])
    if not len(mean) == len(std) == images.shape[1] or min(std) <= 0:
        raise DataError(
            f"{name}: mean {mean} and std {std} do not suit {images.shape[1]} channels",
            hint="give one mean and one positive std per channel or feature, or neither",
            where=name,
        )
    return Constants(scale, mean, std)


def _depth_notes(name: str, arrays: Mapping[str, Any], kind: str) -> list[str]:
    """Return a note on images of 16 bits, whose whole range may be more than is used of it."""
    is_deep = array_of(name, "train_images", arrays).dtype.name == "uint16"
    if not is_deep or "scale" in arrays or kind == "rank":
        return []
    return ["images of 16 bits: 0 to 65535 counts as 0 to 1"]


def _moments(images: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel or feature of the scaled samples."""
    values = images.numel() / images.shape[1]
    others = (0, *range(2, images.dim()))
    chunks = images.split(4096)
    mean = sum(chunk.sum(others, dtype=torch.float64) for chunk in chunks) / values * scale
    centre = _along_channels(mean, images)
    squares = sum(((chunk.double() * scale - centre) ** 2).sum(others) for chunk in chunks)
    # A constant channel carries nothing, but its rounding error would be blown up by 1 / std.
    is_constant = images.amin(others) == images.amax(others)
    std = torch.where(is_constant, 1.0, (squares / values).sqrt())
    return tuple(mean.tolist()), tuple(std.tolist())


def _along_channels(values: Tensor, images: Tensor) -> Tensor:
    """Return one value per channel or feature in a shape that broadcasts over samples."""
    return values.view(1, -1, *[1] * (images.dim() - 2))
