"""Rank the channels of several groups together, and find how many may stay under a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fpcli.engine.trained import Trained
from fpcli.errors import CheckError
from fpcli.pruning.method import Target
from fpcli.structure.cost import cost
from fpcli.structure.layout import Group
from fpcli.structure.support import Support


def alive(trained: Trained, group: Group) -> Tensor:
    """Return which channels of a group are there, bool ``[width]``."""
    kept = trained.support.keep.get(group.name)
    if kept is None:
        return torch.ones(group.width, dtype=torch.bool)
    return torch.zeros(group.width, dtype=torch.bool).index_fill_(0, kept, True)


def top(
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
    >>> [bits.tolist() for bits in top(scores, 3, 1).values()]
    [[True, False, True], [True, False]]
    >>> [bits.tolist() for bits in top(scores, 2, 0).values()]
    [[True, False, True], [False, False]]
    >>> [bits.tolist() for bits in top(scores, 2, 1).values()]
    [[True, False, False], [True, False]]
    """
    first = []
    for score in scores.values():
        best = _descending(score, is_first_kept)[:least]
        first.append(torch.zeros(len(score), dtype=torch.bool).index_fill_(0, best, True))
    flat, must = torch.cat(list(scores.values())), torch.cat(first)
    order = _descending(flat, is_first_kept)
    order = torch.cat([order[must[order]], order[~must[order]]])
    stays = torch.zeros_like(must)
    stays[order[: max(num_kept, int(must.sum()))]] = True
    stays &= flat > -math.inf
    return dict(zip(scores, stays.split([len(x) for x in scores.values()]), strict=True))


def _descending(score: Tensor, is_first_kept: bool) -> Tensor:
    if is_first_kept:
        return score.sort(descending=True, stable=True).indices
    return score.sort(stable=True).indices.flip(0)


def most_within(
    trained: Trained, target: Target, pick: Callable[[int], Mapping[str, Tensor]], total: int
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
    full = getattr(cost(trained.layout, Support()), target.measure)

    def left(num_kept: int) -> float:
        keep = {name: bits.nonzero().flatten() for name, bits in pick(num_kept).items()}
        found = cost(trained.layout, Support({**trained.support.keep, **keep}))
        return float(getattr(found, target.measure)) / full

    wanted = 1 - target.removed
    if left(0) > wanted:
        raise CheckError(
            f"{target.measure} cannot fall by {target.removed:.1%}: this method and network reach "
            f"{1 - left(0):.1%} at most",
            hint="ask for less",
        )
    low, high = 0, total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left(middle) <= wanted else (low, middle - 1)
    return dict(pick(low))
