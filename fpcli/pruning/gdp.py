"""Global and dynamic filter pruning: masks over all filters at once, redrawn while training.

Source: Lin et al., "Accelerating Convolutional Networks via Global & Dynamic Filter Pruning",
IJCAI 2018; the saliency and the masked update are the paper's, the schedule is that of the
official code.

    every `period` steps, in evaluation mode and with all masks at 1, so that filters can return:
        f = mean over batches of | sum over the filter of gradient x weight |
        the floor(beta N) filters of the whole network with the largest f stay
    in between: SGD on the masked network; masked filters stay exactly as they are

At the end the masked filters are removed. A pruning ratio r means beta = 1 - r.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from fpcli.data.batches import batches
from fpcli.engine.central import train_centrally
from fpcli.engine.measure import measure_gradients
from fpcli.engine.trained import Trained
from fpcli.errors import LayoutError
from fpcli.pruning.gates import gate_channels
from fpcli.pruning.pruner import PruneContext, Pruner, PruneTarget
from fpcli.pruning.ranking import (
    find_most_within,
    is_there,
    keep_top,
    list_filter_groups,
    make_support,
    num_at_start,
)
from fpcli.scores.taylor import measure_saliency
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Group, Layout
from fpcli.structure.shrink import shrink


@dataclass(frozen=True)
class Options:
    """Options of `gdp`."""

    epochs: Annotated[int, Ge(1)] = 10
    """Epochs of training under dynamic masks, before the last cut (official code: 30)."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of these epochs, divided by 10 every `lr_period` epochs (official code)."""
    lr_period: Annotated[int, Ge(1)] = 10
    """Epochs from one division of the learning rate to the next (official code)."""
    period: Annotated[int, Ge(1)] = 100
    """Steps from one redrawing of the masks to the next (e; official code: 500)."""
    saliency_batches: Annotated[int, Ge(1)] = 10
    """Batches that a redrawing looks at (Q; official code: 100, of which only the last one counts
    there by mistake: 1 has the same effect)."""
    saliency_batch_size: Annotated[int, Ge(1)] = 32
    """Samples of such a batch (official code)."""
    warmup_steps: Annotated[int, Ge(0)] = 0
    """Steps before the first masks (the paper has some, the code none)."""
    saliency: Literal["kernel", "bn-gate"] = "kernel"
    """What is scored: the kernel with its bias, or the scale and shift of its batch norm (ours)."""
    recover: Literal["unmask", "ste"] = "unmask"
    """How filters come back: scored with all masks at 1, frozen in between (official code); or
    learning on under their masks, by straight-through gradients (our other reading)."""
    min_filters: Annotated[int, Ge(1)] = 1
    """Filters that every layer keeps (ours); the globally worst kept ones leave instead."""
    residual: Literal["skip", "groups"] = "skip"
    """Whether filters that feed a sum are left alone, or leave together (both ours)."""
    scale: Literal["none", "layer"] = "none"
    """`layer` divides the saliencies of a layer by their Euclidean norm (ours)."""


class GDP(Pruner):
    """Global filter masks with recovery."""

    source: ClassVar[str] = "Lin et al., IJCAI 2018"
    Options: ClassVar[type] = Options

    def trains(self, options: Any) -> bool:
        """Tell that masks come and go during training."""
        return True

    def cut(self, px: PruneContext, trained: Trained, target: PruneTarget) -> Trained:
        """Train under dynamic masks, and return the trained model without the masked filters.

        Raises:
            LayoutError: no convolution of the network may lose filters.
            CheckError: removing filters of convolutions cannot meet the target.
        """
        options: Options = px.options
        dense = {name: value.clone() for name, value in trained.values.items()}
        model = shrink(trained.template, dense).to(px.device)
        masks = _Masks(px, trained, target, model)
        config = replace(
            px.retraining,
            epochs=options.epochs,
            lr=options.lr,
            schedule="steps",
            drop_at=tuple(
                epoch / options.epochs
                for epoch in range(options.lr_period, options.epochs, options.lr_period)
            ),
        )
        is_ste = options.recover == "ste"
        with gate_channels(model, masks.groups, masks.bits, is_straight_through=is_ste):
            for epoch in train_centrally(
                model,
                px.dataset,
                config,
                seed=px.seed,
                purpose="gdp",
                before_step=masks.before_step,
                augment=px.augment,
            ):
                px.tell(
                    f"gdp epoch {epoch.number}/{options.epochs} · loss {epoch.loss:.4f} · "
                    f"{masks.num_returned} filters came back so far"
                )
                px.log(event="gdp", epoch=epoch.number, loss=epoch.loss, lr=epoch.lr)
        masks.hold()
        state = model.state_dict()
        values = {name: state[name].detach().cpu() for name in trained.layout.tensors}
        stays = {name: bits.cpu() > 0 for name, bits in masks.bits.items()}
        return replace(trained, values=values).cut(make_support(trained, stays))


