"""The meanings of ``task.normalise``: what stored samples are made to before a network gets them.

Loading this loads no torch, since recipes are checked with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fpcli.errors import DataError

_WORDS = ("auto", "none", "unit", "imagenet")
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SLACK = 1e-6


class Constants(NamedTuple):
    """A network gets ``(stored * scale - mean) / std``, per channel or feature.

    Attributes:
        scale: stored values times this are in the unit of ``mean`` and ``std``.
        std: above 0.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_normalise(text: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation of ``MEAN/STD``, or None for a word.

    Raises:
        ValueError: it is neither.

    >>> read_normalise("0.1307/0.3081"), read_normalise("unit")
    (((0.1307,), (0.3081,)), None)
    """
    if text in _WORDS:
        return None
    try:
        mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
    except ValueError:
        mean = std = ()
    if not (len(mean) == len(std) > 0 and all(map(math.isfinite, (*mean, *std))) and min(std) > 0):
        words = ", ".join(_WORDS)
        raise ValueError(f"`{text}` is none of {words}, and no MEAN/STD such as 0.1307/0.3081")
    return mean, std


def choose_constants(
    normalise: str,
    source: str,
    input_shape: Sequence[int],
    scale: float,
    span: tuple[float, float],
) -> Constants | None:
    """Return the constants that a setting other than ``auto`` says, or None for ``auto``.

    Args:
        normalise: a value of ``task.normalise``.
        source: the data, named in errors.
        input_shape: of one sample.
        scale: of the data: stored values times this are in its usual unit, for images 0 to 1.
        span: lowest and highest stored value.

    Raises:
        DataError: it is no value of ``task.normalise``, or does not suit the data.
    """
    channels, is_table = input_shape[0], len(input_shape) == 1
    try:
        pair = read_normalise(normalise)
    except ValueError as error:
        raise _misfit(source, str(error), "`--normalise none` takes values as they are") from error
    if normalise == "auto":
        return None
    if normalise == "none":
        return Constants(1.0, (0.0,) * channels, (1.0,) * channels)
    if pair is None:
        if is_table:
            raise _misfit(
                source,
                f"normalise is `{normalise}`, which is for images, and this is a table",
                "tables take auto, none, or a MEAN/STD with one number per feature",
            )
        pair = _IMAGENET if normalise == "imagenet" else ((0.0,) * channels, (1.0,) * channels)
    if len(pair[0]) != channels:
        what = "features" if is_table else "channels"
        raise _misfit(
            source,
            f"normalise is `{normalise}`, for {len(pair[0])} {what}; the data has {channels}",
            "one mean and one deviation each, separated by commas: `0.5,0.5,0.5/0.2,0.2,0.2`",
        )
    lowest, highest = span[0] * scale, span[1] * scale
    if not is_table and (lowest < -_SLACK or highest > 1 + _SLACK):
        raise _misfit(
            source,
            f"normalise is `{normalise}`, which is for images from 0 to 1, and these range from "
            f"{lowest:g} to {highest:g}",
            "store them as bytes, or floats from 0 to 1; `--normalise none` takes them as they are",
        )
    return Constants(scale, *pair)


def _misfit(source: str, problem: str, hint: str) -> DataError:
    return DataError(f"{source}: {problem}", hint=hint, where=source)
