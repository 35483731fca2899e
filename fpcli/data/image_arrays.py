"""Images and tables as arrays of untrusted origin: checked, and arranged with channels first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.errors import DataError

LAYOUTS = ("NHWC", "NCHW")
"""Where channels are, last or first; the key ``layout`` of arrays says it, where shapes do not."""

_FULL = {"uint8": 255, "uint16": 65_535}
_MOST_CHANNELS = 4
"""A dimension this short is more likely one of channels than a side of images."""


def usual_scale(dtype: np.dtype[Any]) -> float:
    """Return what makes whole numbers of images 0 to 1; 1 for floating point."""
    return 1 / _FULL.get(dtype.name, 1)


def read_images(source: str, key: str, array: NDArray[Any], layout: Any = None) -> Tensor:
    """Return images ``[n, C, H, W]``, uint8 or float32, or the rows of a table, float32.

    Args:
        source: named in errors, and ``key`` too.
        array: images ``[n, H, W]``, ``[n, H, W, C]`` or ``[n, C, H, W]``, uint8, uint16 or floating
            point; or a table ``[n, features]``, floating point.
        layout: one of ``LAYOUTS``, or None to go by the shape.

    Raises:
        DataError: type or shape is none of these, it is not clear where channels are, or a value is
            not finite.
    """
    is_whole = array.dtype.name in _FULL
    if not is_whole and array.dtype.kind != "f":
        hint = "store images as uint8, uint16 or float32"
        raise wrong_array(source, key, f"has type {array.dtype}", hint)
    if array.ndim not in (3, 4) and (array.ndim != 2 or is_whole):
        raise wrong_array(
            source,
            key,
            f"has shape {list(array.shape)} and type {array.dtype}",
            "images are [n, H, W], [n, H, W, C] or [n, C, H, W], a table [n, features] of floats",
        )
    if array.size == 0:
        problem = f"is empty: shape {list(array.shape)}"
        raise wrong_array(source, key, problem, "every split needs data")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
            raise wrong_array(
                source, key, f"has a non-finite value in sample {bad}", "repair or drop that sample"
            )
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and not _are_channels_first(source, key, array.shape, layout):
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(array.copy())


def _are_channels_first(source: str, key: str, shape: tuple[int, ...], layout: Any) -> bool:
    """Tell where channels are: the one short dimension, or else the one beside a square."""
    if layout is not None:
        if str(layout) not in LAYOUTS:
            hint = f"give {' or '.join(LAYOUTS)}"
            raise wrong_array(source, "layout", f"is `{layout}`", hint)
        return str(layout) == "NCHW"
    first, middle, last = shape[1:]
    is_short = first <= _MOST_CHANNELS, last <= _MOST_CHANNELS
    is_square = middle == last, first == middle
    votes = {pair[0] for pair in (is_short, is_square) if pair[0] != pair[1]}
    if len(votes) != 1:
        raise wrong_array(
            source,
            key,
            f"has shape {list(shape)}, which does not tell whether channels come first or last",
            "say it: `npz:PATH,layout=NHWC` if they come last, `layout=NCHW` if first; a function "
            "returns it under the key `layout`",
        )
    return votes.pop()


def wrong_array(source: str, key: str, problem: str, hint: str) -> DataError:
    """Return an error that names source and array."""
    return DataError(f"{source}: {key} {problem}", hint=hint, where=source)
