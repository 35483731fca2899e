"""Patterns: which channels stay, by their scores or by their place."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor

import torch
from torch import Tensor

from fpcli.errors import RecipeError
from fpcli.structure.layout import Group, Layout


def count_kept_channels(width: int, ratio: float, block: int = 1) -> int:
    """Return how many of ``width`` channels stay, in whole blocks and never none.

    Args:
        width: channels of the group, a multiple of ``block``.
        ratio: fraction to remove, in [0, 1].
        block: channels that leave only together.

    Raises:
        RecipeError: the ratio is outside [0, 1].

    >>> count_kept_channels(100, 0.29), count_kept_channels(4, 0.99)
    (71, 1)
    >>> count_kept_channels(64, 0.3, block=16)
    48
    """
    if not 0.0 <= ratio <= 1.0:
        raise RecipeError(f"pruning ratio {ratio}", hint="it is a fraction between 0 and 1")
    num_blocks = width // block
    # 0.29 * 100 is 28.999...96: the small number makes it 29.
    return max(1, num_blocks - floor(ratio * num_blocks + 1e-9)) * block


class Ranking:
    """The channels of every prunable group in the order of their scores, sorted once.

    Args:
        layout: the groups.
        scores: group name -> ``[width]``, larger = keep; a block scores the sum of its channels. Of
            equal scores the lower index stays.
    """

    def __init__(self, layout: Layout, scores: Mapping[str, Tensor]) -> None:
        self._groups = layout.prunable
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._order = {
            name: _sort_blocks(scores[name], group.block) for name, group in self._groups.items()
        }

    def keep(self, ratio: float) -> dict[str, Tensor]:
        """Return the channels with the highest scores, the same ratio in every prunable group.

        Args:
            ratio: fraction to remove, in [0, 1].

        Returns:
            Group name -> sorted int64 channels, ready for ``Support``; groups that lose nothing are
            absent.

        Raises:
            RecipeError: the ratio is outside [0, 1].
        """
        kept = {
            name: count_kept_channels(g.width, ratio, g.block) for name, g in self._groups.items()
        }
        return {n: self._channels(n, k) for n, k in kept.items() if k < self._groups[n].width}

    def _channels(self, name: str, kept: int) -> Tensor:
        if (name, kept) not in self._kept:
            block = self._groups[name].block
            self._kept[name, kept] = _channels(self._order[name][: kept // block], block)
        return self._kept[name, kept]


def keep_ranked(layout: Layout, scores: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Keep the channels with the highest scores at one ratio; see :class:`Ranking`.

    Source: FedMP (ICDE 2022), section III (ranked structured pruning).

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 4, ())})
    >>> keep_ranked(layout, {"conv": torch.tensor([0.5, 2.0, 1.0, 0.1])}, 0.5)
    {'conv': tensor([1, 2])}
    """
    return Ranking(layout, scores).keep(ratio)


