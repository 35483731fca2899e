"""NestFL (reconstruction from the abstract): nested sub-models of a few widths, as devices can.

Source: Zhou, Jia, Xie, "NestFL: Efficient Federated Learning through Progressive Model Pruning in
Heterogeneous Edge Computing", MobiCom 2022, a poster of which only the abstract is known, and that
from memory. Whole channels are pruned step by step, each time from the smallest sub-model so far,
so that all of them lie in one another (as in NestDNN, MobiCom 2018). Each round every device gets
the largest one with which it meets a deadline, and a parameter is averaged over the devices that
hold it. Most of this is inferred or ours: recipes/nestfl.

======================  ==========================  =============================================
symbol                  here                        note
======================  ==========================  =============================================
kappa_c, C(r)           ``widths``, ``num_levels``  level 1 is the whole model
pi_g                    ``State.order``             channels of a group, those kept longest first
R0, P                   first_event, interval       finished rounds before pruning events
t_k(c), tau             ``ctx.time``, the deadline  seconds of a round at a level
a_k                     n_k * kappa_c ** psi        weight of a device's update
======================  ==========================  =============================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from fpcli.engine.method import (
    ClientContext,
    Method,
    RoundContext,
    Traits,
    fit,
    merge_answers,
    sample_cohort,
)  # fmt: skip
from fpcli.engine.types import Answer, Ask, Device, LocalConfig, ServerState, Support, Tensors, Work
from fpcli.errors import RecipeError
from fpcli.scores.sample import score_of_weights
from fpcli.scores.taylor import measure_saliency
from fpcli.structure.layout import Layout
from fpcli.structure.patterns import keep_leading, sort_leading


@dataclass(frozen=True)
class Options:
    """Options of `nestfl`; the paper's numbers are not known."""

    widths: tuple[Annotated[float, Gt(0), Le(1)], ...] = (1.0, 0.75, 0.5, 0.25)
    """Share of each layer's channels that the levels keep, from 1 downwards."""
    build: Literal["progressive", "prebuilt", "fixed"] = "progressive"
    """How the levels come about: one by one, in pruning events between the rounds; all before round
    1, from the initial weights; or by index and without any score, as in HeteroFL (control)."""
    first_event: Annotated[int, Ge(0)] = 10
    """Rounds before the first pruning event, in which everybody trains the whole model."""
    interval: Annotated[int, Ge(1)] = 10
    """Rounds from one pruning event to the next."""
    score: Literal["l1", "l2", "taylor"] = "l1"
    """What ranks channels: norms of their weights, or the change of the loss without them, which
    only devices can score."""
    score_source: Literal["server", "devices"] = "server"
    """Who scores: the server its model, or each device its own model in the round before an event,
    weighted by samples."""
    level: Literal["runtime", "static"] = "runtime"
    """Levels by what a device can do in the present round, or from the last event on by what it
    could do then."""
    levels: tuple[Annotated[int, Ge(1)], ...] = ()
    """Levels by hand: client i has the one at place i, counted round and round."""
    deadline_s: Annotated[float, Gt(0)] | None = None
    """Simulated seconds in which a device should finish a round; null takes the median of all
    devices with the whole model."""
    drop_slow: bool = False
    """Leave out devices that cannot meet the deadline at the smallest level; otherwise they take
    part at that level."""
    psi: Annotated[float, Ge(0)] = 0.0
    """Weight of an update: samples times width to this power."""
    personal_mix: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of a device's own last weights in what it starts a round from."""

    def __post_init__(self) -> None:
        falls = all(large > small for large, small in pairwise(self.widths))
        if not self.widths or self.widths[0] != 1 or not falls:
            raise ValueError(f"widths {self.widths}: begin with 1, and go on with smaller ones")
        if self.levels and max(self.levels) > len(self.widths):
            raise ValueError(f"levels {self.levels}: there are {len(self.widths)} widths")
        if self.levels and (self.level == "static" or self.drop_slow or self.deadline_s):
            raise ValueError("levels by hand know no deadline, no drop_slow and no static level")
        if self.score == "taylor" and self.score_source == "server":
            raise ValueError("score taylor needs data: set score_source devices")
        if self.score_source == "devices" and (self.build != "progressive" or not self.first_event):
            raise ValueError(
                "score_source devices needs a round before the first event: build progressive and "
                "first_event 1 or more"
            )

    def count_levels(self, elapsed: int) -> int:
        """Return how many levels exist after so many finished rounds."""
        if self.build != "progressive":
            return len(self.widths)
        if elapsed < self.first_event:
            return 1
        return min(2 + (elapsed - self.first_event) // self.interval, len(self.widths))

    def is_scored(self, elapsed: int) -> bool:
        """Tell whether devices score channels in the round after so many finished ones."""
        is_next = self.count_levels(elapsed + 1) > self.count_levels(elapsed)
        return self.score_source == "devices" and is_next


@dataclass(frozen=True)
class State:
    """What the server keeps.

    Attributes:
        order: group -> its channels (blocks), those that are kept longest first; by index if empty.
        num_levels: that exist.
        built: round that began with the last pruning event; 0 before any.
        scores: of the devices, group -> ``[width]``, where an event comes next.
    """

    order: Mapping[str, Tensor] = field(default_factory=dict)
    num_levels: int = 1
    built: int = 0
    scores: Mapping[str, Tensor] = field(default_factory=dict)


def nest_channels(ctx: RoundContext, state: ServerState) -> State:
    """Return what the server keeps after the pruning events that are due ahead of a round.

    Events that are due together have one score, and so are one sort.
    """
    options, known = ctx.options, state.method or State()
    num = options.count_levels(state.round)
    if num == known.num_levels:
        return known
    order = known.order
    if options.build != "fixed":
        scores = known.scores or score_of_weights(options.score, ctx.layout, state.values)
        order = sort_leading(ctx.layout, order, scores, options.widths[known.num_levels - 1])
    return State(order, num, ctx.round)


def cut_levels(ctx: RoundContext, known: State, num: int) -> list[Support]:
    """Return the sub-models of the first levels."""
    widths = ctx.options.widths[:num]
    return [Support(keep_leading(ctx.layout, known.order, width)) for width in widths]


def count_copies(local: LocalConfig) -> int:
    """Return how many numbers a device holds in training for each one of its sub-model: as received
    and as trained, the gradient, and what the optimiser remembers."""
    moments = 2 if local.optimizer == "adam" else int(local.momentum > 0)
    return 3 + moments


def find_level(
    ctx: RoundContext, device: Device, sizes: Sequence[tuple[float, int]], limit_s: float
) -> int | None:
    """Return the largest level, counted from 1, with which a device meets the deadline and that its
    memory holds; None where there is none.

    Args:
        sizes: multiply-adds and bytes of the levels, the largest first.
    """
    copies = count_copies(ctx.local)
    for level, size in enumerate(sizes, start=1):
        seconds = ctx.time(device.client, device, size).total_s
        if seconds <= limit_s and copies * size[1] <= device.memory_bytes:
            return level
    return None


def find_deadline(ctx: RoundContext) -> float:
    """Return the seconds of a round that devices should keep within.

    By default these are the median of what the devices that are there need before round 1, each
    with the whole model and under its conditions at that time.
    """
    if ctx.options.deadline_s is not None:
        return float(ctx.options.deadline_s)
    there = [client for client in ctx.trainers if ctx.fleet.is_available(0, client)]
    devices = {client: ctx.fleet.at(0, client) for client in there or ctx.trainers}
    return median(time.total_s for time in ctx.times(Support(), devices).values())


def find_levels(
    ctx: RoundContext, known: State, supports: Sequence[Support], clients: Sequence[int]
) -> dict[int, int | None]:
    """Return the level of each client as :func:`find_level`, or the one set by hand."""
    options: Options = ctx.options
    if options.levels:
        by_hand = options.levels
        return {c: min(by_hand[c % len(by_hand)], len(supports)) for c in clients}
    sizes, limit_s = [ctx.size(support) for support in supports], find_deadline(ctx)
    is_frozen = options.level == "static" and known.num_levels == len(options.widths)
    at = known.built if is_frozen else ctx.round
    return {c: find_level(ctx, ctx.fleet.at(at, c), sizes, limit_s) for c in clients}


def average_scores(layout: Layout, answers: Sequence[Answer]) -> dict[str, Tensor]:
    """Return the mean of the devices' scores by samples; exact where all hold the channel, as all
    hold the smallest level."""
    means = {name: torch.zeros(group.width) for name, group in layout.prunable.items()}
    total = sum(answer.num_examples for answer in answers)
    for answer in answers:
        for name, mean in means.items():
            kept = answer.support.keep.get(name, slice(None))
            mean[kept] += answer.work.stats[name] * (answer.num_examples / total)
    return means


def recall_own(cx: ClientContext) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a device's weights after its last training, and where they were in its sub-model."""
    own, rounds = cx.recall("model"), cx.recall("round")
    newest = max((float(x.max()) for x in rounds.values()), default=0.0)
    return own, {name: x == newest for name, x in rounds.items()}


def mix_own(cx: ClientContext) -> dict[str, Tensor]:
    """Return what a device starts from: received parameters, where it has own ones mixed with
    them."""
    own, held = recall_own(cx)
    start, share = dict(cx.received), cx.options.personal_mix
    for name in own.keys() & cx.site.layout.parameters.tensors.keys():
        mixed = share * own[name] + (1 - share) * start[name]
        start[name] = torch.where(held[name], mixed, start[name])
    return start


class NestFL(Method):
    """Nested sub-models per device by its speed, link and memory (reconstruction)."""

    source: ClassVar[str] = "Zhou et al., MobiCom 2022 (abstract)"
    traits: ClassVar[Traits] = Traits(
        cuts="channels", sub_models="own", models="personal", coordinates=True
    )
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that the run ends before all levels exist."""
        num, there = len(options.widths), options.count_levels(rounds - 1)
        if there == num:
            return []
        last = options.first_event + (num - 2) * options.interval
        return [
            f"`method.widths` has {num} levels, of which the run of {rounds} rounds gets {there}; "
            f"lower method.first_event or method.interval, or set rounds above {last}"
        ]

    def select(self, ctx: RoundContext, state: ServerState) -> list[int]:
        """Draw a cohort, with `drop_slow` of those that meet the deadline at the smallest level.

        Raises:
            RecipeError: nobody does.
        """
        if not ctx.options.drop_slow:
            return sample_cohort(ctx)
        known = nest_channels(ctx, state)
        smallest = cut_levels(ctx, known, len(ctx.options.widths))[-1:]
        levels = find_levels(ctx, known, smallest, ctx.available)
        in_time = [client for client, level in levels.items() if level]
        if levels and not in_time:
            raise RecipeError(
                f"no client meets the deadline of {find_deadline(ctx):.3g} s in round {ctx.round}",
                hint="raise method.deadline_s, or set method.drop_slow=false",
                where="method.drop_slow",
            )
        return sample_cohort(ctx, in_time)

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Give every device the sub-model of its level."""
        known = nest_channels(ctx, state)
        supports = cut_levels(ctx, known, known.num_levels)
        note = {"score": True} if ctx.options.is_scored(state.round) else {}
        asks = []
        for client, found in find_levels(ctx, known, supports, ctx.cohort).items():
            level = found or len(supports)
            record = {"level": level, "ratio": 1 - ctx.options.widths[level - 1]}
            asks.append(Ask(client, note=note, support=supports[level - 1], record=record))
        return asks

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, keep the result as the device's own model, and score channels ahead of events."""
        layout = cx.site.layout
        if cx.options.personal_mix:
            cx = replace(cx, job=replace(cx.job, values=mix_own(cx)))
            model.load_state_dict(cx.received, strict=False)
        by_taylor = bool(cx.note) and cx.options.score == "taylor"
        scores: dict[str, Tensor] = {}

        def add_saliency(model: nn.Module) -> None:
            named = dict(model.named_parameters())
            blocks = (
                {name: x.detach().cpu() for name, x in named.items()},
                {name: x.grad.cpu() for name, x in named.items() if x.grad is not None},
            )
            values, gradients = (cx.support.scatter(layout, block)[0] for block in blocks)
            for name, size in measure_saliency(layout, values, gradients).items():
                scores[name] = scores.get(name, 0.0) + size

        fitted = fit(model, cx, self.loss, after_backward=add_saliency if by_taylor else None)
        trained = model.state_dict()
        own = {name: trained[name].detach().cpu().clone() for name in cx.received}
        cx.remember("model", own)
        cx.remember("round", {name: torch.full_like(x, cx.round) for name, x in own.items()})
        if cx.note and not by_taylor:
            values, _ = cx.support.scatter(layout, own)
            scores = score_of_weights(cx.options.score, layout, values)
        steps, keep = fitted.num_steps if by_taylor else 1, cx.support.keep
        stats = {name: x[keep.get(name, slice(None))] / steps for name, x in scores.items()}
        return cx.result(model, fitted, stats=stats)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average every parameter over its holders; one that nobody holds stays as it is."""
        options, known = ctx.options, nest_channels(ctx, state)
        weights = [
            a.num_examples * options.widths[a.ask.record["level"] - 1] ** options.psi
            for a in answers
        ]
        new = merge_answers(ctx, state, answers, weights=weights, absent="skip")
        scores = average_scores(ctx.layout, answers) if options.is_scored(state.round) else {}
        ctx.log(None, num_levels=known.num_levels, level_deadline_s=find_deadline(ctx))
        return replace(new, method=replace(known, scores=scores))

    def view(self, cx: ClientContext, values: Tensors) -> Tensors:
        """Predict with the sub-model as last trained, 0 elsewhere; with the common model before."""
        own, held = recall_own(cx)
        return {name: torch.where(held[name], x, 0.0) for name, x in own.items()} or values
