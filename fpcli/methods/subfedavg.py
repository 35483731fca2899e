"""Sub-FedAvg: every client prunes its own copy of the common model and keeps a personal one.

Source: Vahidian, Morafah, Lin, "Personalized Federated Learning by Structured and Unstructured
Pruning under Data Heterogeneity", ICDCS Workshops 2021, and its official code. A client prunes when
the masks that it would choose after its first and after its last local epoch differ, its target is
not reached, and the pruned model is accurate enough; the server averages every coordinate over the
clients that hold it. ``un`` prunes single weights; ``hy`` single weights of linear layers, and then
channels by the scale of their batch norm. The options name the symbols; recipes/subfedavg says
what is the paper's, the code's and ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from math import prod
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from fpcli.data.split import Split
from fpcli.engine.evaluate import evaluate
from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit, merge_answers
from fpcli.engine.placement import move_to
from fpcli.engine.types import Answer, Ask, ServerState, Support, Tensors, Work
from fpcli.errors import RecipeError
from fpcli.scores.bn_scale import add_l1, bn_scale, choose_above_share
from fpcli.structure.layout import Layout
from fpcli.structure.masks import (
    drop_percentile,
    measure_distance,
    measure_overlaps,
    narrow_support,
)
from fpcli.structure.shrink import shrink

Percent = Annotated[float, Ge(0), Le(100)]


@dataclass(frozen=True)
class Options:
    """Options of `subfedavg`."""

    variant: Literal["un", "hy"] = "un"
    """`un` prunes weights everywhere; `hy` channels, and weights of linear layers."""
    step_percent: Percent = 10.0
    """Share of its alive weights that a tensor loses when a client prunes (paper: p, p_fc)."""
    target_percent: Percent = 30.0
    """Weights are pruned up to this share of all parameters (T; official code: 50 for `hy`)."""
    distance_min: Annotated[float, Le(1)] = 0.0001
    """Masks of first and last epoch must differ by more (epsilon; official: 0.0005 for `hy`)."""
    accuracy_percent: Percent = 50.0
    """Accuracy that a pruned model must exceed (Acc_th)."""
    gate_on: Literal["val", "test"] = "val"
    """Where it is judged: on held-out training data of the client, or on its test data."""
    holdout: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of its training data that a client holds out for that."""
    channel_share: Annotated[float, Ge(0), Lt(1)] = 0.45
    """Share of the channels that a layer loses when a client prunes them (p_ch); 0: none."""
    channel_distance_min: Annotated[float, Le(1)] = 0.01
    """Channels chosen after first and last epoch must differ by more than this (epsilon_ch)."""
    channel_floors: tuple[Annotated[int, Ge(1)], ...] = ()
    """Channels that stay (f_l), a number per layer with batch norm; empty: half of each layer's."""
    channel_count: Literal["official", "floor"] = "official"
    """Of C channels lose int(C * p_ch) + 1, as the code does, or int(C * p_ch)."""
    scale_l1: Annotated[float, Ge(0)] = 0.0
    """Weight of an l1 penalty on batch-norm scales under `hy` (s)."""
    agg: Literal["holders", "all-overlap"] = "holders"
    """Average over those who hold a coordinate, or only what all clients of the round hold."""
    weights: Literal["uniform", "samples"] = "uniform"
    """Weights of that average."""
    count: Literal["masked", "official"] = "masked"
    """What counts as pruned: what is masked, or every exact 0 (and under `hy` linear biases)."""
    bn: Literal["local", "global"] = "local"
    """Running statistics of batch norm: every client's own, or averaged like weights."""
    mask_norms: bool = False
    """Under `un`, prune batch-norm scales too: any tensor with `weight` in its name."""

    def __post_init__(self) -> None:
        if self.variant == "un" and (self.scale_l1 or self.channel_floors):
            raise ValueError("scale_l1 and channel_floors belong to variant hy")
        if self.variant == "hy" and self.mask_norms:
            raise ValueError("mask_norms belongs to variant un; hy removes whole channels")

    @property
    def never_prunes(self) -> bool:
        """Whether nothing is ever pruned, so that no client need hold data out."""
        prunes_channels = self.variant == "hy" and self.channel_share > 0
        return not (self.step_percent and self.target_percent) and not prunes_channels


@dataclass(frozen=True)
class Sub:
    """What the server knows of one client's sub-network, in the initial model's coordinates."""

    keep: Tensors = field(default_factory=dict)
    mask: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """The sub-networks of all clients that have trained."""

    clients: Mapping[int, Sub] = field(default_factory=dict)


