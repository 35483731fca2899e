"""Splits: images with their labels, made from arrays of any origin after checking them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.errors import DataError

PARTS = ("train", "val", "test")

KEYS = tuple(f"{part}_{what}" for part in PARTS for what in ("images", "labels"))
"""The names under which arrays arrive (those of MedMNIST's files); the ``val`` pair is optional."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 or float32 ``[n, C, H, W]``, as stored, not normalised.
        labels: int64 ``[n]``.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Split:
        """Return the samples at ``indices`` (int64 ``[m]``), copied."""
        return Split(self.images.index_select(0, indices), self.labels.index_select(0, indices))


def make_splits(source: str, arrays: Mapping[str, Any]) -> dict[str, Split]:
    """Check arrays of untrusted origin and return one split per part of ``PARTS`` that is there.

    Args:
        source: a file or function, named in errors.
        arrays: NumPy arrays or tensors under ``KEYS``. Images are ``[n, H, W]`` or
            ``[n, H, W, C]``, uint8 or floating point; labels are integers ``[n]`` or ``[n, 1]``.

    Raises:
        DataError: a key is missing; a type, shape or length is wrong; an image is not finite; the
            splits differ in type or shape; the training labels are not exactly 0..k-1 with k >= 2,
            or another split holds a label that they lack.
    """
    has_validation = "val_images" in arrays or "val_labels" in arrays
    splits = {
        part: Split(
            _images(source, f"{part}_images", _array(source, f"{part}_images", arrays)),
            _labels(source, f"{part}_labels", _array(source, f"{part}_labels", arrays)),
        )
        for part in PARTS
        if part != "val" or has_validation
    }
    for part, split in splits.items():
        _check_lengths(source, part, split)
        _check_like_train(source, part, split.images, splits["train"].images)
    _check_classes(source, splits)
    return splits


def _array(source: str, key: str, arrays: Mapping[str, Any]) -> NDArray[Any]:
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
        raise _wrong(source, key, f"is no array: {error}", "give a NumPy array") from error


def _images(source: str, key: str, array: NDArray[Any]) -> Tensor:
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise _wrong(source, key, f"has type {array.dtype}", "store images as uint8 or float32")
    if array.ndim not in (3, 4):
        raise _wrong(
            source, key, f"has shape {list(array.shape)}", "images are [n, H, W] or [n, H, W, C]"
        )
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] > 4:
        raise _wrong(
            source,
            key,
            f"has shape {list(array.shape)}: channels come second",
            "store images as [n, H, W, C]: images.transpose(0, 2, 3, 1)",
        )
    if array.size == 0:
        raise _wrong(source, key, f"is empty: shape {list(array.shape)}", "every split needs data")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
            raise _wrong(
                source, key, f"has a non-finite value in image {bad}", "repair or drop that image"
            )
    channels_second = array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2)
    return torch.from_numpy(channels_second.copy())


def _labels(source: str, key: str, array: NDArray[Any]) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise _wrong(source, key, f"has shape {list(array.shape)}", "labels are [n] or [n, 1]")
    if array.dtype.kind not in "iu":
        raise _wrong(source, key, f"has type {array.dtype}", "labels are whole numbers 0..k-1")
    if len(array) and (int(array.min()) < 0 or int(array.max()) >= 2**31):
        raise _wrong(
            source,
            key,
            f"ranges from {array.min()} to {array.max()}",
            "labels are whole numbers 0..k-1",
        )
    return torch.from_numpy(array.astype(np.int64))


def _check_lengths(source: str, part: str, split: Split) -> None:
    if len(split.images) != len(split.labels):
        raise _wrong(
            source,
            f"{part}_labels",
            f"has {len(split.labels)} labels for {len(split.images)} images",
            "every image needs one label",
        )


def _check_like_train(source: str, part: str, images: Tensor, train: Tensor) -> None:
    for what, have, want in (
        ("type", images.dtype, train.dtype),
        ("image shape [C, H, W]", list(images.shape[1:]), list(train.shape[1:])),
    ):
        if have != want:
            raise _wrong(
                source,
                f"{part}_images",
                f"has {what} {have}, train_images {want}",
                "store all splits alike",
            )


def _check_classes(source: str, splits: Mapping[str, Split]) -> None:
    present = splits["train"].labels.unique()
    num_classes = len(present)
    if num_classes < 2:
        raise _wrong(source, "train_labels", "holds fewer than 2 classes", "nothing to learn")
    # Comparing with the number of distinct labels also keeps a huge label from sizing a table.
    if int(present[-1]) != num_classes - 1:
        raise _wrong(
            source,
            "train_labels",
            f"has {num_classes} classes from {int(present[0])} to {int(present[-1])}",
            f"number the classes 0..{num_classes - 1}, each with a training image",
        )
    for part, split in splits.items():
        if int(split.labels.max()) >= num_classes:
            raise _wrong(
                source,
                f"{part}_labels",
                f"has label {int(split.labels.max())}, training ends at {num_classes - 1}",
                "every class needs training images",
            )


def _wrong(source: str, key: str, problem: str, hint: str) -> DataError:
    return DataError(f"{source}: {key} {problem}", hint=hint, where=source)
