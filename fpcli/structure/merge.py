"""Merge: the weighted mean of deltas that cover different parts of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fpcli.errors import ClientError
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Positions, Support, cut, scatter

Absent = Literal["skip", "keep", "zero"]


@dataclass(frozen=True, eq=False)
class Contribution:
    """What one client adds to a merge.

    Attributes:
        support: the coordinates it holds.
        delta: trained minus received values, block tensors of ``support``; off its mask ignored.
        weight: not normalised, for instance the number of its examples; the sum must be positive.
    """

    support: Support
    delta: Tensors
    weight: float


def merge(
    layout: Layout,
    values: Tensors,
    contributions: Sequence[Contribution],
    *,
    absent: Absent = "skip",
    server_lr: float = 1.0,
) -> dict[str, Tensor]:
    """Add the weighted mean of the deltas to the values, summed in the order given.

    Args:
        layout: what names and channels mean.
        values: dense tensors that the clients' blocks were cut from; not modified.
        contributions: at least one.
        absent: what a client means by its silence about a coordinate. ``skip``: no opinion, the
            mean is over its holders and nobody's coordinate stays. ``keep``: no change, the mean is
            over everybody. ``zero``: the value 0, the mean is over everybody.
        server_lr: factor on the change.

    Returns:
        New dense tensors. Where every contribution covers a tensor the three rules give equal bits.

    Raises:
        ClientError: there is nothing to merge, or the weights do not sum to more than 0.

    Source: ``keep`` is the residual recovery (R2SP) of FedMP (ICDE 2022), ``skip`` the aggregation
    of HeteroFL (ICLR 2021), ``zero`` the mean of zero-filled models of FedSparsify (2022).

    >>> from fpcli.structure.layout import Group, Member, TensorSpec
    >>> unit = Member("b", 0, torch.arange(2).reshape(2, 1))
    >>> layout = Layout({"b": TensorSpec((2,), True)}, {"g": Group("g", 2, (unit,))})
    >>> both = Contribution(Support(), {"b": torch.tensor([1.0, 1.0])}, 1.0)
    >>> first = Contribution(Support({"g": torch.tensor([0])}), {"b": torch.tensor([2.0])}, 1.0)
    >>> merge(layout, {"b": torch.tensor([10.0, 10.0])}, [both, first])["b"].tolist()
    [11.5, 11.0]
    """
    total = _total(contributions)
    counted: dict[object, Tensor] = {}
    new: dict[str, Tensor] = {}
    for name in layout.tensors:
        change = torch.zeros_like(values[name])
        for contribution in contributions:
            _add(change, contribution, name, contribution.support.axes(layout)[name])
        if absent == "keep":
            held = total
        else:
            held = _holders(layout, name, contributions, counted)
        new[name] = _apply(values[name], change, held, total, absent, server_lr)
    return new


def _total(contributions: Sequence[Contribution]) -> Tensor:
    """Return the sum of the weights, in float32 like `_holders`: a full share is exactly 1."""
    total = torch.zeros(())
    for contribution in contributions:
        total += contribution.weight
    if not total > 0:
        raise ClientError("nothing to merge", hint="the weights of the replies must sum to > 0")
    return total


def _apply(
    old: Tensor, change: Tensor, held: Tensor, total: Tensor, absent: Absent, server_lr: float
) -> Tensor:
    """Return the new values; ``change`` is used up, ``held`` broadcasts to its shape."""
    divisor = torch.where(held > 0, held, 1.0) if absent == "skip" else total
    change /= divisor.to(old.dtype)
    if server_lr != 1.0:
        change *= server_lr
    if absent == "zero" and not bool((held == total).all()):
        old = old * (1.0 - server_lr * (1.0 - held / total)).to(old.dtype)
    return change.add_(old)


def _holders(
    layout: Layout,
    name: str,
    contributions: Sequence[Contribution],
    counted: dict[object, Tensor],
) -> Tensor:
    """Return the weight of those who hold each coordinate, in a shape that broadcasts.

    Tensors whose axes are cut alike (the entries of one normalisation) share the result.
    """
    rows = [contribution.support.axes(layout)[name] for contribution in contributions]
    masks = [contribution.support.mask.get(name) for contribution in contributions]
    key = tuple(tuple(id(kept) for kept in positions) for positions in rows)
    is_masked = any(mask is not None for mask in masks)
    if key in counted and not is_masked:
        return counted[key]
    held = torch.zeros(())
    for contribution, positions, mask in zip(contributions, rows, masks, strict=True):
        more = _coverage(positions, layout.tensors[name].shape, mask, contribution.weight)
        held = held.add_(more) if held.shape == more.shape else held + more
    if not is_masked:
        counted[key] = held
    return held


def _add(dense: Tensor, contribution: Contribution, name: str, positions: Positions) -> None:
    """Add one contribution's weighted delta at its positions, in place."""
    delta, mask = contribution.delta[name], contribution.support.mask.get(name)
    if mask is not None:
        delta = torch.where(cut(mask, positions), delta, torch.zeros_like(delta))
    cut_dims = [dim for dim, kept in enumerate(positions) if kept is not None]
    if not cut_dims:
        dense.add_(delta, alpha=contribution.weight)
        return
    first = cut_dims[0]
    kept = positions[first]
    assert kept is not None
    rest = tuple(None if dim == first else other for dim, other in enumerate(positions))
    dense.index_add_(first, kept, scatter(delta, rest, dense.shape), alpha=contribution.weight)


def _coverage(
    positions: Positions, shape: Sequence[int], mask: Tensor | None, weight: float
) -> Tensor:
    """Return {0, weight} that broadcasts to the dense shape; length 1 where an axis is whole."""
    covered = torch.full((), weight) if mask is None else mask * torch.full((), weight)
    for dim, kept in enumerate(positions):
        if kept is not None:
            line = torch.zeros(shape[dim]).index_fill_(0, kept, 1.0)
            covered = covered * line.reshape(-1, *[1] * (len(shape) - dim - 1))
    return covered


def interpolate(start: Tensors, end: Tensors, share: float) -> dict[str, Tensor]:
    """Return ``start + share (end - start)``; after plain SGD from start to end this is ``share``
    times its number of steps with its mean gradient (FedDUAP, equations 2 and 4)."""
    return {name: x + share * (end[name] - x) for name, x in start.items()}
