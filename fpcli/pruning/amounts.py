"""Amounts: how many channels of a group stay, and the ratio that meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fpcli.errors import CheckError
from fpcli.pruning.pruner import Measure, PruneContext, PruneTarget
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Layout
from fpcli.structure.support import Support

WORDS: Mapping[Measure, str] = {
    "ratio": "channels",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes",
}
"""Measure -> what it counts, in words."""

_ALMOST_ALL = 1 - 1e-9
_HALVINGS = 40


def num_left(width: int, ratio: float, block: int = 1, round_to: int = 1) -> int:
    """Return ``floor(width * (1 - ratio))``, counted in whole blocks and never none.

    Args:
        width: channels that are there, a multiple of ``block``.
        ratio: share that goes, in [0, 1).
        block: channels that leave only together.
        round_to: the result is rounded up to a multiple of this, but not beyond ``width``; a group
            that is narrower than this is not rounded.

    Source: the counting rule of Li et al., ICLR 2017, that reproduces their table 1.

    >>> num_left(64, 0.8), num_left(10, 0.9), num_left(6, 0.9), num_left(64, 0.8, round_to=8)
    (12, 1, 1, 16)
    """
    # 30 * (1 - 0.9) is 2.999...93: the small number makes it 3.
    left = max(1, math.floor(width // block * (1 - ratio) + 1e-9)) * block
    unit = math.lcm(block, round_to)
    return left if unit > width else min(width, math.ceil(left / unit) * unit)


def list_alive(layout: Layout, support: Support, name: str) -> Tensor:
    """Return the channels of a group that a support keeps, sorted."""
    whole = torch.arange(layout.groups[name].width)
    return support.keep.get(name, whole)


def choose_best(channels: Tensor, scores: Tensor, num: int, block: int = 1) -> Tensor:
    """Return the ``num`` channels with the highest scores, sorted.

    Args:
        channels: those that are there, sorted; whole blocks.
        scores: of all channels of the group, ``[width]``.
        num: a multiple of ``block``; a block scores the sum of its channels.

    Of equal scores the smaller index goes first (Li et al., ICLR 2017, stable sort by score).

    >>> choose_best(torch.tensor([0, 1, 3]), torch.tensor([1.0, 1.0, 9.0, 0.5]), 1)
    tensor([1])
    """
    per_block = scores[channels].reshape(-1, block).sum(1)
    order = torch.sort(per_block, stable=True).indices
    stay = order[len(order) - num // block :].sort().values
    return channels.reshape(-1, block)[stay].flatten()


def ratio_for(
    px: PruneContext,
    layout: Layout,
    target: PruneTarget,
    support_at: Callable[[float], Support],
) -> float:
    """Return the smallest ratio that meets a target, which for a target by ratio is that ratio.

    Args:
        support_at: ratio -> a support; the larger the ratio, the smaller. Only its size matters.

    Raises:
        CheckError: no ratio meets the target; says how close one comes.
    """
    if target.measure == "ratio":
        return target.removed
    limit = measure_size(layout, px.start, target.measure) * (1 - target.removed)

    def fits(ratio: float) -> bool:
        return measure_size(layout, support_at(ratio), target.measure) <= limit

    low, high = 0.0, _ALMOST_ALL
    if fits(low):
        return low
    if not fits(high):
        raise explain_miss(px, layout, target, support_at(high))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def measure_size(layout: Layout, support: Support, measure: Measure) -> float:
    """Return how much of a measure a support has; of ``ratio`` that is channels."""
    if measure == "ratio":
        return sum(len(list_alive(layout, support, name)) for name in layout.prunable)
    return float(getattr(count_cost(layout, support), measure))


def explain_miss(
    px: PruneContext, layout: Layout, target: PruneTarget, reached: Support
) -> CheckError:
    """Return the error for a target that a support does not meet."""
    share = measure_size(layout, reached, target.measure) / measure_size(
        layout, px.start, target.measure
    )
    return CheckError(
        f"the {WORDS[target.measure]} cannot fall to {1 - target.removed:.2%}: "
        f"the closest is {share:.2%}",
        hint="ask for less, ignore less, or let the method's options open more",
        where=f"--{target.measure}",
    )
