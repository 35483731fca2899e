"""Distances of distributions, such as those of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ROUNDING = 1e-12
"""Divergences below this are differences of the order of summation."""


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Return the distance of distributions along the last axis, in [0, 1].

    >>> float(total_variation(torch.tensor([0.75, 0.25]), torch.tensor([0.25, 0.75])))
    0.5
    """
    return (p - q).abs().sum(-1) / 2


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Return the distance, the root of the divergence to base 2, of distributions along the last
    axis, in [0, 1].

    >>> float(jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])))
    1.0
    """
    entropies = [torch.special.entr(x).sum(-1) for x in ((p + q) / 2, p, q)]
    divergence = entropies[0] - (entropies[1] + entropies[2]) / 2
    return (divergence.clamp(min=0) / math.log(2)).sqrt()


def measure_skews(counts: Sequence[Tensor], everyone: Tensor) -> list[float]:
    """Return how far distributions of labels are from that of all clients, each in [0, 1].

    It is the Jensen-Shannon divergence to base 2 (paper: D); below 1e-12 it is 0.

    Args:
        counts: samples of each class, or shares of them, ``[classes]`` each.
        everyone: those of all clients together.

    >>> uniform = torch.ones(10)
    >>> [round(x, 6) for x in measure_skews([uniform, torch.eye(10)[0]], uniform)]
    [0.0, 0.758277]
    """
    mean = everyone.double() / everyone.sum()
    skews = [float(jensen_shannon(x.double() / x.sum(), mean)) ** 2 for x in counts]
    return [skew if skew >= _ROUNDING else 0.0 for skew in skews]
