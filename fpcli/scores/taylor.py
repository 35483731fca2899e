"""Taylor score: how much the loss would change, to first order, if a filter were 0."""

from __future__ import annotations

import torch
from torch import Tensor

from fpcli.scores.producers import sum_scores
from fpcli.scores.sample import Sample
from fpcli.structure.layout import Layout, Tensors


def taylor(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by :func:`measure_saliency`, averaged over the batches of a sample.

    The network is in evaluation mode; the loss is that of what is learned, for classes the mean
    cross-entropy. What the loss draws, the sample's seed draws.

    Returns:
        Prunable group -> ``[width]``, larger = keep.
    """
    model = sample.module(values)
    parameters = dict(model.named_parameters())
    totals = {name: torch.zeros(group.width) for name, group in layout.prunable.items()}
    for batch in sample.batches:
        loss = sample.loss(model, batch)
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients = {
            name: grad for name, grad in zip(parameters, grads, strict=True) if grad is not None
        }
        for name, size in measure_saliency(layout, values, gradients).items():
            totals[name] = totals[name] + size / len(sample.batches)
    return totals


def measure_saliency(
    layout: Layout, values: Tensors, gradients: Tensors, *, with_bias: bool = True
) -> dict[str, Tensor]:
    """Return the absolute first-order change of one batch's loss when a filter is set to 0.

    That is ``|sum over the filter of gradient * weight|``: the absolute value stands outside the
    sum. Layers that make one group (residual sums) add up.

    Args:
        layout: the groups.
        values: dense tensors.
        gradients: of the loss; a weight without one counts as 0.
        with_bias: the filter's bias leaves with it, and counts inside the sum.

    Returns:
        Prunable group -> ``[width]``.

    Source: Lin et al., "Accelerating Convolutional Networks via Global & Dynamic Filter Pruning",
    IJCAI 2018; the bias as in its official code.
    """
    per_layer: dict[str, Tensor] = {}
    for group in layout.prunable.values():
        for member in group.members:
            if not member.produces:
                continue
            layer = member.tensor.rpartition(".")[0]
            change = _product(values, gradients, member.tensor)
            change = change.movedim(member.dim, 0).flatten(1).sum(1)
            bias = f"{layer}.bias".lstrip(".")
            if with_bias and bias in values:
                change = change + _product(values, gradients, bias)
            per_layer[layer] = change.abs()
    return sum_scores(layout, per_layer)


def _product(values: Tensors, gradients: Tensors, name: str) -> Tensor:
    value = values[name].detach()
    return value * gradients[name] if name in gradients else torch.zeros_like(value)
