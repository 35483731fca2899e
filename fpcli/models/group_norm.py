"""Group norm in the place of batch norm, in groups that pruning can take out one by one."""

from __future__ import annotations

import math

from torch import nn

_OF_MAPS, _OF_NUMBERS = 4, 16
"""Channels that are normalised together, where they are images and where they are numbers."""


def replace_batch_norm(model: nn.Module) -> int:
    """Put group norm with the same initial scale and shift where a model has batch norm.

    Batch norm learns the statistics of each client's own mix of classes, which harms federated
    training on uneven data. Group norm has no statistics to learn.

    Four channels are normalised together, sixteen where a channel is a single number. Groups of
    one size, instead of a number of groups, are what pruning needs: a group leaves as a whole, the
    statistics of all others stay as they were, and a sub-model computes what the masked model
    does. The price is that channels leave by fours; small groups keep these steps fine (a quarter
    of the 16 channels in the first stage of `resnet20`). Widths that four does not divide have
    smaller groups, and there are always two groups or more.

    Args:
        model: is changed.

    Returns:
        How many layers were replaced.

    Source: replacing the layer: Hsieh et al., ICML 2020; the layer: Wu and He, ECCV 2018. The sizes
    of the groups are our choice.

    >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    >>> replace_batch_norm(model), model[1].num_groups
    (1, 4)
    """
    batch_norms = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    for parent, name, layer in batch_norms:
        setattr(parent, name, _group_norm(layer))
    return len(batch_norms)


def _group_norm(old: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.GroupNorm:
    width = old.num_features
    size = math.gcd(width, _OF_MAPS if isinstance(old, nn.BatchNorm2d) else _OF_NUMBERS)
    if size == width:
        size = max(1, width // 2)
    new = nn.GroupNorm(width // size, width, old.eps, old.affine)
    new.weight, new.bias = old.weight, old.bias
    return new
