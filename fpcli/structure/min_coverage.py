"""Coverage: how many clients hold each coordinate of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fpcli.structure.layout import Layout
from fpcli.structure.support import Positions, Support, scatter


def count_least_holders(layout: Layout, supports: Sequence[Support]) -> int:
    """Return the smallest number of holders over all prunable parameters.

    Args:
        layout: the groups.
        supports: what each client of a round holds.

    Returns:
        An integer from 0 to ``len(supports)``. Prunable are parameters with a channel of an
        unprotected group, and parameters that some support masks.

    Source: the minimum coverage index of Zhou et al., "On the Convergence of Heterogeneous
    Federated Learning with Arbitrary Adaptive Online Model Pruning", 2022, for one round.

    >>> from fpcli.structure.layout import Group, Member, TensorSpec
    >>> rows = Member("w", 0, torch.arange(3).reshape(3, 1), produces=True)
    >>> layout = Layout({"w": TensorSpec((3, 2), True, 1.0)}, {"g": Group("g", 3, (rows,))})
    >>> count_least_holders(layout, [Support(), Support({"g": torch.tensor([0, 2])})])
    1
    """
    masked = {name for support in supports for name in support.mask}
    cut = {member.tensor for group in layout.prunable.values() for member in group.members}
    lowest = len(supports)
    for name, spec in layout.tensors.items():
        if spec.is_parameter and name in masked:
            lowest = min(lowest, int(_count(layout, name, supports).min()))
        elif spec.is_parameter and name in cut:
            lowest = min(lowest, _lowest(layout, name, supports))
    return lowest


def measure_rare_channels(layout: Layout, supports: Sequence[Support]) -> float:
    """Return the share of all prunable channels that fewer than two of some clients hold.

    Args:
        layout: the groups.
        supports: what each client of a round holds.

    Returns:
        From 0 to 1; 0 where nothing can be pruned.

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 4, ())})
    >>> measure_rare_channels(layout, [Support(), Support({"conv": torch.tensor([1])})])
    0.75
    """
    num_rare = 0
    for name, group in layout.prunable.items():
        kept = [(support.keep.get(name),) for support in supports]
        num_rare += int((_indicators(kept, 0, group.width).sum(0) < 2).sum())
    total = sum(group.width for group in layout.prunable.values())
    return num_rare / total if total else 0.0


def _count(layout: Layout, name: str, supports: Sequence[Support]) -> Tensor:
    """Return the number of holders of every element of a tensor."""
    shape = layout.tensors[name].shape
    total = torch.zeros(shape)
    for support in supports:
        positions = support.axes(layout)[name]
        sizes = [
            size if kept is None else len(kept) for size, kept in zip(shape, positions, strict=True)
        ]
        held = scatter(torch.ones(sizes), positions, shape)
        total += held * support.mask[name] if name in support.mask else held
    return total


def _lowest(layout: Layout, name: str, supports: Sequence[Support]) -> int:
    """Return the fewest holders of an element of an unmasked tensor.

    Its holders are those that have both its row and its column, which a product of two small
    matrices counts without building anything of the tensor's size.
    """
    shape = layout.tensors[name].shape
    rows = [support.axes(layout)[name] for support in supports]
    dims = [dim for dim in range(len(shape)) if any(row[dim] is not None for row in rows)]
    if not dims:
        return len(supports)
    if len(dims) > 2:
        return int(_count(layout, name, supports).min())
    first, *rest = [_indicators(rows, dim, shape[dim]) for dim in dims]
    return int((first.T @ rest[0]).min() if rest else first.sum(0).min())


def _indicators(rows: Sequence[Positions], dim: int, size: int) -> Tensor:
    """Return float ``[clients, size]``: 1 where a client holds a position of one axis."""
    held = torch.zeros(len(rows), size)
    for client, row in enumerate(rows):
        kept = row[dim]
        held[client] = 1.0 if kept is None else held[client].index_fill(0, kept, 1.0)
    return held
