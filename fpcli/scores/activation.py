"""Activation scores: statistics of what a layer puts out, before normalisation and activation.

Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 4.4 and figure 9.
Deviations and variances are those of a population; the paper does not say. Layers that make one
group add up. A linear layer's map is a single number: its standard deviation is 0 throughout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fpcli.scores.producers import list_producers, reshape_to_maps, sum_scores, watch_outputs
from fpcli.scores.sample import Sample
from fpcli.structure.layout import Layout, Tensors


def mean_mean(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by the mean over images of its map's mean."""
    return _score(layout, values, sample, lambda x: x.mean(2), _mean)


def mean_std(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by the mean over images of its map's standard deviation."""
    return _score(layout, values, sample, lambda x: x.std(2, correction=0), _mean)


def mean_l1(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by the mean over images of its map's l1 norm."""
    return _score(layout, values, sample, lambda x: x.abs().sum(2), _mean)


def mean_l2(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by the mean over images of its map's l2 norm."""
    return _score(layout, values, sample, lambda x: x.norm(dim=2), _mean)


def var_l2(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by the variance over images of its map's l2 norm."""
    return _score(layout, values, sample, lambda x: x.norm(dim=2), lambda x: x.var(0, correction=0))


def _mean(per_image: Tensor) -> Tensor:
    return per_image.mean(0)


@torch.no_grad()
def _score(
    layout: Layout,
    values: Tensors,
    sample: Sample,
    of_map: Callable[[Tensor], Tensor],
    over_images: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return the statistic over images of the statistic of each map."""
    model = sample.module(values)
    layers = dict(model.named_modules())
    seen: dict[str, list[Tensor]] = {}

    def see(name: str, output: Tensor) -> None:
        seen.setdefault(name, []).append(of_map(reshape_to_maps(layers[name], output)).double())

    with watch_outputs(model, list_producers(layout), see):
        for x, _ in sample.batches:
            model(x)
    return sum_scores(layout, {name: over_images(torch.cat(parts)) for name, parts in seen.items()})
