"""Splits: samples with their labels, made from arrays of any origin after checking them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.data.image_arrays import read_images, wrong_array
from fpcli.data.labels import check_classes, check_targets, read_targets, read_whole
from fpcli.data.sequences import count_items, read_columns, read_sequences
from fpcli.errors import DataError
from fpcli.rng import stream

SPLIT_PARTS = ("train", "val", "test")

KEYS = tuple(f"{part}_{what}" for part in SPLIT_PARTS for what in ("images", "labels"))
"""The names under which arrays arrive (those of MedMNIST's files); the ``val`` pair is optional.
A table arrives as images of one dimension, and so do sequences of items."""

OWNERS = "train_owners"
"""Name of the array that says which natural client each training sample belongs to; optional."""

OF_ITEMS = ("val_owners", "test_owners", "val_negatives", "test_negatives", "num_items")
"""Names of further arrays of sequences, all optional."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes:
        images: uint8 or float32 ``[n, C, H, W]``, or rows of a table, float32 ``[n, features]``;
            as stored, not normalised. Or sequences of items, int16 or int32 ``[n, L]``, as in
            ``data.sequences``.
        labels: classes, int64 ``[n]``; or numbers to be predicted, float32 ``[n]``; or items that
            come next, by their columns, int64 ``[n]``.
        owners: int64 ``[n]``, the natural client each sample belongs to, or None where the data
            knows none. A client may have no sample in a split.
        negatives: columns of items that the owner has never met, int64 ``[n, N]``, among which the
            right one is judged; or None.
    """

    images: Tensor
    labels: Tensor
    owners: Tensor | None = None
    negatives: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Split:
        """Return the samples at ``indices`` (int64 ``[m]``), copied."""
        stored = {name: x.index_select(0, indices) for name, x in self._stored().items()}
        return Split(**stored)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that is stored."""
        return tuple(self._stored().values())

    def _stored(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


def make_splits(source: str, arrays: Mapping[str, Any], kind: str = "classify") -> dict[str, Split]:
    """Check arrays of untrusted origin and return one split per part of ``SPLIT_PARTS`` that is
    there.

    Args:
        source: a file or function, named in errors.
        arrays: NumPy arrays or tensors under ``KEYS`` and, optionally, ``OWNERS``. Images and
            tables, and ``layout``, are those of ``read_images``; labels and owners are whole
            numbers ``[n]`` or ``[n, 1]``, of whatever type. ``class_names``, where they are known,
            are for messages.
        kind: what is learned, of ``tasks.TASKS``. ``regress``: labels are any finite numbers.
            ``rank``: samples are those of ``read_sequences``, ``OF_ITEMS`` may be there too.

    Raises:
        DataError: a key is missing; a type, shape or length is wrong; a value is not finite; the
            splits differ in type or shape; the training labels are not exactly 0..k-1 with k >= 2,
            or another split holds a label that they lack (``regress``: all are the same; ``rank``:
            an item is not one of ``num_items``).
    """
    has_validation = "val_images" in arrays or "val_labels" in arrays
    splits = {
        part: _read_split(source, part, arrays, kind)
        for part in SPLIT_PARTS
        if part != "val" or has_validation
    }
    for part, split in splits.items():
        _check_lengths(source, part, split)
        _check_like_train(source, part, split.images, splits["train"].images)
    labels = {part: split.labels for part, split in splits.items()}
    if kind == "classify":
        check_classes(source, labels, arrays.get("class_names"))
    if kind == "regress":
        check_targets(source, labels)
    if kind == "rank":
        find_num_items(source, arrays, splits)
    return splits


def find_num_items(source: str, arrays: Mapping[str, Any], splits: Mapping[str, Split]) -> int:
    """Return the number of items of sequences, said or else found.

    Raises:
        DataError: what is said is wrong.
    """
    largest = 0
    for split in splits.values():
        columns = [split.labels] if split.negatives is None else [split.labels, split.negatives]
        largest = max(largest, int(split.images.max()), *(int(x.max()) + 1 for x in columns))
    return count_items(source, arrays.get("num_items"), largest)


def _read_split(source: str, part: str, arrays: Mapping[str, Any], kind: str) -> Split:
    images, labels, owners, negatives = (
        f"{part}_{what}" for what in ("images", "labels", "owners", "negatives")
    )
    stored = array_of(source, images, arrays)
    read_labels = read_targets if kind == "regress" else read_whole
    is_ranked = kind == "rank"
    return Split(
        read_sequences(source, images, stored)
        if is_ranked
        else read_images(source, images, stored, arrays.get("layout")),
        read_labels(source, labels, array_of(source, labels, arrays)),
        read_whole(source, owners, array_of(source, owners, arrays))
        if owners in arrays and (owners == OWNERS or is_ranked)
        else None,
        read_columns(source, negatives, array_of(source, negatives, arrays))
        if negatives in arrays and is_ranked
        else None,
    )


def draw_fraction(
    labels: Tensor, fraction: float, seed: int, purpose: str, kind: str = "classify"
) -> tuple[Tensor, Tensor]:
    """Return sorted indices (kept, drawn): ``fraction`` of each class, 1 at least, never all.

    Args:
        kind: what is learned; without classes all samples count as of one.
    """
    generator = stream(seed, purpose)
    groups = labels if kind == "classify" else torch.zeros(len(labels), dtype=torch.int64)
    is_drawn = torch.zeros(len(labels), dtype=torch.bool)
    for group in groups.unique():
        members = (groups == group).nonzero().flatten()
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = torch.randperm(len(members), generator=generator)
        is_drawn[members[order[:count]]] = True
    return (~is_drawn).nonzero().flatten(), is_drawn.nonzero().flatten()


def cut_test(
    arrays: Mapping[str, Any], purpose: str, source: str, kind: str = "classify"
) -> dict[str, Any]:
    """Return arrays whose test samples are a fifth of each class of the training samples.

    Args:
        arrays: training arrays of one length as tensors, among them ``train_labels``.
        purpose: of the draw, which is the same for every seed of a run.
        source: named in errors.
        kind: what is learned; without classes it is a fifth of all.

    Raises:
        DataError: no class has a sample to spare.
    """
    kept, drawn = draw_fraction(arrays["train_labels"], 0.2, 0, purpose, kind)
    if not len(drawn):
        raise DataError(
            f"{source}: {describe_shortage(kind)} that training and test data need",
            hint="add samples, or say which are for testing",
            where=source,
        )
    made = {key: value[kept] for key, value in arrays.items()}
    return made | {f"test_{what}": arrays[f"train_{what}"][drawn] for what in ("images", "labels")}


def describe_shortage(kind: str) -> str:
    """Return the beginning of an error where `draw_fraction` drew nothing."""
    return "no class has the 2 samples" if kind == "classify" else "there are not the 2 samples"


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


def _check_lengths(source: str, part: str, split: Split) -> None:
    if len(split.images) != len(split.labels):
        raise wrong_array(
            source,
            f"{part}_labels",
            f"has {len(split.labels)} labels for {len(split.images)} samples",
            "every sample needs one label",
        )
    for what, one, array in (
        ("owners", "owner", split.owners),
        ("negatives", "row of negatives", split.negatives),
    ):
        if array is not None and len(array) != len(split.labels):
            raise wrong_array(
                source,
                f"{part}_{what}",
                f"has {len(array)} {what} for {len(split.labels)} samples",
                f"every sample needs one {one}",
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
