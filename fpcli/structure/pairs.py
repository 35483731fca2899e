"""Pairs: complex numbers, stored as a real and an imaginary part on a tensor's last axis.

An entry of such a tensor is one weight: both parts stay, or both leave. What ranks weights is to
see one score per entry, and gives one bit per entry back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from fpcli.structure.budget import reconfigure
from fpcli.structure.layout import Layout, Tensors, TensorSpec


def find_real_rows(
    model: nn.Module, names: Collection[str], batch: Tensor
) -> dict[str, tuple[int, ...]]:
    """Return the rows of complex parameters whose imaginary parts have no effect, by no gradient.

    Of a filter of frequencies they are the frequency 0, and L/2 where the length L is even.

    Args:
        model: in evaluation mode, in which dropout hides nothing.
        names: the complex parameters.
        batch: of random inputs.
    """
    weights = {name: w for name, w in model.named_parameters() if name in names}
    if not weights:
        return {}
    with torch.enable_grad():
        output = model(batch)
        generator = torch.Generator().manual_seed(0)
        loss = (output * torch.randn(output.shape, generator=generator).to(output)).sum()
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    return {
        name: tuple((x[..., 1].reshape(len(x), -1) == 0).all(1).nonzero().flatten().tolist())
        for name, x in zip(weights, gradients, strict=True)
    }


def mark_useful(spec: TensorSpec) -> Tensor:
    """Return which numbers of a tensor have an effect: bool of its shape.

    >>> mark_useful(TensorSpec((2, 1, 2), True, 2.0, real_rows=(0,))).tolist()
    [[[True, False]], [[True, True]]]
    """
    useful = torch.ones(spec.shape, dtype=torch.bool)
    if spec.real_rows:
        useful[list(spec.real_rows), ..., 1] = False
    return useful


def measure_entries(layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Return the magnitude of every entry: of a complex one that of the parts with an effect.

    Args:
        values: dense; one that is complex loses its last axis.

    >>> layout = Layout({"w": TensorSpec((2, 1, 2), True, 2.0, real_rows=(0,))}, {})
    >>> measure_entries(layout, {"w": torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]])})["w"].tolist()
    [[3.0], [5.0]]
    """
    sizes = {}
    for name, x in values.items():
        spec = layout.tensors[name]
        useful = torch.where(mark_useful(spec), x, 0.0) if spec.is_complex else x
        sizes[name] = useful.norm(dim=-1) if spec.is_complex else x.abs()
    return sizes


def sum_entries(layout: Layout, scores: Tensors) -> dict[str, Tensor]:
    """Return a score for every entry: of a complex one the sum over its parts with an effect.

    >>> layout = Layout({"w": TensorSpec((2, 1, 2), True, 2.0, real_rows=(0,))}, {})
    >>> sum_entries(layout, {"w": torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]])})["w"].tolist()
    [[3.0], [7.0]]
    """
    return {
        name: torch.where(mark_useful(layout.tensors[name]), x, 0.0).sum(-1)
        if layout.tensors[name].is_complex
        else x
        for name, x in scores.items()
    }


def mask_entries(layout: Layout, alive: Tensors) -> dict[str, Tensor]:
    """Return masks of the tensors from one bit per entry; parts without an effect are dead.

    >>> layout = Layout({"w": TensorSpec((2, 1, 2), True, 2.0, real_rows=(0,))}, {})
    >>> mask_entries(layout, {"w": torch.tensor([[True], [True]])})["w"].tolist()
    [[[True, False]], [[True, True]]]
    """
    return {
        name: bits[..., None] & mark_useful(layout.tensors[name])
        if layout.tensors[name].is_complex
        else bits
        for name, bits in alive.items()
    }


def choose_entries(
    layout: Layout,
    weights: Tensors,
    masks: Tensors,
    importance: Tensors,
    weight_s: Mapping[str, float],
    constant_s: float,
    *,
    share: float,
    max_density: float = 1.0,
) -> dict[str, Tensor]:
    """Return masks as :func:`structure.budget.reconfigure`, whose arguments these are, but with
    entries in place of numbers: the seconds of a complex one are those of its two parts.

    Source: PruneFL for real numbers; that both parts go together is ours.
    """
    names = {name: weights[name].detach() for name in weight_s}
    parts = {name: 2 if layout.tensors[name].is_complex else 1 for name in names}
    sums = sum_entries(layout, {name: importance[name] for name in names})
    chosen = reconfigure(
        measure_entries(layout, names),
        {name: masks[name].any(-1) if parts[name] == 2 else masks[name] for name in names},
        {**importance, **sums},
        {name: parts[name] * seconds for name, seconds in weight_s.items()},
        constant_s,
        share=share,
        max_density=max_density,
    )
    return mask_entries(layout, chosen)
