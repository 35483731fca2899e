"""Channel pruning by two criteria that are joined: filter weights and channel importance.

Source: Pei, Wu and Qiu, "Neural Network Compression and Acceleration by Federated Pruning", ICA3PP
2020. "Federated" there means that two criteria act together; nothing is distributed. Only the
abstract could be read: that both criteria are combined, on a trained network, before fine-tuning.
Everything else is ours or Network Slimming's (Liu et al., ICCV 2017), and an option;
`recipes/fedprune-ica3pp/README.md` says which.

    1. Train with an l1 penalty on the scales of batch norm, so that they tell channels apart.
    2. u = |W|_1 of the filter over its layer's mean; v = |scale| over the mean of all layers.
    3. The floor(P N) channels of the whole network with the lowest u v leave.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from fpcli.data.batches import evaluation_batches
from fpcli.engine.trained import Trained
from fpcli.errors import LayoutError
from fpcli.pruning.prune import retrain
from fpcli.pruning.pruner import PruneContext, Pruner, PruneTarget
from fpcli.pruning.ranking import (
    find_most_within,
    is_there,
    keep_top,
    list_filter_groups,
    make_support,
    num_at_start,
)
from fpcli.scores.bn_scale import add_l1, locate_scales
from fpcli.scores.sample import Sample, score
from fpcli.structure.layout import Group, Layout, Tensors

Rule = Literal["product", "sum", "both", "either", "gamma", "weight"]


@dataclass(frozen=True)
class Options:
    """Options of `fedprune-ica3pp`."""

    rule: Rule = "product"
    """How the criteria join (ours): u v; their weighted sum; channels that are low in `both`, or in
    `either`; or one of them alone."""
    channel: Literal["gamma", "mean-activation", "taylor"] = "gamma"
    """Channel criterion: scale of batch norm, mean activation or Taylor score (all ours)."""
    kappa: Annotated[float, Ge(0), Le(1)] = 0.5
    """Weight of the channel criterion under `sum` (ours)."""
    weight_norm: Literal["l1", "l2"] = "l1"
    """Norm of a filter (ours; l1 as in Li et al., ICLR 2017)."""
    min_channels: Annotated[int, Ge(1)] = 1
    """Channels that every layer keeps (ours)."""
    sparse_epochs: Annotated[int, Ge(0)] = 0
    """Epochs of training with the penalty before the cut; 0 trusts the scales as they are."""
    penalty: Annotated[float, Ge(0)] = 1e-4
    """Weight of the l1 penalty in these epochs (Network Slimming)."""


class ICA3PP(Pruner):
    """Two joined channel criteria."""

    source: ClassVar[str] = "Pei et al., ICA3PP 2020"
    Options: ClassVar[type] = Options

    def trains(self, options: Any) -> bool:
        """Tell whether sparse training was asked for."""
        return bool(options.sparse_epochs)

    def cut(self, px: PruneContext, trained: Trained, target: PruneTarget) -> Trained:
        """Train with the penalty if asked, then remove the channels with the lowest joint score.

        Raises:
            LayoutError: no convolution is followed by batch norm.
            CheckError: the target cannot be met.
        """
        options: Options = px.options
        groups = list_normalised(trained.layout, px.ignore)
        if options.sparse_epochs:
            trained = retrain(
                px,
                trained,
                purpose="ica3pp",
                config=replace(px.retraining, epochs=options.sparse_epochs),
                event="sparse",
                after_backward=partial(add_l1, strength=options.penalty),
            )
        elif options.channel == "gamma" and options.rule != "weight":
            px.tell(
                "warning: scales of batch norm are taken as they are; without sparse training "
                "they may carry little information (`--set method.sparse_epochs=N`)"
            )
        u = weight_criterion(groups, trained.values, options.weight_norm)
        v = (
            channel_criterion(trained.layout, groups, trained.values)
            if options.channel == "gamma"
            else _from_data(px, trained, groups)
        )
        has = {group.name: is_there(trained, group) for group in groups}
        pick = partial(choose_channels, u, v, has, options)
        total = num_at_start(px, trained, groups)
        if target.measure == "ratio":
            stays = pick(total - math.floor(target.removed * total + 1e-9))
        else:
            stays = find_most_within(px, trained, target, pick, total)
        return trained.cut(make_support(trained, stays))


def list_normalised(layout: Layout, ignore: frozenset[str]) -> list[Group]:
    """Return the groups of convolutions that batch norm follows.

    Raises:
        LayoutError: there are none.
    """
    groups = [group for group in list_filter_groups(layout, ignore) if locate_scales(layout, group)]
    if not groups:
        raise LayoutError(
            "no convolution of the network is followed by batch norm",
            hint="`--method filters` needs none",
        )
    return groups


def weight_criterion(groups: list[Group], values: Tensors, norm: str) -> dict[str, Tensor]:
    """Return u: the norm of every filter over the mean norm of its layer.

    Layers that make one group (sums) are averaged after that.

    >>> from fpcli.structure.layout import Member
    >>> rows = Member("c.weight", 0, torch.arange(4).reshape(4, 1), produces=True)
    >>> values = {"c.weight": torch.tensor([4.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1)}
    >>> weight_criterion([Group("c", 4, (rows,))], values, "l1")
    {'c': tensor([1.6000, 0.4000, 0.8000, 1.2000])}
    """
    norms = {}
    for group in groups:
        layers = []
        for member in group.members:
            if member.produces:
                filters = values[member.tensor].movedim(member.dim, 0).flatten(1)
                size = filters.abs().sum(1) if norm == "l1" else filters.norm(dim=1)
                size = size[member.index].sum(1)
                layers.append(size / size.mean().clamp_min(1e-12))
        norms[group.name] = torch.stack(layers).mean(0)
    return norms


def channel_criterion(layout: Layout, groups: list[Group], values: Tensors) -> dict[str, Tensor]:
    """Return v: the absolute scale of batch norm over the mean of all channels of all layers."""
    sizes = {
        group.name: torch.stack(
            [values[at.tensor].abs()[at.index].sum(1) for at in locate_scales(layout, group)]
        ).mean(0)
        for group in groups
    }
    mean = torch.cat(list(sizes.values())).mean().clamp_min(1e-12)
    return {name: size / mean for name, size in sizes.items()}


def _from_data(px: PruneContext, trained: Trained, groups: list[Group]) -> dict[str, Tensor]:
    options: Options = px.options
    drawn = islice(
        evaluation_batches(px.dataset.validation, px.dataset.normalise, batch_size=128), 8
    )
    sample = Sample(trained.template, list(drawn), px.dataset.task, px.seed)
    name = "taylor" if options.channel == "taylor" else "activation-mean-mean"
    scores = score(name, trained.layout, trained.values, sample)
    sizes = {group.name: scores[group.name].abs() for group in groups}
    mean = torch.cat(list(sizes.values())).mean().clamp_min(1e-12)
    return {name: size / mean for name, size in sizes.items()}


def choose_channels(
    u: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
    has: Mapping[str, Tensor],
    options: Options,
    num_kept: int,
) -> dict[str, Tensor]:
    """Return which channels stay, of all that are there.

    Args:
        u: weight criterion per group.
        v: channel criterion per group.
        has: channels that are there, bool.
        num_kept: channels that stay in all; `both` may keep more, `either` fewer.

    Of equal scores the lower layer, then the lower channel leaves.

    >>> u = {"a": torch.tensor([1.6, 0.4, 0.8, 1.2]), "b": torch.tensor([0.5, 1.5, 1.0])}
    >>> v = {"a": torch.tensor([0.28, 2.54, 1.41, 0.06]), "b": torch.tensor([1.69, 0.14, 0.87])}
    >>> has = {"a": torch.ones(4, dtype=torch.bool), "b": torch.ones(3, dtype=torch.bool)}
    >>> [bits.int().tolist() for bits in choose_channels(u, v, has, Options(), 4).values()]
    [[0, 1, 1, 0], [1, 0, 1]]
    """

    def best(score: Mapping[str, Tensor]) -> dict[str, Tensor]:
        there = {name: torch.where(has[name], score[name], -math.inf) for name in score}
        return keep_top(there, num_kept, options.min_channels, is_first_kept=False)

    match options.rule:
        case "gamma":
            return best(v)
        case "weight":
            return best(u)
        case "product":
            return best({name: u[name] * v[name] for name in u})
        case "sum":
            kappa = options.kappa
            return best({name: kappa * v[name] + (1 - kappa) * u[name] for name in u})
        case "both":
            by_u, by_v = best(u), best(v)
            return {name: by_u[name] | by_v[name] for name in u}
    by_u, by_v = best(u), best(v)
    stays = {name: by_u[name] & by_v[name] for name in u}
    return {
        name: bits if int(bits.sum()) >= options.min_channels else by_u[name]
        for name, bits in stays.items()
    }
