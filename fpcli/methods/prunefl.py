"""PruneFL: one sparse model for all clients, of the size that learns most per second.

Source: Jiang, Wang, Valls, Ko, Lee, Leung, Tassiulas, "Model Pruning Enables Efficient Federated
Learning on Edge Devices", IEEE TNNLS 2023, and its official code. Stage 1: one client prunes the
initial model on its own data. Stage 2: federated averaging on the sparse model; every ``interval``
rounds weights leave and return, so that importance per second of a round is greatest.
Symbols: I is `importance`, c and t_l are `LinearTime`, p is `Options.share`, r is `elapsed`.
recipes/prunefl tells what is known from where; the body of the paper was not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, pairwise
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from fpcli.engine.client import ClientContext
from fpcli.engine.fit import Batch, Result, Work, cross_entropy, fit
from fpcli.engine.measure import accuracy, gradients, one_hot_loss
from fpcli.engine.method import Kind, Method, RoundContext, merged
from fpcli.engine.types import Answer, LocalConfig, Plan, Probe, ServerState, Support, Update
from fpcli.fleet.linear import LinearTime, slowest_time, stepwise_time
from fpcli.scores.gradients import accumulated, snip, spread, squared
from fpcli.structure.budget import largest, maskable, reconfigure
from fpcli.structure.layout import Tensors
from fpcli.wire.blocks import decode, encode

MEASURE_EVERY, START_ACCURACY = 10, 1.5  # passes; times the accuracy of guessing
TOLERANCE, NUM_STABLE = 0.1, 5  # so many small changes of size in a row end stage 1
NUM_ITERATIONS = 20  # steps of the control `iterative`
LOSSES = {"cross_entropy": cross_entropy, "one_hot": one_hot_loss}


@dataclass(frozen=True)
class Options:
    """Options of `prunefl`."""

    control: Literal["adaptive", "conventional", "snip", "random", "iterative"] = "adaptive"
    """What decides the masks: the method, or a rival (nothing, SNIP, chance, magnitude)."""
    interval: Annotated[int, Ge(0)] = 50
    """Rounds from one reconfiguration to the next, and before the first; 0 means none."""
    drop_share: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of each layer's weights that may leave at once, smallest first (paper: p)."""
    half_life: Annotated[float, Gt(0)] = 10000.0
    """Rounds in which `drop_share` halves."""
    max_density: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of weights alive beyond which none returns."""
    importance: Literal["sum", "last", "step_sq"] = "sum"
    """What is squared: the sum of a round's gradients, the last one, or every single one."""
    window: Literal["auto", "interval", "round"] = "auto"
    """Rounds of importance: all since the last reconfiguration, or the present one; `auto` means
    `round` where cohorts are samples."""
    regrow_init: Literal["keep", "zero"] = "keep"
    """Value of a weight that returns: what the server last had, or 0."""
    ip_passes: Annotated[int, Ge(0)] = 100
    """Most passes of stage 1; 0 leaves it out."""
    ip_batches: Annotated[int, Ge(1)] = 10
    """Batches of stage 1, drawn once."""
    ip_interval: Annotated[int, Ge(1)] = 50
    """Passes from one reconfiguration of stage 1 to the next."""
    ip_regrow: bool = False
    """Let weights return in stage 1 too."""
    c: Annotated[float, Gt(0)] | None = None
    """Seconds of a local step that no mask shortens; null takes all times from the fleet."""
    comp: tuple[Annotated[float, Ge(0)], ...] = ()
    """Seconds of a local step per alive weight, one number per layer; needs `c`."""
    comm: Annotated[float, Ge(0)] = 5.561621025626998e-06
    """Seconds of a round per alive weight for sending it both ways; used with `c`."""
    dense_passes: Annotated[int, Ge(0), Le(3)] = 1
    """Of a step's three passes, those that masks do not shorten, in times from the fleet."""
    loss: Literal["cross_entropy", "one_hot"] = "cross_entropy"
    """Softmax cross-entropy, or binary cross-entropy against one-hot targets."""
    density: Annotated[float, Gt(0), Le(1)] = 0.2
    """Share of weights that `snip`, `random` and `iterative` leave alive."""

    def __post_init__(self) -> None:
        if (self.c is None) != (not self.comp):
            raise ValueError("`c` and `comp` belong together: give both or none")

    def is_due(self, elapsed: int) -> bool:
        """Tell whether masks change after ``elapsed`` finished rounds and this one."""
        return self.interval > 0 and elapsed > 0 and elapsed % self.interval == 0

    def share(self, elapsed: int) -> float:
        """Return the share of a layer's weights that may leave."""
        return float(self.drop_share * 0.5 ** (elapsed / self.half_life))


@dataclass(frozen=True)
class State:
    """Importance since the last reconfiguration, and who certainly has the present masks."""

    importance: Mapping[str, Tensor] = field(default_factory=dict)
    holders: tuple[int, ...] = ()


