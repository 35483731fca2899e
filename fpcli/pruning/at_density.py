"""Masks of single weights with a density that is given: what adaptive pruning is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fpcli.engine.measure import measure_gradients
from fpcli.scores.gradients import snip
from fpcli.structure.budget import keep_largest
from fpcli.structure.layout import Tensors
from fpcli.tasks.learning_task import Batch


def prune_once(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    names: Sequence[str],
    score: Literal["snip", "random"],
    density: float,
    rng: Callable[[str], torch.Generator],
) -> dict[str, Tensor]:
    """Return masks that are chosen ahead of training, over all tensors together.

    Args:
        names: the weights that get masks.
        score: SNIP's on the batches, or chance.
        rng: stream of a tensor, by name; only chance draws from it.
    """
    weights = {name: w for name, w in model.named_parameters() if name in names}
    if score == "random":
        scores = {name: torch.rand(w.shape, generator=rng(name)) for name, w in weights.items()}
    else:
        scores = snip(weights, [measure_gradients(model, loss(model, batch)) for batch in batches])
    return keep_largest({name: score.cpu() for name, score in scores.items()}, density)


def shrink_towards(
    values: Tensors, masks: Tensors, density: float, progress: float
) -> dict[str, Tensor]:
    """Return the masks of one step of iterative pruning: the largest of what is alive.

    Args:
        density: share of weights that is alive at the end.
        progress: share of the steps that is done with this one; beyond 1 nothing changes. Every
            step leaves the same share of what it finds.

    >>> alive = {"w": torch.tensor([True, True, True, False])}
    >>> shrink_towards({"w": torch.tensor([1.0, -3.0, 2.0, 9.0])}, alive, 0.25, 0.5)
    {'w': tensor([False,  True,  True, False])}
    """
    sizes = {name: torch.where(mask, values[name].abs(), -1.0) for name, mask in masks.items()}
    return keep_largest(sizes, density ** min(1.0, progress))
