"""Sizes of networks: what goes in, and channels of one of another width."""

from __future__ import annotations

InputShape = tuple[int, ...]
ImageShape = tuple[int, int, int]


def widen(channels: int, width: float) -> int:
    """Return a number of channels times a factor, rounded, at least 1.

    >>> widen(64, 0.25), widen(16, 1.0), widen(16, 0.01)
    (16, 16, 1)
    """
    return max(1, round(channels * width))
