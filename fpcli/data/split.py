"""Splits: samples with their labels, made from arrays of any origin after checking them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.data.image_arrays import read_images, wrong_array
from fpcli.errors import DataError
from fpcli.rng import stream

SPLIT_PARTS = ("train", "val", "test")

KEYS = tuple(f"{part}_{what}" for part in SPLIT_PARTS for what in ("images", "labels"))
"""The names under which arrays arrive (those of MedMNIST's files); the ``val`` pair is optional.
A table arrives as images of one dimension."""

OWNERS = "train_owners"
"""Name of the array that says which natural client each training sample belongs to; optional."""

_LARGEST = 2**31 - 1
"""The largest label."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes:
        images: uint8 or float32 ``[n, C, H, W]``, or rows of a table, float32 ``[n, features]``;
            as stored, not normalised.
        labels: int64 ``[n]``.
        owners: int64 ``[n]``, the natural client each sample belongs to, or None where the data
            knows none. A client may have no sample in a split.
    """

    images: Tensor
    labels: Tensor
    owners: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Split:
        """Return the samples at ``indices`` (int64 ``[m]``), copied."""
        owners = None if self.owners is None else self.owners.index_select(0, indices)
        return Split(
            self.images.index_select(0, indices), self.labels.index_select(0, indices), owners
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that is stored."""
        owners = () if self.owners is None else (self.owners,)
        return self.images, self.labels, *owners


def make_splits(source: str, arrays: Mapping[str, Any]) -> dict[str, Split]:
    """Check arrays of untrusted origin and return one split per part of ``PARTS`` that is there.

    Args:
        source: a file or function, named in errors.
        arrays: NumPy arrays or tensors under ``KEYS`` and, optionally, ``OWNERS``. Images and
            tables, and ``layout``, are those of ``read_images``; labels and owners are whole
            numbers ``[n]`` or ``[n, 1]``, of whatever type. ``class_names``, where they are known,
            are for messages.

    Raises:
        DataError: a key is missing; a type, shape or length is wrong; a value is not finite; the
            splits differ in type or shape; the training labels are not exactly 0..k-1 with k >= 2,
            or another split holds a label that they lack.
    """
    has_validation = "val_images" in arrays or "val_labels" in arrays
    splits = {
        part: Split(
            read_images(
                source,
                f"{part}_images",
                array_of(source, f"{part}_images", arrays),
                arrays.get("layout"),
            ),
            _whole(source, f"{part}_labels", array_of(source, f"{part}_labels", arrays)),
            _whole(source, OWNERS, array_of(source, OWNERS, arrays))
            if part == "train" and OWNERS in arrays
            else None,
        )
        for part in SPLIT_PARTS
        if part != "val" or has_validation
    }
    for part, split in splits.items():
        _check_lengths(source, part, split)
        _check_like_train(source, part, split.images, splits["train"].images)
    _check_classes(source, splits, arrays.get("class_names"))
    return splits


def split_stratified(
    labels: Tensor, fraction: float, seed: int, purpose: str
) -> tuple[Tensor, Tensor]:
    """Return sorted indices (kept, drawn): ``fraction`` of each class, 1 at least, never all."""
    generator = stream(seed, purpose)
    is_drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = torch.randperm(len(members), generator=generator)
        is_drawn[members[order[:count]]] = True
    return (~is_drawn).nonzero().flatten(), is_drawn.nonzero().flatten()


def cut_test(arrays: Mapping[str, Any], purpose: str, source: str) -> dict[str, Any]:
    """Return arrays whose test samples are a fifth of each class of the training samples.

    Args:
        arrays: training arrays of one length as tensors, among them ``train_labels``.
        purpose: of the draw, which is the same for every seed of a run.
        source: named in errors.

    Raises:
        DataError: no class has a sample to spare.
    """
    kept, drawn = split_stratified(arrays["train_labels"], 0.2, 0, purpose)
    if not len(drawn):
        raise DataError(
            f"{source}: no class has the 2 samples that training and test data need",
            hint="add samples, or say which are for testing",
            where=source,
        )
    made = {key: value[kept] for key, value in arrays.items()}
    return made | {f"test_{what}": arrays[f"train_{what}"][drawn] for what in ("images", "labels")}


def array_of(source: str, key: str, arrays: Mapping[str, Any]) -> NDArray[Any]:
    """Return one of some arrays as NumPy's.

    Raises:
        DataError: there is none, or it is no array.
    """
    if key not in arrays:
        raise DataError(
            f"{source}: no array `{key}`",
            hint=f"needed: {', '.join(KEYS)} (the val pair may be left out)",
            where=source,
        )
    value = arrays[key]
    try:
        return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise wrong_array(source, key, f"is no array: {error}", "give a NumPy array") from error


def _whole(source: str, key: str, array: NDArray[Any]) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = "wanted is [n] or [n, 1]; of one-hot rows, their argmax(1)"
        raise wrong_array(source, key, f"has shape {list(array.shape)}", hint)
    if array.dtype.kind == "f":
        array = _from_floats(source, key, array)
    if array.dtype.kind not in "iu":
        raise wrong_array(source, key, f"has type {array.dtype}", "wanted are whole numbers 0..k-1")
    if len(array) and (int(array.min()) < 0 or int(array.max()) > _LARGEST):
        raise wrong_array(
            source,
            key,
            f"ranges from {array.min()} to {array.max()}",
            "wanted are whole numbers 0..k-1",
        )
    return torch.from_numpy(array.astype(np.int64))


def _from_floats(source: str, key: str, array: NDArray[Any]) -> NDArray[np.int64]:
    """Return whole numbers that are stored as floating point."""
    for sample, value in enumerate(array.tolist()):
        if not math.isfinite(value):
            problem, hint = "no label", "repair or drop that sample"
        elif not value.is_integer():
            problem = "so this is regression, which fpcli does not do yet"
            hint = "replace the numbers by a few classes, numbered 0..k-1"
        elif not -_LARGEST <= value <= _LARGEST:
            problem, hint = "no class", "wanted are whole numbers 0..k-1"
        else:
            continue
        raise wrong_array(source, key, f"holds {value:g} in sample {sample}, {problem}", hint)
    return array.astype(np.int64)


def _check_lengths(source: str, part: str, split: Split) -> None:
    if len(split.images) != len(split.labels):
        raise wrong_array(
            source,
            f"{part}_labels",
            f"has {len(split.labels)} labels for {len(split.images)} samples",
            "every sample needs one label",
        )
    if split.owners is not None and len(split.owners) != len(split.labels):
        raise wrong_array(
            source,
            OWNERS,
            f"has {len(split.owners)} owners for {len(split.labels)} samples",
            "every training sample needs one owner",
        )


def _check_like_train(source: str, part: str, images: Tensor, train: Tensor) -> None:
    for what, have, want in (
        ("type", images.dtype, train.dtype),
        ("sample shape", list(images.shape[1:]), list(train.shape[1:])),
    ):
        if have != want:
            raise wrong_array(
                source,
                f"{part}_images",
                f"has {what} {have}, train_images {want}",
                "store all splits alike",
            )


def _check_classes(source: str, splits: Mapping[str, Split], names: Any) -> None:
    present = splits["train"].labels.unique()
    num_classes = len(present)
    names_of = dict(enumerate(names)) if isinstance(names, list) else {}
    if num_classes < 2:
        only = names_of.get(int(present[0]), int(present[0]))
        problem = f"holds one class only, `{only}`"
        raise wrong_array(source, "train_labels", problem, "there must be two or more to learn")
    for part, split in splits.items():
        lacking = {*split.labels.unique().tolist()} - {*present.tolist()}
        if named := sorted(lacking & names_of.keys()):
            raise wrong_array(
                source,
                f"{part}_labels",
                f"holds class `{names_of[named[0]]}`, of which there is no training sample",
                "every class needs training samples",
            )
    # Comparing with the number of distinct labels also keeps a huge label from sizing a table.
    if int(present[-1]) != num_classes - 1:
        raise wrong_array(
            source,
            "train_labels",
            f"has {num_classes} classes from {int(present[0])} to {int(present[-1])}",
            f"number the classes 0..{num_classes - 1}, each with a training sample; numbers to be "
            "predicted are no classes",
        )
    for part, split in splits.items():
        if int(split.labels.max()) >= num_classes:
            raise wrong_array(
                source,
                f"{part}_labels",
                f"has label {int(split.labels.max())}, training ends at {num_classes - 1}",
                "every class needs training samples",
            )