def next_percent(pruned: float, options: Options) -> float:
    """Return the share to prune now: the step, or less where the target is nearer than that."""
    left = options.target_percent - pruned
    if left >= options.step_percent:
        return options.step_percent
    percent = 100.0 * left / (100.0 - pruned)
    if options.variant == "un":
        return min(5.0, percent)
    return percent - 5.0 if percent > 16.0 else percent


def list_maskable(model: nn.Module, options: Options) -> list[str]:
    """Return the tensors of which single weights may be pruned."""
    if options.variant == "hy":
        return [f"{n}.weight" for n, part in model.named_modules() if isinstance(part, nn.Linear)]
    named = model.named_parameters()
    return [n for n, x in named if "weight" in n and (x.dim() > 1 or options.mask_norms)]


def propose_channels(cx: ClientContext, values: Tensors) -> dict[str, Tensor]:
    """Return which of its channels a client would keep if it pruned now, by group."""
    layout, options = cx.site.layout, cx.options
    scores = bn_scale(layout, cx.support.scatter(layout, values)[0])
    least = options.channel_floors or [layout.groups[name].width // 2 for name in scores]
    choose = partial(choose_above_share, is_strict=options.channel_count == "official")
    held = {name: score[cx.support.keep.get(name, slice(None))] for name, score in scores.items()}
    pairs = zip(held, least, strict=True)
    return {name: choose(held[name], options.channel_share, floor) for name, floor in pairs}


def count_pruned_percent(
    cx: ClientContext, values: Tensors, masks: Tensors, support: Support
) -> float:
    """Return the pruned share of all parameters in percent, of received tensors cut to support."""
    layout, is_un = cx.site.layout.parameters, cx.options.variant == "un"
    alive = {n: masks.get(n, torch.ones_like(values[n])).float() for n in layout.tensors}
    if cx.options.count == "official":
        alive |= {n: (values[n] != 0).float() for n in (layout.tensors if is_un else masks)}
        biases = {f"{n.removesuffix('weight')}bias" for n in masks} & alive.keys()
        alive |= {} if is_un else {n: torch.zeros_like(values[n]) for n in biases}
    held = support.gather(layout, cx.support.scatter(layout, alive)[0])
    num_alive = sum(int(part.sum()) for part in held.values())
    return 100.0 * (1.0 - num_alive / sum(prod(spec.shape) for spec in layout.tensors.values()))


def split_samples(cx: ClientContext) -> tuple[Tensor, Split]:
    """Return the samples that a client trains on, and those that judge a pruned model."""
    site, options = cx.site, cx.options
    if options.gate_on == "test":
        return cx.samples, site.dataset.test.take(site.test_parts[cx.client])
    if options.never_prunes:
        return cx.samples, site.dataset.train.take(cx.samples)
    return cx.hold_out(options.holdout, "subfedavg/holdout")


def is_accurate(cx: ClientContext, block: Tensors, samples: Split) -> bool:
    """Tell whether the model with these tensors exceeds the accuracy gate."""
    site = cx.site
    model = move_to(shrink(site.template, block), site.device, site.is_channels_last)
    score = evaluate(model, samples, site.dataset, channels_last=site.is_channels_last)
    return 100.0 * score.metrics["accuracy"] > cx.options.accuracy_percent


def copy_floats(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's parameters and running statistics."""
    state = model.state_dict()
    return {name: x.cpu().clone() for name, x in state.items() if x.is_floating_point()}


def cut_answer(layout: Layout, answer: Answer, support: Support) -> Answer:
    """Return an answer without what a smaller support does not hold."""
    dense, _ = answer.support.scatter(layout, answer.work.values)
    work = replace(answer.work, values=support.gather(layout, dense))
    return replace(answer, support=support, work=work)


class SubFedAvg(Method):
    """Personal sub-networks, averaged over the clients that hold each weight."""

    source: ClassVar[str] = "Vahidian et al., ICDCS Workshops 2021"
    traits: ClassVar[Traits] = Traits(
        cuts="weights",
        sub_models="own",
        models="personal",
        needs_classes=True,
        masks_by="client",
        remembers_masks=True,
        buffers="local",
        coordinates=True,
    )
    defaults: ClassVar[Mapping[str, Any]] = {"local.epochs": 5, "wire.codec": "sparse"}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def traits_of(self, options: Any) -> Traits:
        """Keep batch-norm statistics with the clients, unless they are to be common."""
        return self.traits if options.bn == "local" else replace(self.traits, buffers="merged")

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Start everybody with the whole model; refuse what could never prune."""
        options, is_hy = ctx.options, ctx.options.variant == "hy"
        gates = [options.distance_min, options.channel_distance_min][: 1 + is_hy]
        if ctx.local.epochs == 1 and max(gates) >= 0 and not options.never_prunes:
            raise RecipeError(
                "subfedavg compares masks after the first and the last epoch; local.epochs is 1",
                hint="set local.epochs to 2 or more (official code: 5)",
                where="local.epochs",
            )
        groups = list(bn_scale(ctx.layout, state.values))
        if is_hy and (not groups or len(options.channel_floors) not in (0, len(groups))):
            raise RecipeError(
                f"method.channel_floors must fit the layers with batch norm: {groups or 'none'}",
                hint="variant hy needs batch norm, as in model subfedavg-cifar-bn",
                where="method.channel_floors",
            )
        return replace(state, method=State())

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send every client its own part of the common model."""
        subs = {client: state.method.clients.get(client, Sub()) for client in ctx.cohort}
        return [Ask(client, support=Support(sub.keep, sub.mask)) for client, sub in subs.items()]

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, then prune weights, then channels, each only through its gates."""
        options, layout, remembered = cx.options, cx.site.layout, cx.recall("model")
        model.load_state_dict(
            {n: x for n, x in remembered.items() if n not in cx.received}, strict=False
        )
        old = {
            name: torch.ones_like(cx.received[name]).bool()
            for name in list_maskable(model, options)
        }
        old |= {name: mask.cpu() for name, mask in cx.mask.items()}
        samples, judges = split_samples(cx)
        seen: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

        def prune(values: Tensors, percent: float) -> dict[str, Tensor]:
            return {n: drop_percentile(values[n], mask, percent) for n, mask in old.items()}

        def after_epoch(epoch: int, model: nn.Module) -> None:
            if epoch in (1, cx.local.epochs):
                values = copy_floats(model)
                stay = propose_channels(cx, values) if options.variant == "hy" else {}
                seen.append((prune(values, options.step_percent), stay))

        penalty = partial(add_l1, strength=options.scale_l1) if options.scale_l1 else None
        fitted = fit(
            model,
            cx,
            self.loss,
            samples=samples,
            after_backward=penalty,
            after_epoch=after_epoch,
        )
        values, masks, support = copy_floats(model), old, cx.support
        (first, channels), (last, stay) = seen[0], seen[-1]
        metrics = {"distance": measure_distance(first, last), "accepted": 0.0}
        rho = count_pruned_percent(cx, {**cx.received, **remembered}, old, support)
        if metrics["distance"] > options.distance_min and rho < options.target_percent:
            new = prune(values, next_percent(rho, options))
            thin = values | {n: torch.where(mask, values[n], 0.0) for n, mask in new.items()}
            if is_accurate(cx, thin, judges):
                values, masks, metrics["accepted"] = thin, new, 1.0
        kept: Tensors = {}
        if stay:
            ends = [{"all": torch.cat(list(parts.values()))} for parts in (channels, stay)]
            metrics |= {"channel_distance": measure_distance(*ends), "channels_accepted": 0.0}
            narrow = narrow_support(layout, support, stay)
            small = narrow.gather(layout, support.scatter(layout, values)[0])
            is_open = metrics["channel_distance"] > options.channel_distance_min
            if is_open and is_accurate(cx, small, judges):
                values = support.gather(layout, narrow.scatter(layout, small)[0])
                support, kept, metrics["channels_accepted"] = narrow, stay, 1.0
        model.load_state_dict(values, strict=False)
        cx.remember("model", values)
        metrics["rho"] = count_pruned_percent(cx, values, masks, support)
        mask = masks if metrics["accepted"] else None
        return cx.result(model, fitted, mask=mask, stay=kept, metrics=metrics)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average over holders, and note every client's sub-network."""
        options, layout = ctx.options, ctx.travels
        supports = {answer.ask.client: answer.support for answer in answers}
        for answer in answers:
            metrics = {name: x for name, x in answer.work.metrics.items() if name != "loss"}
            ctx.log(answer.ask.client, **metrics)
        ctx.log(None, **measure_overlaps(layout, supports, ctx.share_labels))
        if options.agg == "all-overlap":
            common = reduce(Support.intersect, supports.values())
            answers = [cut_answer(layout, answer, common) for answer in answers]
        weights = None if options.weights == "samples" else [1.0] * len(answers)
        subs = {client: Sub(support.keep, support.mask) for client, support in supports.items()}
        new = merge_answers(ctx, state, answers, weights=weights)
        return replace(new, method=State({**state.method.clients, **subs}))

    def view(self, cx: ClientContext, values: Tensors) -> Tensors:
        """Judge the client's last personal model; the common one before it has any."""
        return {**values, **cx.recall("model")}
