"""Magnitude scores: how large the filters are that make a channel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fpcli.structure.layout import Group, Layout, Tensors


def l1(layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Score every channel by the sum of the absolute weights of its filters.

    Args:
        layout: the groups.
        values: dense tensors; all of a filter counts, whatever is pruned already.

    Returns:
        Prunable group -> ``[width]``, larger = keep. Layers that share a group (residual sums,
        depthwise convolutions) add up; biases and normalisation do not count.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1; the rule of
    FedMP (ICDE 2022).

    >>> from fpcli.structure.layout import Member, TensorSpec
    >>> rows = Member("fc.weight", 0, torch.arange(2).reshape(2, 1), produces=True)
    >>> layout = Layout({"fc.weight": TensorSpec((2, 2), True)}, {"fc": Group("fc", 2, (rows,))})
    >>> l1(layout, {"fc.weight": torch.tensor([[3.0, -4.0], [1.0, 0.0]])})
    {'fc': tensor([7., 1.])}
    """
    return {name: _per_channel(group, values, torch.abs) for name, group in layout.prunable.items()}


def l2(layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Score every channel by the Euclidean norm of all weights of its filters.

    Args:
        layout: the groups.
        values: dense tensors.

    Returns:
        Prunable group -> ``[width]``, larger = keep.

    >>> from fpcli.structure.layout import Member, TensorSpec
    >>> rows = Member("fc.weight", 0, torch.arange(2).reshape(2, 1), produces=True)
    >>> layout = Layout({"fc.weight": TensorSpec((2, 2), True)}, {"fc": Group("fc", 2, (rows,))})
    >>> l2(layout, {"fc.weight": torch.tensor([[3.0, -4.0], [1.0, 0.0]])})
    {'fc': tensor([5., 1.])}
    """
    return {
        name: _per_channel(group, values, torch.square).sqrt()
        for name, group in layout.prunable.items()
    }


def _per_channel(group: Group, values: Tensors, size: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(group.width)
    for member in group.members:
        if member.produces:
            weight = values[member.tensor].movedim(member.dim, 0).flatten(1)
            total += size(weight).sum(1)[member.index].sum(1)
    return total
