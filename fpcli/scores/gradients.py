"""Importance of single weights, from gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fpcli.structure.layout import Tensors

Rule = Literal["sum", "last", "step_sq"]


def snip(weights: Tensors, gradients: Sequence[Tensors]) -> dict[str, Tensor]:
    """Score every weight by the size of weight times gradient, at initial values.

    Args:
        weights: the tensors to score.
        gradients: per batch, of at least these tensors; they are added.

    Source: Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
    ICLR 2019; differs: not divided by the sum, which changes no ranking.

    >>> snip({"w": torch.tensor([2.0, -1.0])}, [{"w": torch.tensor([0.5, 3.0])}])
    {'w': tensor([1., 3.])}
    """
    return {
        name: (weight.detach() * sum(one[name] for one in gradients)).abs()
        for name, weight in weights.items()
    }


def accumulated(total: Tensor, gradient: Tensor, rule: Rule) -> Tensor:
    """Return what is known of a round's gradients after one more step.

    Args:
        rule: ``sum`` adds, ``last`` forgets the earlier ones, ``step_sq`` adds squares.

    >>> accumulated(torch.tensor([1.0]), torch.tensor([-3.0]), "step_sq")
    tensor([10.])
    """
    if rule == "last":
        return gradient.clone()
    return total + (gradient.square() if rule == "step_sq" else gradient)


def squared(total: Tensor, num_samples: int, rule: Rule) -> Tensor:
    """Return the importance of one client's round: samples times what was accumulated, squared.

    Source: PruneFL's official code, for rule ``sum``.

    >>> squared(torch.tensor([3.0]), 2, "sum"), squared(torch.tensor([3.0]), 2, "step_sq")
    (tensor([18.]), tensor([6.]))
    """
    return num_samples * (total if rule == "step_sq" else total.square())


def spread(flat: Tensor | None, place: Tensor) -> Tensor:
    """Put flat values at the True positions of a mask, row-major; zeros if they do not fit it.

    >>> spread(torch.tensor([5.0]), torch.tensor([[False, True]]))
    tensor([[0., 5.]])
    """
    zeros = torch.zeros(place.shape)
    if flat is None or flat.shape != (int(place.sum()),) or flat.dtype != zeros.dtype:
        return zeros
    return zeros.masked_scatter(place, flat)
