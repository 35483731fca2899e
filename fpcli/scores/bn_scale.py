"""Score of batch norm: how much a channel is scaled behind it (network slimming)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fpcli.errors import RecipeError
from fpcli.scores.magnitude import l1
from fpcli.structure.layout import Group, Layout, Member, Tensors


def bn_scale(layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Score every channel by the absolute scale of the batch norm that it goes through.

    Args:
        layout: the groups.
        values: dense tensors; only the scales of batch norms are read.

    Returns:
        Prunable group -> ``[width]``, larger = keep. Groups without batch norm are absent; several
        batch norms of one group (residual sums) add up.

    Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV
    2017, section 3.

    >>> from fpcli.structure.layout import Group, Member, TensorSpec
    >>> index = torch.arange(2).reshape(2, 1)
    >>> tensors = {"n.weight": TensorSpec((2,), True), "n.running_mean": TensorSpec((2,), False)}
    >>> layout = Layout(tensors, {"conv": Group("conv", 2, (Member("n.weight", 0, index),))})
    >>> bn_scale(layout, {"n.weight": torch.tensor([0.5, -2.0])})
    {'conv': tensor([0.5000, 2.0000])}
    """
    scores = {}
    for name, group in layout.prunable.items():
        parts = [values[at.tensor].abs()[at.index].sum(1) for at in locate_scales(layout, group)]
        if parts:
            scores[name] = torch.stack(parts).sum(0)
    return scores


def locate_scales(layout: Layout, group: Group) -> list[Member]:
    """Return where a group's channels lie in the scales of the batch norms they go through."""
    return [
        member
        for member in group.members
        if f"{member.tensor.removesuffix('.weight')}.running_mean" in layout.tensors
    ]


def bn_scale_or_l1(layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Score every channel by :func:`bn_scale`, or by its l1 norm where no batch norm follows.

    The norms are divided by their mean over the group, to lie around 1 where the scales of batch
    norms start; within a group that changes no order.

    Returns:
        Prunable group -> ``[width]``, larger = keep.

    Raises:
        RecipeError: no group goes through batch norm.
    """
    scores = bn_scale(layout, values)
    if not scores:
        raise RecipeError(
            "score `bn-scale` needs a network with batch norm",
            hint="choose another score, such as l1",
        )
    norms = l1(layout, values)
    return {
        name: scores[name] if name in scores else norms[name] / norms[name].mean().clamp(min=1e-30)
        for name in layout.prunable
    }


def choose_above_share(scores: Tensor, share: float, floor: int, *, is_strict: bool) -> Tensor:
    """Choose the channels of one group whose score lies above the given share of all scores.

    Args:
        scores: ``[channels]``, larger = keep.
        share: fraction to remove, in [0, 1); 0 removes nothing.
        floor: if fewer channels than this would stay, all stay.
        is_strict: also remove the channel at the threshold: ``int(channels * share) + 1`` go.

    Returns:
        bool ``[channels]``, True where a channel stays.

    Source: Sub-FedAvg (ICDCSW 2021), official code (strict).

    >>> scores = torch.tensor([0.5, 0.1, 0.3, 0.4])
    >>> choose_above_share(scores, 0.25, 1, is_strict=True).tolist()
    [True, False, False, True]
    >>> choose_above_share(scores, 0.25, 3, is_strict=True).tolist()
    [True, True, True, True]
    """
    everything = torch.ones(len(scores), dtype=torch.bool)
    if len(scores) <= floor or not share:
        return everything
    threshold = scores.sort().values[int(len(scores) * share)]
    keep = scores > threshold if is_strict else scores >= threshold
    return keep if int(keep.sum()) >= floor else everything


def add_l1(model: nn.Module, strength: float) -> None:
    """Add the gradient of an l1 penalty on batch-norm scales, which tells strong channels apart.

    Args:
        model: whose gradients are there.
        strength: weight of the penalty, 0 or more.

    Source: Liu et al., ICCV 2017, equation 1.

    >>> model = nn.BatchNorm1d(2)
    >>> model.weight.grad = torch.zeros(2)
    >>> add_l1(model, 0.5)
    >>> model.weight.grad
    tensor([0.5000, 0.5000])
    """
    for part in model.modules():
        if isinstance(part, _BatchNorm) and part.affine and part.weight.grad is not None:
            part.weight.grad.add_(part.weight.detach().sign(), alpha=strength)
