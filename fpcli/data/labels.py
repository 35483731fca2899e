"""Labels as arrays of untrusted origin: classes, or numbers to be predicted, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.data.image_arrays import wrong_array

_LARGEST = 2**31 - 1
"""The largest label."""


def read_whole(source: str, key: str, array: NDArray[Any]) -> Tensor:
    """Return whole numbers from 0 on, int64 ``[n]``.

    Args:
        source: named in errors, and ``key`` too.
        array: ``[n]`` or ``[n, 1]``, of whatever type.

    Raises:
        DataError: shape or type is another, or a number is negative, huge or no whole one.
    """
    array = _flatten(source, key, array)
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


def read_targets(source: str, key: str, array: NDArray[Any]) -> Tensor:
    """Return numbers to be predicted, float32 ``[n]``.

    Args:
        source: named in errors, and ``key`` too.
        array: ``[n]`` or ``[n, 1]``, whole numbers or floating point.

    Raises:
        DataError: shape or type is another, or a number is not finite.
    """
    array = _flatten(source, key, array)
    if array.dtype.kind not in "iuf":
        raise wrong_array(source, key, f"has type {array.dtype}", "wanted are numbers")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if len(bad := np.flatnonzero(~np.isfinite(numbers))):
        problem = f"holds {array[bad[0]]:g} in sample {bad[0]}, no finite number of 32 bits"
        raise wrong_array(source, key, problem, "repair or drop that sample")
    return torch.from_numpy(numbers)


def have_fractions(array: NDArray[Any]) -> bool:
    """Tell whether some labels are finite numbers, and no whole ones."""
    if array.dtype.kind != "f":
        return False
    finite = array[np.isfinite(array)]
    return bool((finite != np.floor(finite)).any())


def check_classes(source: str, labels: Mapping[str, Tensor], names: Any) -> None:
    """Refuse labels that are not 0..k-1, each with a training sample.

    Args:
        labels: part of the data -> its labels; ``train`` is there.
        names: of classes, where they are known.

    Raises:
        DataError: the training labels are not exactly 0..k-1 with k >= 2, or another part holds a
            label that they lack.
    """
    present = labels["train"].unique()
    num_classes = len(present)
    names_of = dict(enumerate(names)) if isinstance(names, list) else {}
    if num_classes < 2:
        only = names_of.get(int(present[0]), int(present[0]))
        problem = f"holds one class only, `{only}`"
        raise wrong_array(source, "train_labels", problem, "there must be two or more to learn")
    for part, there in labels.items():
        lacking = {*there.unique().tolist()} - {*present.tolist()}
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
            "predicted are told by `--task regress`",
        )
    for part, there in labels.items():
        if int(there.max()) >= num_classes:
            raise wrong_array(
                source,
                f"{part}_labels",
                f"has label {int(there.max())}, training ends at {num_classes - 1}",
                "every class needs training samples",
            )


def check_targets(source: str, labels: Mapping[str, Tensor]) -> None:
    """Refuse numbers to be predicted that are all the same.

    Args:
        labels: part of the data -> its labels; ``train`` is there.

    Raises:
        DataError: the training labels are.
    """
    lowest, highest = labels["train"].aminmax()
    if lowest == highest:
        problem = f"holds one number only, {float(lowest):g}"
        raise wrong_array(source, "train_labels", problem, "there must be two or more to learn")


def _flatten(source: str, key: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = "wanted is [n] or [n, 1]; of one-hot rows, their argmax(1)"
        raise wrong_array(source, key, f"has shape {list(array.shape)}", hint)
    return array


def _from_floats(source: str, key: str, array: NDArray[Any]) -> NDArray[np.int64]:
    """Return whole numbers that are stored as floating point."""
    for sample, value in enumerate(array.tolist()):
        if not math.isfinite(value):
            problem, hint = "no label", "repair or drop that sample"
        elif not value.is_integer():
            problem = "no class"
            hint = "number the classes 0..k-1, or let the numbers be predicted: `--task regress`"
        elif not -_LARGEST <= value <= _LARGEST:
            problem, hint = "no class", "wanted are whole numbers 0..k-1"
        else:
            continue
        raise wrong_array(source, key, f"holds {value:g} in sample {sample}, {problem}", hint)
    return array.astype(np.int64)
