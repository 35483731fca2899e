"""FedDUAP: the server trains on samples of its own, and prunes channels once.

Source: Zhang, Liu, Jia, Zhou, Dai, Dou, "FedDUAP: Federated Learning with Dynamic Update and
Adaptive Pruning Using Shared Data on the Server", IJCAI 2022, and PaddleFL's `fedDUAP`. FedDU:
after each aggregation the server trains a copy of the model on its own samples and moves a share
alpha of the way there, the less the more accurate the model is and the more its samples' labels are
skewed. FedAP: once, every client tells a pruning rate that it reads from the curvature of its loss;
their mean becomes a rate for each convolution, whose filters of lowest rank leave.

=========================  =========================================================
symbol of the paper        here
=========================  =========================================================
P_k, D(P_k)                `State.labels`, `measure_skews`
alpha, tau_eff             `server_step` of a round's notes: ``share``, ``num_steps``
p_k, p*                    `measure_rate`, `average_rates`
T_prune                    `Options.prune_round`
=========================  =========================================================

Only the abstract was at hand; recipes/fedduap tells what is known from where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from fpcli import plugins
from fpcli.data.distances import measure_skews
from fpcli.engine.evaluate import evaluate
from fpcli.engine.measure import can_be_counts
from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, merge_answers
from fpcli.engine.server_training import train_on_server
from fpcli.engine.types import Answer, Ask, ServerState, Support, Tensors, Work
from fpcli.pruning.fedap import (
    MAX_RATE,
    average_rates,
    choose_filters,
    draw_batches,
    list_kernels,
    measure_rate,
)
from fpcli.scores.rates import spread_rate
from fpcli.scores.sample import Sample, needs_sample, score
from fpcli.settings.pruning_rate import RateRule
from fpcli.structure.merge import interpolate
from fpcli.structure.patterns import keep_window
from fpcli.tasks.learning_task import Score

LABELS, RATE, INITIAL = "labels", "rate", "initial"


@dataclass(frozen=True)
class Options(RateRule):
    """Options of `fedduap`."""

    server_update: Literal["feddu", "hybrid", "none"] = "feddu"
    """What the server trains: FedDU; the last round's model, averaged with those of the clients by
    samples (the rival Hybrid-FL); or nothing."""
    server_c: Annotated[float, Ge(0)] = 1.0
    """Factor on the share of the server's step (paper: C)."""
    server_f: Literal["error", "constant"] = "error"
    """How that share goes by the accuracy on the server's samples: 1 - accuracy, or not at all."""
    server_decay: Annotated[float, Gt(0), Le(1)] = 0.99
    """Factor on that share from round to round."""
    share_floor: Annotated[float, Ge(0)] = 0.0
    """A share of this or less leaves the step out (official code: 0.001)."""
    undo_above: Annotated[float, Ge(0)] = 3.0
    """A step that raises the loss on the server's samples to this many times what it was does not
    count; 0 lets all count."""
    prune_round: Annotated[int, Ge(0)] = 10
    """Finished rounds after which the model is pruned (official code: 30 of 500); 0 means never."""
    prune_rate: Annotated[float, Ge(0), Lt(1)] = 0.6
    """Rate of every layer under `fixed`."""
    reporters: Literal["all", "cohort"] = "all"
    """Which clients tell a rate."""
    score: str = "feature-rank"
    """What ranks the filters of a layer; the lowest leave."""
    rank_images: Annotated[int, Ge(1), Le(500)] = 500
    """Samples of the server that a score looks at if it looks at data."""
    rank_rule: Literal["count", "range"] = "count"
    """Which filters leave at a rate: so many, or those in so low a part of the range of scores."""
    residual: Literal["inner-only", "group-sum"] = "inner-only"
    """Channels of maps that are added up: stay, or leave together by the sum of their scores."""

    def __post_init__(self) -> None:
        plugins.find_reference("scores", self.score)
        if self.server_update == "none" and not self.prune_round:
            raise ValueError("server_update none and prune_round 0 leave fedavg: use that")

    @property
    def asks_rates(self) -> bool:
        """Whether clients tell a rate."""
        return self.prune_round > 0 and self.rate_rule != "fixed"

    @property
    def updates(self) -> bool:
        """Whether FedDU moves the model."""
        return self.server_update == "feddu" and self.server_c > 0


@dataclass(frozen=True)
class State:
    """Client -> samples of each class, int64 ``[classes]``; initial values for `gap`; and whether
    the model is pruned."""

    labels: Mapping[int, Tensor] = field(default_factory=dict)
    initial: Tensors = field(default_factory=dict)
    is_pruned: bool = False


def weigh_server(num_own: int, own_skew: float, num_theirs: int, their_skew: float) -> float:
    """Return the server's weight by samples and labels, in [0, 1] (paper: rho).

    Args:
        num_own, own_skew: samples of the server, and how skewed their labels are.
        num_theirs, their_skew: the same of the clients of a round together.
    """
    if not num_own or not num_theirs:
        return 0.0
    if not own_skew and not their_skew:
        return num_own / (num_own + num_theirs)
    mine = num_own * their_skew
    return mine / (mine + num_theirs * own_skew)