def count_held(width: int, share: float, block: int = 1) -> int:
    """Return ``ceil(width * share)``, counted in whole blocks and never none.

    Args:
        width: channels of the group, a multiple of ``block``.
        share: fraction to keep, in [0, 1].
        block: channels that leave only together.

    Raises:
        RecipeError: the share is outside [0, 1].

    >>> count_held(64, 0.0625), count_held(6, 0.25), count_held(100, 0.07)
    (4, 2, 7)
    >>> count_held(64, 0.3, block=16)
    32
    """
    if not 0.0 <= share <= 1.0:
        raise RecipeError(f"share of channels {share}", hint="it is a fraction between 0 and 1")
    # 0.07 * 100 is 7.000...01: the small number makes it 7.
    return max(1, ceil(share * (width // block) - 1e-9)) * block


def keep_window(
    layout: Layout, share: float, *, start: int = 0, within: float = 1.0
) -> dict[str, Tensor]:
    """Keep neighbouring channels, cyclically, the same share in every prunable group.

    Args:
        layout: the groups.
        share: fraction to keep of the channels that take part, rounded up.
        start: the first one kept, counted in blocks modulo the number that take part.
        within: only this leading share of each group's channels takes part, rounded up.

    Returns:
        Group name -> sorted int64 channels, ready for ``Support``; groups that lose nothing are
        absent. With ``start=0`` these are the first channels, and smaller shares lie within larger
        ones.

    Raises:
        RecipeError: a share is outside [0, 1].

    Source: start 0: HeteroFL (ICLR 2021); a start that moves: FedRolex (NeurIPS 2022), which rounds
    down.

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 5, ())})
    >>> [keep_window(layout, 0.6, start=start)["conv"].tolist() for start in (0, 8)]
    [[0, 1, 2], [0, 3, 4]]
    """
    keep: dict[str, Tensor] = {}
    for name, group in layout.prunable.items():
        total, kept = _part(group, share, within)
        if kept < group.width // group.block:
            chosen = (start + torch.arange(kept)) % total
            keep[name] = _channels(chosen, group.block)
    return keep


def keep_scattered(
    layout: Layout, share: float, rng: torch.Generator, *, within: float = 1.0
) -> dict[str, Tensor]:
    """Keep channels drawn at random, the same share in every prunable group.

    Arguments, result and errors as in :func:`keep_window`; ``rng`` draws, group after group.

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 5, ())})
    >>> len(keep_scattered(layout, 0.6, torch.Generator().manual_seed(0))["conv"])
    3
    """
    keep: dict[str, Tensor] = {}
    for name, group in layout.prunable.items():
        total, kept = _part(group, share, within)
        if kept < group.width // group.block:
            keep[name] = _channels(torch.randperm(total, generator=rng)[:kept], group.block)
    return keep


def sort_leading(
    layout: Layout, order: Mapping[str, Tensor], scores: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Sort the leading channels of an order by their scores, and leave the others where they are.

    However many of the leading ones are kept then, they lie within what was leading before. So
    sub-models that are cut one after the other lie in one another, each time from fewer channels.

    Args:
        layout: the groups.
        order: group name -> its blocks, first kept first; an absent group has them by index.
        scores: group name -> ``[width]``, larger = keep; a block scores the sum of its channels. Of
            equal scores the lower index comes first.
        share: of each group's channels that is leading, rounded up.

    Returns:
        Prunable group -> int64 ``[width / block]``.

    Raises:
        RecipeError: the share is outside [0, 1].

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 4, ())})
    >>> first = sort_leading(layout, {}, {"conv": torch.tensor([0.9, 0.2, 0.5, 0.7])}, 1.0)
    >>> sort_leading(layout, first, {"conv": torch.tensor([0.4, 5.0, 0.6, 0.3])}, 0.75)
    {'conv': tensor([2, 0, 3, 1])}
    """
    new: dict[str, Tensor] = {}
    for name, group in layout.prunable.items():
        blocks = _order_of(group, order)
        num = count_held(group.width, share, group.block) // group.block
        leading = _sort_blocks(scores[name], group.block)
        new[name] = torch.cat([leading[torch.isin(leading, blocks[:num])], blocks[num:]])
    return new


def keep_leading(layout: Layout, order: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Keep the first channels of an order, the same share in every prunable group.

    Args:
        layout: the groups.
        order: as for :func:`sort_leading`.
        share: fraction to keep, rounded up.

    Returns:
        As :func:`keep_window`; smaller shares lie within larger ones.

    Raises:
        RecipeError: the share is outside [0, 1].
    """
    keep: dict[str, Tensor] = {}
    for name, group in layout.prunable.items():
        kept = count_held(group.width, share, group.block)
        if kept < group.width:
            keep[name] = _channels(_order_of(group, order)[: kept // group.block], group.block)
    return keep


def _order_of(group: Group, order: Mapping[str, Tensor]) -> Tensor:
    return order.get(group.name, torch.arange(group.width // group.block))


def _sort_blocks(score: Tensor, block: int) -> Tensor:
    """Return the blocks, highest score first; of equal scores the lower index comes first."""
    per_block = score.reshape(-1, block).sum(1)
    return torch.sort(per_block, descending=True, stable=True).indices


def _part(group: Group, share: float, within: float) -> tuple[int, int]:
    """Return how many blocks take part, and how many of them stay."""
    total = count_held(group.width, within, group.block) // group.block
    return total, count_held(total, share)


def _channels(blocks: Tensor, block: int) -> Tensor:
    return (blocks.sort().values[:, None] * block + torch.arange(block)).flatten()