class _Masks:
    """The masks of one training: drawn anew now and then, and what they cover held still.

    Attributes:
        groups: whose filters compete.
        bits: group -> float ``[width]`` of 0 and 1, the same tensors all the time.
        num_returned: filters that came back so far.
    """

    def __init__(
        self, px: PruneContext, trained: Trained, target: PruneTarget, model: nn.Module
    ) -> None:
        self._px, self._trained, self._target, self._model = px, trained, target, model
        self._options: Options = px.options
        self.groups = list_competitors(trained.layout, px.ignore, self._options.residual)
        self._alive = {group.name: is_there(trained, group) for group in self.groups}
        self.bits = {name: alive.float() for name, alive in self._alive.items()}
        self._frozen: list[tuple[Tensor, Tensor, Tensor]] = []
        self.num_returned = 0

    def before_step(self, step: int) -> None:
        """Hold the masked filters still, and redraw the masks when it is time."""
        self.hold()
        since = step - self._options.warmup_steps
        if since >= 0 and since % self._options.period == 0:
            self._redraw(step)

    def hold(self) -> None:
        """Undo what momentum and weight decay did to masked filters since they were masked."""
        with torch.no_grad():
            for parameter, where, value in self._frozen:
                parameter[where] = value

    def _redraw(self, step: int) -> None:
        scores = self._scores(step)
        chosen = self._choose(scores)
        for name, stays in chosen.items():
            self.num_returned += int((stays & (self.bits[name] == 0).cpu()).sum())
            self.bits[name].copy_(stays)
        self._freeze()
        size = count_cost(self._trained.layout, make_support(self._trained, chosen))
        kept = {name: int(bits.sum()) for name, bits in self.bits.items()}
        self._px.log(event="mask", step=step, kept=kept, params=size.params, macs=size.macs)

    def _choose(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        there = {
            name: torch.where(self._alive[name], score, -math.inf) for name, score in scores.items()
        }
        total = num_at_start(self._px, self._trained, self.groups)
        least = self._options.min_filters
        if self._target.measure == "ratio":
            return keep_top(there, math.floor((1 - self._target.removed) * total + 1e-9), least)
        return find_most_within(
            self._px, self._trained, self._target, partial(keep_top, there, least=least), total
        )

    def _scores(self, step: int) -> dict[str, Tensor]:
        """Return the mean saliency over batches, with every filter of the model active."""
        options, layout, model = self._options, self._trained.layout, self._model
        masked = {name: bits.clone() for name, bits in self.bits.items()}
        for name, there in self._alive.items():
            self.bits[name].copy_(there)
        model.eval()
        totals = {group.name: torch.zeros(group.width) for group in self.groups}
        drawn = self._batches(step)
        for batch in drawn:
            slopes = {
                n: g.cpu()
                for n, g in measure_gradients(
                    model, self._px.dataset.task.loss(model, batch)
                ).items()
            }
            weights = {n: p.detach().cpu() for n, p in model.named_parameters()}
            scores = (
                measure_saliency(layout, weights, slopes)
                if options.saliency == "kernel"
                else bn_gate(layout, weights, slopes)
            )
            for name in totals:
                totals[name] += scores[name] / len(drawn)
        model.train()
        for name, bits in masked.items():
            self.bits[name].copy_(bits)
        if options.scale == "layer":
            totals = {name: score / score.norm().clamp_min(1e-12) for name, score in totals.items()}
        return totals

    def _batches(self, step: int) -> list[tuple[Tensor, Tensor]]:
        train, options = self._px.dataset.train, self._options
        rng = self._px.rng(f"gdp/saliency/{step}")
        count = min(len(train), options.saliency_batches * options.saliency_batch_size)
        return list(
            batches(
                train,
                torch.randperm(len(train), generator=rng)[:count],
                self._px.dataset.normalise,
                batch_size=options.saliency_batch_size,
                generator=None,
                device=self._px.device,
            )
        )

    def _freeze(self) -> None:
        self._frozen = []
        if self._options.recover == "ste":
            return
        parameters = dict(self._model.named_parameters())
        for group in self.groups:
            dead = (self.bits[group.name] == 0).cpu()
            for member in group.members:
                if member.tensor in parameters and (member.produces or member.dim == 0):
                    parameter = parameters[member.tensor]
                    where = member.index[dead].flatten().to(parameter.device)
                    self._frozen.append((parameter, where, parameter.detach()[where].clone()))


def list_competitors(layout: Layout, ignore: frozenset[str], residual: str) -> list[Group]:
    """Return the groups whose filters compete: those that convolutions make.

    Args:
        ignore: names of groups to leave out.
        residual: `skip` leaves out groups that several layers make (sums).

    Raises:
        LayoutError: there are none.
    """
    groups = [
        group
        for group in list_filter_groups(layout, ignore)
        if residual == "groups" or sum(member.produces for member in group.members) == 1
    ]
    if not groups:
        raise LayoutError(
            "no convolution of the network may lose filters",
            hint="`--method filters` prunes linear layers too",
        )
    return groups


def bn_gate(
    layout: Layout, weights: Mapping[str, Tensor], slopes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ``| sum of gradient x scale + gradient x shift |`` of each channel's batch norms."""
    scores = {}
    for name, group in layout.prunable.items():
        total = torch.zeros(group.width)
        for member in group.members:
            owner = member.tensor.rpartition(".")[0]
            if f"{owner}.running_mean" in layout.tensors and member.tensor in slopes:
                total += (weights[member.tensor] * slopes[member.tensor])[member.index].sum(1)
        scores[name] = total.abs()
    return scores