def choose_share(options: Options, accuracy: float, weight: float, elapsed: int) -> float:
    """Return which share of the way to its own model the server goes (paper: alpha).

    Args:
        accuracy: of the aggregated model on the server's samples, in [0, 1].
        weight: see :func:`weigh_server`.
        elapsed: finished rounds.

    Source: FedDUAP, equation 5.
    """
    damping = 1 - accuracy if options.server_f == "error" else 1.0
    return damping * weight * options.server_c * options.server_decay**elapsed


def find_kernels(ctx: RoundContext) -> dict[str, list[str]]:
    """Return which groups may lose filters, with their kernels."""
    with_sums = ctx.options.residual == "group-sum"
    return list_kernels(ctx.layout, ctx.server.template, with_sums=with_sums)


def prune(ctx: RoundContext, state: ServerState, rate: float, **told: Any) -> ServerState:
    """Return the state with a smaller model.

    Args:
        rate: p*, or the rate of every layer where the rule is `fixed`.
        told: is noted beside it.
    """
    options, layout, server = ctx.options, ctx.layout, ctx.server
    kernels = find_kernels(ctx)
    rates = dict.fromkeys(kernels, rate)
    if options.rate_rule != "fixed":
        parameters = {name: state.values[name] for name in layout.parameters.tensors}
        rates = spread_rate(parameters, kernels, rate)
    sample = None
    if needs_sample(options.score):
        batches = draw_batches(
            server.dataset, server.indices, options.rank_images, server.rng("rank")
        )
        server.charge(sum(len(y) for _, y in batches), state.support, passes="forward")
        sample = Sample(server.template, batches, server.dataset.task, ctx.seed)
    scores = score(options.score, layout, state.values, sample)
    keep, layers = {}, {}
    for name, layer_rate in rates.items():
        group = layout.groups[name]
        channels = choose_filters(scores[name], layer_rate, options.rank_rule, group.block)
        layers[name] = {"rate": layer_rate, "kept": len(channels), "width": group.width}
        if len(channels) < group.width:
            keep[name] = channels
    support = Support(keep)
    values, _ = support.scatter(layout, support.gather(layout, state.values))
    ctx.log(None, pruned={"rate": rate, "layers": layers, **told})
    method = replace(state.method, initial={}, is_pruned=True)
    return replace(state, values=values, support=support, method=method)


def update_on_server(
    ctx: RoundContext, state: ServerState, clients: Sequence[int]
) -> dict[str, Tensor]:
    """Return the values after the server's step (FedDU).

    Args:
        state: with the aggregated model.
        clients: whose models were aggregated; one whose labels are not known does not count.
    """
    options, server, labels = ctx.options, ctx.server, state.method.labels
    values, support, num = dict(state.values), state.support, server.num_examples
    if ctx.round == 1 and ctx.clients_per_round >= len(ctx.trainers):
        text = "all clients take part in every round, so that their labels together are never"
        ctx.log(None, warning=f"{text} skewed, and FedDU never moves the model")
    present = [labels[client] for client in clients if client in labels]
    if not present or not num:
        return values
    pooled, everyone = torch.stack(present).sum(0), torch.stack([*labels.values()]).sum(0)
    theirs, own = measure_skews([pooled, server.label_counts], everyone)
    weight = weigh_server(num, own, int(pooled.sum()), theirs)
    if not weight:
        return values
    before = _judge(ctx, values, support)
    share = choose_share(options, before.metrics["accuracy"], weight, state.round)
    note = {"accuracy": before.metrics["accuracy"], "weight": weight, "share": share}
    is_undone = False
    if share > options.share_floor:
        new = interpolate(values, train_on_server(ctx, values, support), share)
        if options.undo_above:
            loss = _judge(ctx, new, support).loss
            is_undone = not loss < options.undo_above * before.loss
        values = values if is_undone else new
    steps = share * math.ceil(num * ctx.local.epochs / ctx.local.batch_size)
    ctx.log(None, server_step={**note, "num_steps": steps, "is_undone": is_undone})
    return values


def _judge(ctx: RoundContext, values: Tensors, support: Support) -> Score:
    server = ctx.server
    server.charge(server.num_examples, support, passes="forward")
    model = server.module(values, support)
    return evaluate(model, server.samples, server.dataset, channels_last=server.is_channels_last)