def round_time(ctx: RoundContext) -> LinearTime:
    """Return c and t_l: as given by hand, or of the fleet's slowest client."""
    options, names = ctx.options, maskable(ctx.layout)
    if options.c is not None:
        steps = math.ceil(max(ctx.num_examples) / ctx.local.batch_size) * ctx.local.epochs
        return stepwise_time(names, options.c, options.comp, options.comm, steps)
    samples = [num * ctx.local.epochs for num in ctx.num_examples]
    return slowest_time(ctx.layout, names, ctx.fleet, samples, dense_passes=options.dense_passes)


def shows_gradients(options: Options, local: LocalConfig) -> bool:
    """Tell whether the change of a weight is minus lr times the sum of its gradients."""
    other = local.momentum or local.weight_decay or local.clip_norm or local.lr == 0
    return not other and options.importance == "sum"


def duties(ctx: RoundContext, elapsed: int) -> tuple[bool, bool]:
    """Tell whether clients send importance this round, and whether they add it up over rounds."""
    options, everyone = ctx.options, ctx.clients_per_round >= len(ctx.trainers)
    is_on = options.control == "adaptive" and options.interval > 0
    is_long = options.window == "interval" or (options.window == "auto" and everyone)
    return is_on and options.is_due(elapsed), is_on and is_long


def collect(ctx: RoundContext, known: Tensors, updates: Sequence[Update]) -> dict[str, Tensor]:
    """Add the clients' importance of one round to what is known, for every parameter.

    Alive weights and biases show it by their change where `shows_gradients`; ``stats`` bring the
    rest, flat: dead weights, or else everything. A part of the wrong size does not count.
    """
    names = [name for name, spec in ctx.layout.tensors.items() if spec.is_parameter]
    out = {n: known[n] if n in known else torch.zeros(ctx.layout.tensors[n].shape) for n in names}
    for update in updates:
        local, masks = update.plan.local, update.plan.support.mask
        is_shown = shows_gradients(ctx.options, local)
        for name, change in ((name, update.delta[name]) for name in names):
            unseen = torch.full(change.shape, not is_shown)
            if is_shown:
                num = update.num_examples * local.epochs
                out[name] = out[name] + squared(change / local.lr, num, "sum")
                unseen = ~masks[name] if name in masks else unseen
            out[name] = out[name] + spread(update.stats.get(name), unseen)
    return out


def loss_of(cx: ClientContext, model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss that the options name."""
    return LOSSES[cx.options.loss](model, batch)


def one_shot(cx: ClientContext, model: nn.Module, buffer: Sequence[Batch]) -> dict[str, Tensor]:
    """Return the masks of the rivals that prune once, by chance or by SNIP's scores."""
    weights = {n: w for n, w in model.named_parameters() if n in cx.note["weight_s"]}
    if cx.options.control == "random":
        scores = {n: torch.rand(w.shape, generator=cx.rng(f"mask/{n}")) for n, w in weights.items()}
    else:
        scores = snip(weights, [gradients(model, loss_of(cx, model, batch)) for batch in buffer])
    return largest({name: score.cpu() for name, score in scores.items()}, cx.options.density)


def prune_alone(
    cx: ClientContext, model: nn.Module, buffer: Sequence[Batch]
) -> tuple[dict[str, Tensor], int]:
    """Train in place on the same batches, reconfiguring until the size settles (stage 1).

    Returns:
        The masks, with dead weights at 0 in the model, and the number of steps.
    """
    options, weights = cx.options, dict(model.named_parameters())
    goal = START_ACCURACY / cx.site.dataset.num_classes
    masks = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in cx.note["weight_s"]}
    totals = {name: torch.zeros_like(weight.detach()) for name, weight in weights.items()}
    start, number, sizes = 0, 0, []
    for number in range(1, options.ip_passes + 1):
        for batch in buffer:
            for name, gradient in gradients(model, loss_of(cx, model, batch)).items():
                step = gradient * masks[name] if name in masks else gradient
                totals[name] += (gradient if options.ip_regrow else step).square()
                weights[name].data -= cx.local.lr * step
        if not start and number % MEASURE_EVERY == 1 and accuracy(model, buffer) >= goal:
            start = number
        if not start or (number - start) % options.ip_interval:
            continue
        rule = {"share": options.drop_share, "max_density": options.max_density}
        new = reconfigure(weights, masks, totals, **cx.note, **rule)
        for name, mask in new.items():
            fresh = 0.0 if options.regrow_init == "zero" else cx.received[name].to(mask.device)
            values = torch.where(masks[name], weights[name].data, fresh)
            weights[name].data = torch.where(mask, values, 0.0)
        masks, totals = new, {name: torch.zeros_like(total) for name, total in totals.items()}
        sizes.append(sum(int(mask.sum()) for mask in masks.values()))
        changes = [abs(new / old - 1) for old, new in pairwise(sizes)]
        if len(changes) >= NUM_STABLE and max(changes[-NUM_STABLE:]) <= TOLERANCE:
            break
    return {name: mask.cpu() for name, mask in masks.items()}, number * len(buffer)


