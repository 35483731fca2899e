"""Sequences of items as arrays of untrusted origin, and which item comes next: checked.

Items have the ids 1..V; 0 stands in front of a sequence that is shorter than the others, so that
the newest item is always the last. A label is the next item's id minus 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.data.image_arrays import wrong_array

MAX_ITEMS = 10_000_000
"""A network has a row of weights for each."""

_HINT = "sequences are [n, L] of item ids 1..V, with zeros in front of shorter ones"


def read_sequences(source: str, key: str, array: NDArray[Any]) -> Tensor:
    """Return sequences of item ids ``[n, L]``, int16 where they are stored so, else int32.

    Args:
        source: named in errors, and ``key`` too.
        array: whole numbers ``[n, L]``.

    Raises:
        DataError: type or shape is another, an id is negative or huge, zeros stand behind an item,
            or a sequence has no item.
    """
    if array.dtype.kind not in "iu" or array.ndim != 2:
        problem = f"has shape {list(array.shape)} and type {array.dtype}"
        raise wrong_array(source, key, problem, _HINT)
    if array.size == 0:
        problem = f"is empty: shape {list(array.shape)}"
        raise wrong_array(source, key, problem, "every split needs data")
    if int(array.min()) < 0 or int(array.max()) > MAX_ITEMS:
        problem = f"has ids from {array.min()} to {array.max()}"
        raise wrong_array(source, key, problem, f"items are numbered 1..V, V up to {MAX_ITEMS:,}")
    is_item = array != 0
    if len(bad := np.flatnonzero(~is_item[:, -1] | (is_item[:, :-1] > is_item[:, 1:]).any(1))):
        problem = f"has a 0 behind an item, or nothing else, in sequence {bad[0]}"
        raise wrong_array(source, key, problem, _HINT)
    return torch.from_numpy(array.astype(array.dtype if array.dtype == np.int16 else np.int32))


def read_columns(source: str, key: str, array: NDArray[Any]) -> Tensor:
    """Return items as columns of a network's output, int64 ``[n, N]``.

    Args:
        source: named in errors, and ``key`` too.
        array: whole numbers ``[n, N]`` from 0 on.

    Raises:
        DataError: type or shape is another, or a number is negative or huge.
    """
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] == 0:
        problem = f"has shape {list(array.shape)} and type {array.dtype}"
        raise wrong_array(source, key, problem, "wanted are whole numbers [n, N], item ids minus 1")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= MAX_ITEMS):
        problem = f"ranges from {array.min()} to {array.max()}"
        raise wrong_array(source, key, problem, "wanted are item ids minus 1, from 0 on")
    return torch.from_numpy(array.astype(np.int64))


def count_items(source: str, given: Any, largest: int) -> int:
    """Return the number of items.

    Args:
        given: what the data says, or None: then it is the largest id.
        largest: id in the data, counting labels from 1.

    Raises:
        DataError: the data says another number than a whole one from 2 on, or holds a larger id.
    """
    if given is None:
        given = largest
    number = np.asarray(given)
    if number.ndim or number.dtype.kind not in "iu" or not 2 <= int(number) <= MAX_ITEMS:
        hint = f"say how many items there are, from 2 to {MAX_ITEMS:,}"
        raise wrong_array(source, "num_items", f"is {given!r:.40}", hint)
    if largest > int(number):
        problem = f"is {int(number)}, and the data holds item {largest}"
        hint = "ids go from 1 to num_items, labels from 0 to num_items - 1"
        raise wrong_array(source, "num_items", problem, hint)
    return int(number)