class FedDUAP(Method):
    """Training on the server's own samples after each round, and one pruning by layers."""

    source: ClassVar[str] = "Zhang et al., IJCAI 2022"
    traits: ClassVar[Traits] = Traits(cuts="channels", needs_server_data=True, needs_classes=True)
    defaults: ClassVar[Mapping[str, Any]] = {"task.server_share": 0.1}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def traits_of(self, options: Any) -> Traits:
        """Return the traits: the server needs samples to train on, or to rank filters by."""
        ranks = options.prune_round > 0 and needs_sample(options.score)
        return replace(self.traits, needs_server_data=options.server_update != "none" or ranks)

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that no round trains a pruned model."""
        at = options.prune_round
        if at < rounds:
            return []
        lower = f"set method.prune_round below {rounds}, or " if rounds > 1 else "set "
        return [
            f"`method.prune_round` is {at}, but the run ends after round {rounds}: no round trains "
            f"a pruned model; {lower}rounds above {at}"
        ]

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Start with nothing known.

        Raises:
            LayoutError: the model is to be pruned, and none of its convolutions may be.
        """
        options: Options = ctx.options
        if options.prune_round:
            find_kernels(ctx)
        needs_initial = options.asks_rates and options.rate_rule == "gap"
        return replace(state, method=State(initial=state.values if needs_initial else {}))

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Ask everybody for its labels at the start, and for a pruning rate when it is time."""
        options, method = ctx.options, state.method
        if ctx.phase == "start" and (options.updates or options.asks_rates):
            # A job carries a model: the smallest, unless clients are to remember the initial one.
            smallest = Support(keep_window(ctx.layout, 0.0))
            support = state.support if method.initial else smallest
            return [Ask(client, LABELS, support=support) for client in ctx.trainers]
        if ctx.phase == "round" and options.asks_rates and not method.is_pruned:
            told = method.labels if options.reporters == "all" else ctx.cohort
            if state.round >= options.prune_round:
                known = sorted({*told} & {*method.labels})
                return [Ask(client, RATE, support=state.support) for client in known]
        return []

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        """Return how many samples of each class the client has, or the rate that it measures."""
        options, data = cx.options, cx.site.dataset
        is_gap = options.rate_rule == "gap"
        if op == LABELS:
            if options.asks_rates and is_gap:
                cx.remember(INITIAL, cx.received)
            counts = data.train.labels[cx.samples].bincount(minlength=data.num_classes)
            return Work({LABELS: counts.int()}, metrics={"compute_s": 0.0})
        initial = cx.recall(INITIAL) if is_gap else {}
        found = measure_rate(options, model, data, cx.samples, initial, cx.rng(RATE))
        seconds = cx.train_seconds(found.num_samples, cx.support)
        told = {RATE: found.rate, "has_gap": float(found.has_gap), "compute_s": seconds}
        return Work({}, metrics=told)

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Keep the labels; or average the rates, the server's own among them, and prune."""
        method, options, server = state.method, ctx.options, ctx.server
        if answers[0].ask.op == LABELS:
            labels, shape = {}, (server.dataset.num_classes,)
            for answer in answers:
                told = answer.work.values.get(LABELS, torch.zeros(0))
                if told.shape == shape and told.any() and can_be_counts(told, answer.num_examples):
                    labels[answer.ask.client] = told.long()
            return replace(state, method=replace(method, labels=labels))
        said = {answer.ask.client: answer.work.metrics for answer in answers}
        rates = [min(max(metrics.get(RATE, 0.0), 0.0), MAX_RATE) for metrics in said.values()]
        has_gap = [metrics.get("has_gap", 0.0) > 0 for metrics in said.values()]
        counts = [method.labels[client] for client in said]
        note: dict[str, Any] = {"clients": dict(zip(map(str, said), rates, strict=True))}
        if server.num_examples:
            model = server.module(state.values, state.support)
            rng = server.rng(RATE)
            own = measure_rate(options, model, server.dataset, server.indices, method.initial, rng)
            server.charge(own.num_samples, state.support)
            rates, counts = [*rates, own.rate], [*counts, server.label_counts]
            has_gap.append(own.has_gap)
            note["server"] = own.rate
        if options.rate_rule == "gap" and not all(has_gap):
            ctx.log(
                None,
                warning=f"{has_gap.count(False)} of {len(has_gap)} spectra have no gap "
                f"wider than 4 L: their rate is by method.no_gap={options.no_gap}",
            )
        everyone = torch.stack([*method.labels.values()]).sum(0)
        sizes = [int(x.sum()) for x in counts]
        rate = average_rates(rates, sizes, measure_skews(counts, everyone))
        return prune(ctx, state, rate, **note)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average, train on the server, and prune if the rate is known and it is time."""
        options, server = ctx.options, ctx.server
        new = merge_answers(ctx, state, answers)
        if options.updates:
            clients = [answer.ask.client for answer in answers]
            new = replace(new, values=update_on_server(ctx, new, clients))
        elif options.server_update == "hybrid":
            own = train_on_server(ctx, state.values, state.support, beside=True)
            num = server.num_examples
            share = num / (num + sum(answer.num_examples for answer in answers))
            new = replace(new, values=interpolate(new.values, own, share))
        if options.rate_rule == "fixed" and ctx.round == options.prune_round:
            new = prune(ctx, new, options.prune_rate)
        return new
