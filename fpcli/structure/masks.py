"""Masks: which weights or channels stay, and how much two clients have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Support


def drop_percentile(values: Tensor, mask: Tensor, percent: float) -> Tensor:
    """Drop the alive weights whose size lies below a percentile of the alive weights' sizes.

    Args:
        values: one tensor, float32 on the CPU.
        mask: bool of its shape; alive are weights that are on the mask and not 0.
        percent: in [0, 100]; between two weights the percentile is interpolated linearly.

    Returns:
        The new mask, within the old one. The largest weight always stays, and equal weights stay
        together; where no weight is alive the mask stays as it is.

    >>> weights = torch.tensor([0.9, -0.1, 0.4, -0.7, 0.0])
    >>> drop_percentile(weights, torch.tensor([True, True, True, True, False]), 40.0).tolist()
    [True, False, False, True, False]
    """
    size = values.abs()
    alive = size[mask & (values != 0)]
    if not len(alive):
        return mask
    return mask & (size >= float(np.percentile(alive.numpy(), percent)))


def count_votes(supports: Sequence[Support], dense: Tensors) -> dict[str, Tensor]:
    """Return by how many supports every entry of some tensors is held, int64.

    Args:
        supports: one or more, without removed channels.
        dense: gives names and shapes.

    >>> one, other = Support(mask={"a": torch.tensor([True, False])}), Support()
    >>> count_votes([one, other], {"a": torch.zeros(2)})
    {'a': tensor([2, 1])}
    """
    held = [support.masks_of(dense) for support in supports]
    return {name: torch.stack([masks[name] for masks in held]).sum(0) for name in dense}


def measure_distance(first: Tensors, other: Tensors) -> float:
    """Return the share of entries that differ, as the plain mean over the tensors; 0 for none.

    >>> one, other = torch.tensor([True, True]), torch.tensor([True, False])
    >>> measure_distance({"a": one, "b": one}, {"a": one, "b": other})
    0.25
    """
    shares = [float((first[name] != other[name]).double().mean()) for name in first]
    return sum(shares) / len(shares) if shares else 0.0


def narrow_support(layout: Layout, support: Support, stay: Tensors) -> Support:
    """Return a support with only some of its channels.

    Args:
        layout: the groups.
        support: what is alive now.
        stay: group name -> bool, one entry per channel that ``support`` keeps.

    >>> from fpcli.structure.layout import Group
    >>> layout = Layout({}, {"conv": Group("conv", 4, ())})
    >>> support = Support({"conv": torch.tensor([0, 2, 3])})
    >>> narrow_support(layout, support, {"conv": torch.tensor([True, False, True])}).keep
    {'conv': tensor([0, 3])}
    """
    whole = {name: torch.arange(layout.groups[name].width) for name in stay}
    keep = {name: support.keep.get(name, whole[name])[stay[name]] for name in stay}
    return Support({**support.keep, **keep}, support.mask)


def measure_overlaps(
    layout: Layout, supports: Mapping[int, Support], share_labels: Callable[[int, int], bool]
) -> dict[str, float]:
    """Return how many weights two clients share, of those that at least one of them holds.

    Args:
        layout: what names and channels mean; weights are its parameters of 2 and more dimensions.
        supports: what each client holds.
        share_labels: tells whether two clients have a class in common.

    Returns:
        Intersection over union in [0, 1]: ``overlap``, the mean over all pairs, and
        ``overlap_shared_labels`` and ``overlap_other_labels`` over those with and without a class
        in common. What there are no pairs for is left out.

    >>> from fpcli.structure.layout import TensorSpec
    >>> layout = Layout({"w": TensorSpec((2, 2), True)}, {})
    >>> masks = ([[1, 1], [1, 0]], [[0, 1], [1, 1]], [[0, 0], [1, 1]])
    >>> held = {n: Support(mask={"w": torch.tensor(m) > 0}) for n, m in enumerate(masks)}
    >>> found = measure_overlaps(layout, held, lambda one, other: {one, other} == {0, 1})
    >>> {name: round(share, 4) for name, share in found.items()}
    {'overlap': 0.4722, 'overlap_shared_labels': 0.5, 'overlap_other_labels': 0.4583}
    """
    holdings = {}
    for client, support in supports.items():
        ones = {
            name: torch.ones(shape)
            for name, shape in support.block_shapes(layout).items()
            if len(shape) > 1 and layout.tensors[name].is_parameter
        }
        _, held = support.scatter(layout, ones)
        holdings[client] = torch.cat([part.flatten() for part in held.values()])
    shares: dict[str, list[float]] = {
        "overlap": [], "overlap_shared_labels": [], "overlap_other_labels": [],
    }  # fmt: skip
    for first, other in combinations(holdings, 2):
        both, either = holdings[first] * holdings[other], holdings[first] + holdings[other]
        share = float(both.sum() / either.clamp(max=1.0).sum())
        kind = "shared_labels" if share_labels(first, other) else "other_labels"
        shares["overlap"].append(share)
        shares[f"overlap_{kind}"].append(share)
    return {name: fmean(values) for name, values in shares.items() if values}
