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
from fpcli.data.normalise import Constants, choose_constants
from fpcli.data.npz import read_npz
from fpcli.data.place import split_place
from fpcli.data.split import Split, array_of, make_splits, split_stratified
from fpcli.data.table import read_table
from fpcli.errors import DataError, FpError, NeedError, RecipeError
from fpcli.tasks.classify import Classify
from fpcli.tasks.learning_task import LearningTask
from fpcli.user_code import describe_failure, is_wrong_call

__all__ = ["Dataset", "Split", "load_dataset"]


def _read_arrays(place: str) -> dict[str, Any]:
    path, layout = split_place(place, "layout", LAYOUTS)
    return {**read_npz(path), "layout": layout}


_READERS: Mapping[str, Callable[[str], Mapping[str, Any]]] = {
    "npz": _read_arrays,
    "folder": read_folder,
    "csv": read_table,
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
    validation_fraction: float = 0.1,
    normalise: str = "auto",
    seed: int,
    allow_code: bool = False,
) -> Dataset:
    """Load a data set and cut a validation split from its training data.

    Args:
        name: a registered name; ``npz:PATH``, ``folder:PATH`` or ``csv:PATH``; or
            ``pkg.mod:function``, a function without arguments that returns arrays under the keys
            of an npz file.
        data_dir: the folder in which registered data sets find their files.
        validation_fraction: of every class's training samples, in (0, 1), at least one of them;
            unused where the data brings a validation split.
        normalise: see ``task.normalise`` of recipes.
        seed: of the validation draw.
        allow_code: True lets ``pkg.mod:function`` run.

    Raises:
        UsageError: no data set has that name, or the function cannot be imported.
        RecipeError: ``name`` is a function and ``allow_code`` is False.
        DataError: the data is missing, corrupt or unsuitable, also for ``normalise``.
    """
    arrays = _arrays(name, data_dir, allow_code)
    splits = make_splits(name, arrays)
    whole = splits["train"]
    if "val" in splits:
        train, validation = whole, splits["val"]
    else:
        kept, drawn = split_stratified(whole.labels, validation_fraction, seed, "validation")
        if not len(drawn):
            raise DataError(
                f"{name}: no class has the 2 training samples that a validation split needs",
                hint="add training samples, or samples for validation",
                where=name,
            )
        train, validation = whole.take(kept), whole.take(drawn)
    scale, mean, std = _constants(name, arrays, whole.images, normalise)
    num_classes = int(whole.labels.max()) + 1
    num_owners = 0 if whole.owners is None else int(whole.owners.max()) + 1
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=splits["test"],
        task=Classify(num_classes),
        scale=scale,
        mean=mean,
        std=std,
        class_names=_names(name, arrays, "class_names", num_classes),
        owner_names=_names(name, arrays, "owner_names", num_owners),
        normalised_by=normalise,
        notes=(*arrays.get("notes", ()), *_depth_notes(name, arrays)),
    )


def _arrays(name: str, data_dir: Path | None, allow_code: bool) -> Mapping[str, Any]:
    kind, path = plugins.split_path(name)
    if kind:
        return _READERS[kind](path)
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
    most = count if key == "class_names" else len(names)
    if not count <= len(names) <= most or len(set(names)) < len(names):
        raise DataError(
            f"{name}: {key} must be {count} different names, got {len(names)}",
            hint="give one name each, or leave the names out",
            where=name,
        )
    return names


def _constants(name: str, arrays: Mapping[str, Any], images: Tensor, normalise: str) -> Constants:
    """Return what ``normalise`` says; under ``auto`` what came with the data, or ``images`` say.

    ``images`` are all training images, validation included: a seed must not change what the
    weights of another run are fed with.
    """
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


def _depth_notes(name: str, arrays: Mapping[str, Any]) -> list[str]:
    """Return a note on images of 16 bits, whose whole range may be more than is used of it."""
    is_deep = array_of(name, "train_images", arrays).dtype.name == "uint16"
    if not is_deep or "scale" in arrays:
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
