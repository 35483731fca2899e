"""Widths: channel counts of a network that is wider or narrower than its paper's."""

from __future__ import annotations


def widened(channels: int, width: float) -> int:
    """Return a number of channels times a factor, rounded, at least 1.

    >>> widened(64, 0.25), widened(16, 1.0), widened(16, 0.01)
    (16, 16, 1)
    """
    return max(1, round(channels * width))
