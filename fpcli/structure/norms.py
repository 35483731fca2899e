"""Norms: the statistics of batch norm, taken from data after training (static batch norm).

A model that was trained with each batch's own statistics has no running ones. Here clients observe
them with the finished model, and a server puts what they saw together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fpcli.structure.layout import Tensors


@dataclass(frozen=True, eq=False)
class NormMoments:
    """Mean and variance per channel.

    Attributes:
        weight: how much they count: the number of batches, or of values if pooled.
        mean: ``[channels]``.
        var: ``[channels]``.
    """

    weight: float
    mean: Tensor
    var: Tensor


def combine_moments(parts: Sequence[NormMoments], *, is_pooled: bool) -> NormMoments:
    """Return the weighted mean of moments; pooled variances also count how far means are apart.

    >>> one, two = (NormMoments(1.0, torch.tensor([m]), torch.tensor([2.0])) for m in (2.0, 6.0))
    >>> whole = combine_moments([one, two], is_pooled=False)
    >>> whole.mean.item(), whole.var.item(), combine_moments([one, two], is_pooled=True).var.item()
    (4.0, 2.0, 6.0)
    """
    weights = torch.tensor([part.weight for part in parts], dtype=torch.float64)
    shares = (weights / weights.sum())[:, None]
    means = torch.stack([part.mean for part in parts]).double()
    spreads = torch.stack([part.var for part in parts]).double()
    mean = (shares * means).sum(0)
    if is_pooled:
        spreads = spreads + (means - mean).square()
    return NormMoments(float(weights.sum()), mean, (shares * spreads).sum(0))


@torch.no_grad()
def observe_norms(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, is_pooled: bool
) -> dict[str, Tensor]:
    """Observe the input of every batch norm while a model goes through batches.

    Args:
        model: batch norms use the statistics of the batch, everything else is in evaluation mode;
            it is of no further use.
        batches: images and labels.
        is_pooled: variance over all values at once, instead of the mean of the unbiased variances
            within batches.

    Returns:
        Per layer ``NAME.weight`` (a scalar) and ``NAME.moments`` (``[2, channels]``: mean and
        variance), float32.

    Source: static batch norm of HeteroFL (ICLR 2021); not pooled is what its cumulative average of
    batches comes to.

    >>> batches = [(torch.tensor([[1.0], [3.0]]), None)]
    >>> told = observe_norms(nn.BatchNorm1d(1), batches, is_pooled=False)
    >>> told[".weight"].item(), told[".moments"].flatten().tolist()
    (1.0, [2.0, 2.0])
    """
    seen: dict[str, list[NormMoments]] = {}

    def watch(name: str, norm: nn.Module) -> None:
        def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].transpose(0, 1).flatten(1)
            var, mean = torch.var_mean(x, 1, correction=0 if is_pooled else 1)
            weight = float(x.shape[1]) if is_pooled else 1.0
            seen.setdefault(name, []).append(NormMoments(weight, mean.cpu(), var.cpu()))

        norm.register_forward_hook(see)  # which a batch that the layer refuses does not reach

    model.eval()
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            watch(name, module.train())
    for x, _ in batches:
        model(x)
    observed: dict[str, Tensor] = {}
    for name, parts in seen.items():
        whole = combine_moments(parts, is_pooled=is_pooled)
        observed[f"{name}.weight"] = torch.tensor(whole.weight)
        observed[f"{name}.moments"] = torch.stack([whole.mean, whole.var]).float()
    return observed


def merge_statistics(observed: Sequence[Tensors], *, is_pooled: bool) -> dict[str, Tensor]:
    """Put together what several clients observed.

    Args:
        observed: one result of :func:`observe_norms` per client; a layer that a client has not
            seen is left to the others.
        is_pooled: as there.

    Returns:
        ``running_mean`` and ``running_var`` of every layer, float32; pooled variances unbiased.

    >>> told = {"n.weight": torch.tensor(2.0), "n.moments": torch.tensor([[1.0], [4.0]])}
    >>> stats = merge_statistics([told, told], is_pooled=True)
    >>> stats["n.running_mean"].item(), round(stats["n.running_var"].item(), 4)
    (1.0, 5.3333)
    """
    statistics: dict[str, Tensor] = {}
    keys = dict.fromkeys(key for client in observed for key in client if key.endswith(".weight"))
    for key in keys:
        name = key.removesuffix(".weight")
        parts = [
            NormMoments(float(client[key]), *client[f"{name}.moments"])
            for client in observed
            if key in client
        ]
        whole = combine_moments(parts, is_pooled=is_pooled)
        unbias = whole.weight / max(whole.weight - 1, 1) if is_pooled else 1.0
        statistics[f"{name}.running_mean"] = whole.mean.float()
        statistics[f"{name}.running_var"] = (whole.var * unbias).float()
    return statistics
