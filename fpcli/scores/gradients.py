"""Importance of single weights, from gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fpcli.structure.layout import Tensors

SquareRule = Literal["sum", "last", "step_sq"]


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
        name: (weight.detach() * sum(batch[name] for batch in gradients)).abs()
        for name, weight in weights.items()
    }


class GradientTotals:
    """What is known of the gradients of some weights over the steps of a round.

    Args:
        weights: those that count; a weight without a gradient adds nothing.
        rule: ``sum`` adds gradients, ``last`` keeps the latest one, ``step_sq`` adds squares.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], rule: SquareRule) -> None:
        self._weights, self._rule = weights, rule
        self._totals = {name: torch.zeros_like(x.detach()) for name, x in weights.items()}

    def add(self, _: nn.Module) -> None:
        """Add the gradients of one more step; a hook for the training loop."""
        for name, weight in self._weights.items():
            if weight.grad is None:
                continue
            if self._rule == "last":
                self._totals[name] = weight.grad.clone()
            else:
                self._totals[name] += (
                    weight.grad.square() if self._rule == "step_sq" else weight.grad
                )

    def importance(self, num_samples: int) -> dict[str, Tensor]:
        """Return samples times what was added up, squared where it is not yet, on the CPU."""
        is_square = self._rule == "step_sq"
        return {
            name: (num_samples * total if is_square else square_gradients(total, num_samples)).cpu()
            for name, total in self._totals.items()
        }


def square_gradients(total: Tensor, num_samples: int) -> Tensor:
    """Return the importance of one client's round: samples times the sum of gradients, squared.

    Source: PruneFL's official code.

    >>> square_gradients(torch.tensor([3.0]), 2)
    tensor([18.])
    """
    return num_samples * total.square()


def place_values(flat: Tensor | None, place: Tensor) -> Tensor:
    """Put flat values at the True positions of a mask, row-major; zeros if they do not fit it.

    >>> place_values(torch.tensor([5.0]), torch.tensor([[False, True]]))
    tensor([[0., 5.]])
    """
    zeros = torch.zeros(place.shape)
    if flat is None or flat.shape != (int(place.sum()),) or flat.dtype != zeros.dtype:
        return zeros
    return zeros.masked_scatter(place, flat)
