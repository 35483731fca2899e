"""Rank the channels of several groups together, and find how many may stay under a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fpcli.engine.trained import Trained
from fpcli.pruning.amounts import explain_miss, list_alive, measure_size
from fpcli.pruning.pruner import PruneContext, PruneTarget
from fpcli.structure.layout import Group, Layout
from fpcli.structure.support import Support


def keep_top(
    scores: Mapping[str, Tensor], num_kept: int, least: int, *, is_first_kept: bool = True
) -> dict[str, Tensor]:
    """Keep the channels with the highest scores of all groups together.

    Args:
        scores: group -> ``[width]``, -inf for a channel that is gone already.
        num_kept: channels that stay in all.
        least: of every group at least so many stay (or all that are left); the globally worst of
            the others make room for them.
        is_first_kept: of equal scores the earlier group, then the lower channel stays; False:
            leaves.

    Returns:
        Group -> bool ``[width]``.

    >>> scores = {"a": torch.tensor([0.5, 0.1, 0.3]), "b": torch.tensor([0.3, 0.2])}
    >>> [bits.tolist() for bits in keep_top(scores, 3, 1).values()]
    [[True, False, True], [True, False]]
    >>> [bits.tolist() for bits in keep_top(scores, 2, 0).values()]
    [[True, False, True], [False, False]]
    >>> [bits.tolist() for bits in keep_top(scores, 2, 1).values()]
    [[True, False, False], [True, False]]
    """
    first = []
    for score in scores.values():
        best = _sort_descending(score, is_first_kept)[:least]
        first.append(torch.zeros(len(score), dtype=torch.bool).index_fill_(0, best, True))
    flat, must = torch.cat(list(scores.values())), torch.cat(first)
    order = _sort_descending(flat, is_first_kept)
    order = torch.cat([order[must[order]], order[~must[order]]])
    stays = torch.zeros_like(must)
    stays[order[: max(num_kept, int(must.sum()))]] = True
    stays &= flat > -math.inf
    return dict(zip(scores, stays.split([len(x) for x in scores.values()]), strict=True))


def _sort_descending(score: Tensor, is_first_kept: bool) -> Tensor:
    if is_first_kept:
        return score.sort(descending=True, stable=True).indices
    return score.sort(stable=True).indices.flip(0)


def list_filter_groups(layout: Layout, ignore: frozenset[str]) -> list[Group]:
    """Return the groups that convolutions alone make, and whose channels may leave one by one.

    Args:
        ignore: names of groups to leave out.
    """
    names = []
    for name, group in layout.prunable.items():
        makers = [member for member in group.members if member.produces]
        are_filters = makers and all(len(layout.tensors[m.tensor].shape) > 2 for m in makers)
        if name not in ignore and are_filters and group.block == 1:
            names.append(group)
    return names


def is_there(trained: Trained, group: Group) -> Tensor:
    """Return which channels of a group are left, bool ``[width]``."""
    channels = list_alive(trained.layout, trained.support, group.name)
    return torch.zeros(group.width, dtype=torch.bool).index_fill_(0, channels, True)


def num_at_start(px: PruneContext, trained: Trained, groups: Sequence[Group]) -> int:
    """Return how many channels the groups had when the whole pruning began."""
    return sum(len(list_alive(trained.layout, px.start, group.name)) for group in groups)


def find_most_within(
    px: PruneContext,
    trained: Trained,
    target: PruneTarget,
    pick: Callable[[int], Mapping[str, Tensor]],
    total: int,
) -> dict[str, Tensor]:
    """Return the largest choice of channels whose model is within a target.

    Args:
        target: of parameters, multiply-adds or bytes.
        pick: number of channels that stay -> group -> bool ``[width]``; more channels never make
            a smaller model.
        total: largest number.

    Raises:
        CheckError: even the smallest choice is above the target.
    """
    layout = trained.layout
    limit = measure_size(layout, px.start, target.measure) * (1 - target.removed)

    def support(num_kept: int) -> Support:
        return make_support(trained, pick(num_kept))

    if measure_size(layout, support(0), target.measure) > limit:
        raise explain_miss(px, layout, target, support(0))
    low, high = 0, total
    while low < high:
        middle = (low + high + 1) // 2
        fits = measure_size(layout, support(middle), target.measure) <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return dict(pick(low))


def make_support(trained: Trained, stays: Mapping[str, Tensor]) -> Support:
    """Return the support of a model in which only some channels of some groups stay."""
    keep = {name: bits.nonzero().flatten() for name, bits in stays.items() if not bool(bits.all())}
    return Support({**trained.support.keep, **keep}, trained.support.mask)
