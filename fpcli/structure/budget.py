"""Masks of single weights under a budget: a number of weights, or seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fpcli.structure.layout import Layout, Tensors


def list_masked_weights(layout: Layout) -> list[str]:
    """Return the names of the weights that masks are for, in the layout's order.

    They are the weights of all convolutions and linear layers, first and last included, without
    1x1 convolutions called ``shortcut`` or ``downsample``, and other factors of products: matrices
    of attention and recurrent layers, complex filters (``structure.pairs``), tables of embeddings
    that score the output. Biases, normalisation and embeddings that are only added have no mask.

    Source: the prunable set of PruneFL's official code, whose networks have none of the others.

    >>> from fpcli.structure.layout import TensorSpec
    >>> specs = {"fc.weight": TensorSpec((3, 2), True, 1.0), "fc.bias": TensorSpec((3,), True)}
    >>> list_masked_weights(Layout(specs, {}))
    ['fc.weight']
    """
    return [
        name
        for name, spec in layout.tensors.items()
        if spec.is_parameter and spec.uses > 0 and len(spec.shape) > 1
        if spec.shape[2:] != (1, 1) or not ("shortcut" in name or "downsample" in name)
    ]


def find_embeddings(template: nn.Module) -> list[str]:
    """Return the names of a network's embedding tables."""
    tables = (name for name, part in template.named_modules() if isinstance(part, nn.Embedding))
    return [f"{name}.weight" for name in tables]


def keep_largest(scores: Tensors, density: float) -> dict[str, Tensor]:
    """Return masks of the weights with the highest scores, ranked over all tensors together.

    Args:
        scores: any shapes; of equal scores the earlier tensor and the smaller flat index win.
        density: share of all weights that stays, rounded to whole weights, at least one.

    >>> keep_largest({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0, 2.0]])}, 0.5)
    {'a': tensor([ True, False]), 'b': tensor([[ True, False]])}
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    order = flat.sort(descending=True, stable=True).indices
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[order[: max(1, round(density * len(flat)))]] = True
    return _parts(chosen, scores)


def drop_smallest(scores: Tensors, rate: float, *, splits_ties: bool = True) -> dict[str, Tensor]:
    """Return masks without the weights of the lowest scores, ranked over all tensors together.

    Args:
        scores: any shapes; of equal scores the earlier tensor and the smaller flat index leave.
        rate: share of all weights that leaves, in [0, 1), rounded down to whole weights.
        splits_ties: False lets all stay that are equal to the lowest score that stays, so that
            fewer may leave.

    >>> drop_smallest({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0, 2.0]])}, 0.5)
    {'a': tensor([ True, False]), 'b': tensor([[False,  True]])}
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    ranked, order = flat.sort(stable=True)
    num_leaving = math.floor(rate * len(flat) + 1e-9)
    if not splits_ties:
        return _parts(flat >= ranked[num_leaving], scores)
    stays = torch.ones_like(flat, dtype=torch.bool)
    stays[order[:num_leaving]] = False
    return _parts(stays, scores)


def reconfigure(
    weights: Tensors,
    masks: Tensors,
    importance: Tensors,
    weight_s: Mapping[str, float],
    constant_s: float,
    *,
    share: float,
    max_density: float = 1.0,
) -> dict[str, Tensor]:
    """Return the masks with the greatest importance per second of a round.

    The smallest alive weights of every layer, and all dead ones, are candidates; the rest stays.
    Candidates enter in the order of their importance per second, as long as it is higher than that
    of everything that is in: the exact maximum over all subsets of the candidates.

    Args:
        weights: values of the masked tensors; those of dead weights do not matter.
        masks: bool, True = alive, for every name of ``weight_s``.
        importance: not negative. Tensors without a mask count for the whole.
        weight_s: tensor name -> seconds of a round per alive weight.
        constant_s: seconds of a round that no mask shortens.
        share: of a layer's alive weights that may leave, in [0, 1), rounded down to whole weights.
            With ties at the threshold fewer are candidates.
        max_density: nothing enters beyond this share of all weights; what stays may exceed it.

    Source: PruneFL (Jiang et al., TNNLS 2023), adaptive pruning, with the official code's rules;
    differs: the density limit is exact, and running out of candidates is no error.

    >>> one = {"w": torch.tensor([4.0, 3.0, 0.1, 0.2])}
    >>> alive = {"w": torch.tensor([True, True, True, False])}
    >>> gain = {"w": torch.tensor([2.0, 2.0, 0.5, 3.0])}
    >>> reconfigure(one, alive, gain, {"w": 1.0}, 1.0, share=0.4)
    {'w': tensor([ True,  True, False,  True])}
    """
    cores, places, gains, costs, size = [], [], [], [], 0
    total = math.fsum(_sum(x) for name, x in importance.items() if name not in weight_s)
    total_s = constant_s
    for name, seconds in weight_s.items():
        scores = importance[name].flatten().double()
        core = _core(weights[name].flatten().abs(), masks[name].flatten(), share)
        place = (~core).nonzero().flatten()
        gain, order = scores[place].sort(descending=True, stable=True)
        total += _sum(scores[core])
        total_s += seconds * int(core.sum())
        cores.append(core)
        places.append(place[order] + size)
        gains.append(gain)
        costs.append(torch.full_like(gain, seconds))
        size += len(core)
    chosen, gain, cost = torch.cat(cores), torch.cat(gains), torch.cat(costs)
    value = torch.where(gain > 0, gain / cost, -math.inf)
    order = value.sort(descending=True, stable=True).indices
    gain, cost = gain[order], cost[order]
    before, before_s = total + gain.cumsum(0) - gain, total_s + cost.cumsum(0) - cost
    enters = gain * before_s > before * cost
    room = max(0, math.floor(max_density * size + 1e-9) - int(chosen.sum()))
    num = min(room, int(enters.long().cumprod(0).sum()))
    chosen[torch.cat(places)[order[:num]]] = True
    return _parts(chosen, {name: masks[name] for name in weight_s})


def _core(sizes: Tensor, mask: Tensor, share: float) -> Tensor:
    """Return which weights may not leave: alive, and not among the smallest."""
    alive = sizes[mask]
    if not len(alive):
        return mask
    return mask & (sizes >= alive.kthvalue(int(share * len(alive)) + 1).values)


def _sum(x: Tensor) -> float:
    return float(x.double().sum())


def _parts(flat: Tensor, like: Tensors) -> dict[str, Tensor]:
    """Cut a flat mask into the shapes of some tensors."""
    pieces = flat.split([x.numel() for x in like.values()])
    return {
        name: piece.view(x.shape).clone()
        for (name, x), piece in zip(like.items(), pieces, strict=True)
    }
