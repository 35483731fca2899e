"""Patterns: which channels stay, given scores and a pruning ratio."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor

import torch
from torch import Tensor

from fpcli.errors import RecipeError
from fpcli.structure.layout import Layout


def num_kept(width: int, ratio: float, block: int = 1) -> int:
    """Return how many of ``width`` channels stay, in whole blocks and never none.

    Args:
        width: channels of the group, a multiple of ``block``.
        ratio: fraction to remove, in [0, 1].
        block: channels that leave only together.

    Raises:
        RecipeError: the ratio is outside [0, 1].

    >>> num_kept(100, 0.29), num_kept(4, 0.99), num_kept(64, 0.3, block=16)
    (71, 1, 48)
    """
    if not 0.0 <= ratio <= 1.0:
        raise RecipeError(f"pruning ratio {ratio}", hint="it is a fraction between 0 and 1")
    num_blocks = width // block
    # 0.29 * 100 is 28.999...96: the small number makes it 29.
    return max(1, num_blocks - floor(ratio * num_blocks + 1e-9)) * block


def ranked(layout: Layout, scores: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Keep the channels with the highest scores, the same ratio in every prunable group.

    Args:
        layout: the groups.
        scores: group name -> ``[width]``, larger = keep; a block scores the sum of its channels.
        ratio: fraction to remove, in [0, 1].

    Returns:
        Group name -> sorted int64 channels, ready for ``Support``; groups that lose nothing are
        absent. Of equal scores the lower index stays.

    Raises:
        RecipeError: the ratio is outside [0, 1].

    Source: FedMP (ICDE 2022), section III (ranked structured pruning).

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 4, ())})
    >>> ranked(layout, {"conv": torch.tensor([0.5, 2.0, 1.0, 0.1])}, 0.5)
    {'conv': tensor([1, 2])}
    """
    keep: dict[str, Tensor] = {}
    for name, group in layout.prunable.items():
        kept = num_kept(group.width, ratio, group.block)
        if kept == group.width:
            continue
        per_block = scores[name].reshape(-1, group.block).sum(1)
        order = torch.sort(per_block, descending=True, stable=True).indices
        best = order[: kept // group.block].sort().values
        keep[name] = (best[:, None] * group.block + torch.arange(group.block)).flatten()
    return keep