class PruneFL(Method):
    """Two-stage adaptive pruning of single weights, one mask for all clients."""

    source: ClassVar[str] = "Jiang et al., TNNLS 2023"
    kind: ClassVar[Kind] = "masks"
    remembers_mask: ClassVar[bool] = True
    trains_sparse: ClassVar[bool] = True
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def probe(self, ctx: RoundContext, state: ServerState, cohort: Sequence[int]) -> list[Probe]:
        """Ask the selected client for the first masks."""
        options: Options = ctx.options
        asks = {"adaptive": options.ip_passes > 0, "snip": True, "random": True}
        if ctx.phase == "start" and asks.get(options.control):
            selected = min(ctx.available, default=0)
            return [Probe(selected, "prune", note=asdict(round_time(ctx)))]
        return []

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        """Return values and masks, encoded like a sparse message."""
        model.train()
        buffer = list(islice(cx.batches(), cx.options.ip_batches))
        if cx.options.control == "adaptive":
            masks, num_steps = prune_alone(cx, model, buffer)
        else:
            masks, num_steps = one_shot(cx, model, buffer), 0
        state = model.state_dict()
        values = {name: state[name].cpu().contiguous() for name in cx.received}
        return Work(encode("sparse", values, masks, is_known=False), num_steps)

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Start from the sparse model; of dead weights the server keeps its own values, or 0."""
        shapes = {name: spec.shape for name, spec in ctx.travels.tensors.items()}
        values, masks = decode("sparse", answers[0].tensors, shapes, {})
        masks = {name: masks[name] for name in maskable(ctx.layout) if name in masks}
        for name, mask in masks.items():
            dead = 0.0 if ctx.options.regrow_init == "zero" else state.values[name]
            values[name] = torch.where(mask, values[name], dead)
        return replace(state, values=values, support=Support(mask=masks), method=State())

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        """Send the sparse model, and its masks to those that may not have them."""
        known, send, keep = state.method or State(), *duties(ctx, state.round)
        note = {"send": send, "keep": keep} if send or keep else {}
        return Plan(client, state.support, ctx.local, note, is_mask_known=client in known.holders)

    def train(self, cx: ClientContext, model: nn.Module) -> Result:
        """Train, and in some rounds add up the importance that the server cannot see."""
        if not cx.note:
            return cx.result(model, fit(model, cx, loss_of))
        rule, is_shown = cx.options.importance, shows_gradients(cx.options, cx.local)
        weights = {n: w for n, w in model.named_parameters() if n in cx.mask or not is_shown}
        sums = {name: torch.zeros_like(weight.detach()) for name, weight in weights.items()}

        def add(_: nn.Module) -> None:
            for name, weight in weights.items():
                if weight.grad is not None:
                    sums[name] = accumulated(sums[name], weight.grad, rule)

        fitted = fit(model, cx, loss_of, after_backward=add)
        earlier = cx.recall("importance") if cx.note["keep"] else {}
        own = {
            name: squared(total, fitted.num_samples, rule).cpu() + earlier.get(name, 0.0)
            for name, total in sums.items()
        }
        if cx.note["keep"]:
            left = 0.0 if cx.note["send"] else 1.0  # what is sent starts again from nothing
            cx.remember("importance", {name: left * value for name, value in own.items()})
        sent = own if cx.note["send"] else {}
        stats = {n: v[~cx.mask[n].cpu()] if is_shown else v.flatten() for n, v in sent.items()}
        return cx.result(model, fitted, stats=stats)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, updates: Sequence[Update]
    ) -> ServerState:
        """Average the alive weights; when it is time, choose which ones are alive."""
        options, known, elapsed = ctx.options, state.method or State(), state.round
        new, importance = merged(ctx, state, updates), known.importance
        masks = old = {
            name: state.support.mask.get(name, torch.ones_like(state.values[name]).bool())
            for name in maskable(ctx.layout)
        }
        if any(duties(ctx, elapsed)):
            importance = collect(ctx, importance, updates)
        if options.control == "adaptive" and options.is_due(elapsed):
            rule = {"share": options.share(elapsed), "max_density": options.max_density}
            masks = reconfigure(new.values, old, importance, **asdict(round_time(ctx)), **rule)
            importance = {}
        elif options.is_due(elapsed) and options.control == "iterative":
            done = min(1.0, elapsed / options.interval / NUM_ITERATIONS)
            scores = {n: torch.where(mask, new.values[n].abs(), -1.0) for n, mask in old.items()}
            masks = largest(scores, options.density**done)
        ctx.log(None, density={name: float(mask.float().mean()) for name, mask in masks.items()})
        holders = {*known.holders} - {*ctx.cohort} | {update.plan.client for update in updates}
        if any(not torch.equal(masks[name], mask) for name, mask in old.items()):
            holders, values = set(), dict(new.values)
            if options.regrow_init == "zero":
                values |= {name: torch.where(masks[name], values[name], 0.0) for name in masks}
            new = replace(new, values=values, support=Support(mask=masks))
        return replace(new, method=State(importance, tuple(sorted(holders))))
