"""Filters: the filters of a trained network with the smallest scores leave, and it is retrained.

Li, Kadav, Durdanovic, Samet, Graf: "Pruning Filters for Efficient ConvNets", ICLR 2017. A filter
leaves with its map, its entries of the batch norm behind it, and the kernels of the next layer that
read the map. Its score is the sum of its absolute weights.

Ours: other scores than l1 and l2, and ``residual: group-sum``. Inferred: ``independent`` as the
default (the paper does not say which order its table is from), and one set of channels for all
that is added up in a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge
from torch import Tensor

from fpcli import plugins
from fpcli.data.batches import evaluation_batches
from fpcli.data.split import Split
from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, RecipeError
from fpcli.pruning.amounts import choose_best, list_alive, num_left, ratio_for
from fpcli.pruning.layers import list_numbered, list_writers, select
from fpcli.pruning.presets import PRESETS
from fpcli.pruning.pruner import PruneContext, Pruner, PruneTarget
from fpcli.scores.sample import Sample, needs_sample, score
from fpcli.structure.layout import Group, Layout
from fpcli.structure.support import Support


@dataclass(frozen=True)
class Options:
    """Options of pruning filters."""

    score: str = "l1"
    """What ranks the channels of a group; the lowest leave. `l1` is the paper's; `largest` and
    `random` are controls."""

    samples: Annotated[int, Ge(1)] = 500
    """Validation images that a score looks at if it looks at data."""

    strategy: Literal["independent", "greedy"] = "independent"
    """`independent`: scores of the whole filters. `greedy`: from front to back, what is pruned
    already does not count."""

    residual: Literal["inner-only", "projection", "group-sum"] = "inner-only"
    """Channels of maps that are added up: stay; follow the l1 norms of the 1x1 projection; or leave
    by the sum over all convolutions that write to them."""

    retrain: Literal["once", "iterative"] = "once"
    """`once`: retraining follows a step. `iterative`: it follows every group, from front to back,
    which takes far more epochs."""

    preset: (
        Literal[
            "vgg16-A", "resnet56-A", "resnet56-B", "resnet110-A", "resnet110-B",
            "resnet34-A", "resnet34-B", "resnet34-C",
        ]
        | None
    ) = None  # fmt: skip
    """A setting of the paper: ratios and spared layers, in place of a target."""

    def __post_init__(self) -> None:
        plugins.find_reference("scores", self.score)


class Filters(Pruner):
    """Pruning of filters; see the module docstring."""

    source = "Li et al., ICLR 2017"
    Options = Options

    def decides(self, options: Any) -> bool:
        """Tell whether a preset says how much goes."""
        return options.preset is not None

    def steps(
        self, px: PruneContext, trained: Trained, target: PruneTarget, num_steps: int
    ) -> list[tuple[PruneContext, PruneTarget]]:
        """Return even portions, or one group after the other."""
        px = _with_preset(px, trained, target)
        if px.options.retrain == "once":
            return super().steps(px, trained, target, num_steps)
        if num_steps > 1:
            raise RecipeError(
                "`retrain: iterative` makes a step of every group",
                hint="leave out --steps, or say `--set method.retrain=once`",
                where="--steps",
            )
        whole = self.cut(px, trained, target).support
        rates: dict[str, float] = {}
        targets = []
        for name in _front_to_back(trained.layout, _candidates(px, trained)):
            before = len(list_alive(trained.layout, trained.support, name))
            after = len(list_alive(trained.layout, whole, name))
            if after < before:
                rates[name] = 1 - after / before
                targets.append((replace(px, rates=dict(rates)), PruneTarget("ratio", 0.0)))
        return targets or [(px, target)]

    def cut(self, px: PruneContext, trained: Trained, target: PruneTarget) -> Trained:
        """Remove the lowest scores of every group that may lose channels."""
        groups = _candidates(px, trained)
        if not groups:
            raise CheckError(
                f"no group of `{trained.model}` may lose channels",
                hint="ignore less, or let `--set method.residual=group-sum` open residual sums",
                where="--ignore",
            )

        def support_at(ratio: float) -> Support:
            counts = _counts(px, trained, groups, ratio)
            keep = {
                name: list_alive(trained.layout, trained.support, name)[:n]
                for name, n in counts.items()
            }
            return Support({**trained.support.keep, **keep}, trained.support.mask)

        ratio = ratio_for(px, trained.layout, target, support_at)
        counts = _counts(px, trained, groups, ratio)
        _warn_of_floors(px, trained.layout, groups, ratio)
        if px.options.strategy == "greedy":
            return _greedy(px, trained, groups, counts)
        scores = _scores(px, trained, groups)
        keep = {name: _best(trained, name, scores[name], num) for name, num in counts.items()}
        return trained.cut(_narrow(trained, keep))


def _with_preset(px: PruneContext, trained: Trained, target: PruneTarget) -> PruneContext:
    if px.options.preset is None:
        return px
    preset, layers = PRESETS[px.options.preset], list_numbered(trained.layout)
    if len(layers) != preset.num_layers:
        raise RecipeError(
            f"preset `{px.options.preset}` is for a network of {preset.num_layers} layers, "
            f"`{trained.model}` has {len(layers)}",
            hint=f"it is meant for {preset.model}",
            where="method.preset",
        )
    if target.removed:
        raise RecipeError(
            f"preset `{px.options.preset}` says how much goes, and so does a target",
            hint="leave out one of them",
            where="method.preset",
        )
    rates = {
        group: rate
        for word, rate in preset.rates
        for group in sorted(select(trained, word, "method.preset"))
    }
    spared = {group for word in preset.spared for group in select(trained, word, "method.preset")}
    rates |= dict.fromkeys(spared, 0.0)
    options = replace(px.options, residual=preset.residual)
    return replace(px, rates=rates | dict(px.rates), options=options)


def _candidates(px: PruneContext, trained: Trained) -> dict[str, Group]:
    """Return the groups that may lose channels, with only those filters that are to be scored."""
    candidates = {}
    for name, group in trained.layout.prunable.items():
        made_by = list_writers(trained.template, group)
        if name in px.ignore or (len(made_by) > 1 and px.options.residual == "inner-only"):
            continue
        if len(made_by) > 1 and px.options.residual == "projection":
            deciding = set(made_by) - set(list_numbered(trained.layout))
            if not deciding:
                continue
            members = (m for m in group.members if not m.produces or m.tensor in deciding)
            group = replace(group, members=tuple(members))
        candidates[name] = group
    return candidates


def _counts(
    px: PruneContext, trained: Trained, groups: Mapping[str, Group], ratio: float
) -> dict[str, int]:
    """Return how many channels stay of every group."""
    counts = {}
    for name, group in groups.items():
        width = len(list_alive(trained.layout, px.start, name))
        left = num_left(width, px.rates.get(name, ratio), group.block, px.round_to)
        counts[name] = min(left, len(list_alive(trained.layout, trained.support, name)))
    return counts


def _warn_of_floors(
    px: PruneContext, layout: Layout, groups: Mapping[str, Group], ratio: float
) -> None:
    floors = [
        name
        for name, group in groups.items()
        if len(list_alive(layout, px.start, name)) // group.block * (1 - px.rates.get(name, ratio))
        < 1 - 1e-9
    ]
    if floors:
        names = ", ".join(f"`{name}`" for name in floors[:5])
        px.tell(f"warning: all channels of {names} were to go; one stays")


def _scores(px: PruneContext, trained: Trained, groups: Mapping[str, Group]) -> dict[str, Tensor]:
    if not needs_sample(px.options.score):
        layout = Layout(trained.layout.tensors, groups, trained.layout.fixed_macs)
        return score(px.options.score, layout, trained.values)
    validation, normalise = px.dataset.validation, px.dataset.normalise
    few = Split(*(x[: px.options.samples] for x in (validation.images, validation.labels)))
    batches = list(evaluation_batches(few, normalise))
    sample = Sample(trained.template, batches, px.dataset.task, px.seed)
    return score(px.options.score, trained.layout, trained.values, sample)


def _best(trained: Trained, name: str, scores: Tensor, num: int) -> Tensor:
    channels = list_alive(trained.layout, trained.support, name)
    return choose_best(channels, scores, num, trained.layout.groups[name].block)


def _narrow(trained: Trained, keep: Mapping[str, Tensor]) -> Support:
    whole = {name: group.width for name, group in trained.layout.groups.items()}
    fewer = {name: channels for name, channels in keep.items() if len(channels) < whole[name]}
    return Support({**trained.support.keep, **fewer}, trained.support.mask)


def _greedy(
    px: PruneContext, trained: Trained, groups: Mapping[str, Group], counts: Mapping[str, int]
) -> Trained:
    for name in _front_to_back(trained.layout, groups):
        scores = _scores(px, trained, groups)
        keep = {name: _best(trained, name, scores[name], counts[name])}
        trained = trained.cut(_narrow(trained, keep))
    return trained


def _front_to_back(layout: Layout, groups: Mapping[str, Group]) -> list[str]:
    """Return the groups in an order in which each comes behind all that its filters read.

    Where residual sums make a circle of them, the one that the network lists first goes first.
    """
    read_at: dict[str, set[str]] = {}
    for name in groups:
        for member in layout.groups[name].members:
            if not member.produces:
                read_at.setdefault(member.tensor, set()).add(name)
    waits = {
        name: {
            other
            for member in group.members
            if member.produces
            for other in read_at.get(member.tensor, ())
        }
        - {name}
        for name, group in groups.items()
    }
    order: list[str] = []
    while len(order) < len(groups):
        left = [name for name in groups if name not in order]
        ready = (name for name in left if not waits[name] - set(order))
        order.append(next(ready, left[0]))
    return order
