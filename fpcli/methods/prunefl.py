"""PruneFL: one sparse model for all clients, of the size that learns most per second.

Source: Jiang, Wang, Valls, Ko, Lee, Leung, Tassiulas, "Model Pruning Enables Efficient Federated
Learning on Edge Devices", IEEE TNNLS 2023, and its official code. Stage 1: one client prunes the
initial model on its own data. Stage 2: federated averaging on the sparse model; every ``interval``
rounds weights leave and return, so that importance per second of a round is greatest.
Symbols: I is `importance`, c and t_l are `LinearTime`, p is `Options.share`, r is `elapsed`.
recipes/prunefl tells what is known from where; the body of the paper was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from fpcli.data.batches import find_batch_ends
from fpcli.engine.measure import compute_one_hot_loss
from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support, Timing, Work
from fpcli.fleet.linear import LinearTime, StepRates, model_slowest_time
from fpcli.pruning.at_density import prune_once, shrink_towards
from fpcli.pruning.importance import collect, fit_adding
from fpcli.pruning.settle import settle_masks, time_epochs
from fpcli.structure.budget import list_masked_weights
from fpcli.structure.layout import Tensors
from fpcli.structure.pairs import choose_entries
from fpcli.tasks.learning_task import Batch

NUM_ITERATIONS = 20  # steps of the control `iterative`


@dataclass(frozen=True)
class Options:
    """Options of `prunefl`."""

    control: Literal["adaptive", "conventional", "snip", "random", "iterative"] = "adaptive"
    """What decides the masks: the method, or a rival (nothing, SNIP, chance, magnitude)."""
    interval: Annotated[int, Ge(0)] = 5
    """Rounds from one reconfiguration to the next, and before the first (official code: 50 of
    10,001); 0 means none."""
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
    """Most passes of stage 1 (official code: 1000); 0 leaves it out."""
    ip_batches: Annotated[int, Ge(1)] = 10
    """Batches of stage 1, drawn once."""
    ip_interval: Annotated[int, Ge(1)] = 10
    """Passes from one reconfiguration of stage 1 to the next (official code: 50)."""
    ip_regrow: bool = False
    """Let weights return in stage 1 too."""
    free_ip: bool = False
    """Charge no simulated seconds for what comes before round 1, as the authors' simulation."""
    c: Annotated[float, Gt(0)] | None = None
    """Seconds of a local step that no mask shortens, for the masks and for the clock; null takes
    all times from the fleet."""
    comp: tuple[Annotated[float, Ge(0)], ...] = ()
    """Seconds of a local step per alive weight, one number per layer; needs `c`."""
    comm: Annotated[float, Ge(0)] = 5.561621025626998e-06
    """Seconds of a round per alive weight for sending it both ways; used with `c`."""
    dense_passes: Annotated[int, Ge(0), Le(3)] = 1
    """Of a step's three passes, those that masks do not shorten, in times from the fleet."""
    loss: Literal["cross_entropy", "one_hot"] = "cross_entropy"
    """That of what is learned, for classes softmax cross-entropy; or binary cross-entropy against
    one-hot targets of classes."""
    density: Annotated[float, Gt(0), Le(1)] = 0.2
    """Share of weights that `snip`, `random` and `iterative` leave alive."""

    def __post_init__(self) -> None:
        if (self.c is None) != (not self.comp):
            raise ValueError("`c` and `comp` belong together: give both or none")

    def is_due(self, elapsed: int) -> bool:
        """Tell whether masks change after ``elapsed`` finished rounds and this one."""
        return self.interval > 0 and elapsed > 0 and elapsed % self.interval == 0

    def window_start(self, elapsed: int) -> int:
        """Return the round with which the interval of importance began that is open after
        ``elapsed`` finished rounds; 0 where no reconfiguration lies before it."""
        earlier = (elapsed - 1) // self.interval if self.interval and elapsed else 0
        return earlier * self.interval + 2 if earlier else 0

    def share(self, elapsed: int) -> float:
        """Return the share of a layer's weights that may leave."""
        return float(self.drop_share * 0.5 ** (elapsed / self.half_life))


@dataclass(frozen=True)
class State:
    """Importance since the last reconfiguration."""

    importance: Mapping[str, Tensor] = field(default_factory=dict)


def given_rates(options: Options, names: Sequence[str]) -> StepRates | None:
    """Return the seconds that the options give by hand for the masked tensors, or None."""
    if options.c is None:
        return None
    return StepRates(names, options.c, options.comp, options.comm)


def num_steps(ctx: RoundContext, client: int) -> int:
    """Return the local steps of a client's round."""
    return ctx.local.epochs * len(find_batch_ends(ctx.num_examples[client], ctx.local.batch_size))


def round_time(ctx: RoundContext, names: Sequence[str]) -> LinearTime:
    """Return c and t_l: as given by hand, or of the fleet's slowest client."""
    options: Options = ctx.options
    if rates := given_rates(options, names):
        return rates.round_time(max(num_steps(ctx, client) for client in ctx.trainers))
    samples = [num * ctx.local.epochs for num in ctx.num_examples]
    num_dense = options.dense_passes
    return model_slowest_time(ctx.layout, names, ctx.fleet, samples, dense_passes=num_dense)


def assign_duties(ctx: RoundContext, elapsed: int) -> tuple[bool, bool]:
    """Tell whether clients send importance this round, and whether they add it up over rounds."""
    options, everyone = ctx.options, ctx.clients_per_round >= len(ctx.trainers)
    is_on = options.control == "adaptive" and options.interval > 0
    is_long = options.window == "interval" or (options.window == "auto" and everyone)
    return is_on and options.is_due(elapsed), is_on and is_long


def choose_masks(
    ctx: RoundContext, elapsed: int, values: Tensors, masks: Tensors, importance: Tensors
) -> Tensors:
    """Return the masks of the next rounds: reconfigured when it is time, or a rival's."""
    options: Options = ctx.options
    if options.is_due(elapsed) and options.control == "adaptive":
        return choose_entries(
            ctx.layout,
            values,
            masks,
            importance,
            **asdict(round_time(ctx, list(masks))),
            share=options.share(elapsed),
            max_density=options.max_density,
        )
    if options.is_due(elapsed) and options.control == "iterative":
        progress = elapsed / options.interval / NUM_ITERATIONS
        return shrink_towards(values, masks, options.density, progress)
    return masks


def find_loss(cx: ClientContext, model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss that the options name."""
    if cx.options.loss == "one_hot":
        return compute_one_hot_loss(model, batch)
    return cx.site.dataset.task.loss(model, batch)


class PruneFL(Method):
    """Two-stage adaptive pruning of single weights, one mask for all clients."""

    source: ClassVar[str] = "Jiang et al., TNNLS 2023"
    traits: ClassVar[Traits] = Traits(cuts="weights", remembers_masks=True, trains_sparse=True)
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "sparse"}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def list_masked(self, ctx: RoundContext) -> list[str]:
        """Return the tensors that have masks."""
        return list_masked_weights(ctx.layout)

    def merge(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Return the state with the mean of the clients' changes."""
        return merge_answers(ctx, state, answers)

    def traits_of(self, options: Any) -> Traits:
        """Return the traits; one-hot targets are of classes."""
        return replace(self.traits, needs_classes=options.loss == "one_hot")

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that no reconfiguration comes, or that magnitude does not get as far as asked."""
        interval, last = options.interval, NUM_ITERATIONS * options.interval
        if options.control not in ("adaptive", "iterative") or not interval:
            return []
        if interval >= rounds:
            lower = f"set method.interval below {rounds}, or " if rounds > 1 else "set "
            return [
                f"`method.interval` is {interval}, but the run ends after round {rounds}: no round "
                f"changes a mask; {lower}rounds above {interval}"
            ]
        if options.control == "iterative" and last >= rounds:
            return [
                f"`method.density` is not reached: {NUM_ITERATIONS} steps of {interval} rounds are "
                f"more than {rounds}; lower method.interval, or set rounds above {last}"
            ]
        return []

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Ask the selected client for the first masks."""
        options: Options = ctx.options
        asks = {"adaptive": options.ip_passes > 0, "snip": True, "random": True}
        if ctx.phase == "start" and asks.get(options.control):
            selected = min(ctx.available, default=0)
            time = round_time(ctx, self.list_masked(ctx))
            return [Ask(selected, "prune", note=asdict(time))]
        return []

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        """Return values and masks."""
        model.train()
        options, loss = cx.options, partial(find_loss, cx)
        buffer = list(islice(cx.batches(), options.ip_batches))
        if options.control == "adaptive":
            masks, trained = settle_masks(
                model,
                buffer,
                loss,
                lr=cx.local.lr,
                task=cx.site.dataset.task,
                layout=cx.site.layout,
                passes=options.ip_passes,
                interval=options.ip_interval,
                share=options.drop_share,
                max_density=options.max_density,
                may_regrow=options.ip_regrow,
                fresh=None if options.regrow_init == "zero" else cx.received,
                **cx.note,
            )
        else:
            masks = prune_once(
                model,
                buffer,
                loss,
                names=list(cx.note["weight_s"]),
                score=options.control,
                density=options.density,
                rng=lambda name: cx.rng(f"mask/{name}"),
            )
            trained = [{}] if options.control == "snip" else []  # a step of the whole model
        state = model.state_dict()
        values = {name: state[name].cpu().contiguous() for name in cx.received}
        seconds = dict.fromkeys(("compute_s", "down_s", "up_s"), 0.0)
        if not options.free_ip:
            rates = given_rates(options, list(cx.note["weight_s"]))
            seconds = time_epochs(cx, rates, buffer, trained, masks)
        return Work(values, masks, metrics=seconds)

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Start from the sparse model; of dead weights the server keeps its own values, or 0."""
        work = answers[0].work
        values, chosen = dict(work.values), work.mask or {}
        masks = {name: chosen[name] for name in self.list_masked(ctx) if name in chosen}
        for name, mask in masks.items():
            dead = 0.0 if ctx.options.regrow_init == "zero" else state.values[name]
            values[name] = torch.where(mask, values[name], dead)
        return replace(state, values=values, support=Support(mask=masks), method=State())

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send the sparse model."""
        send, keep = assign_duties(ctx, state.round)
        note = {"send": send, "keep": keep} if send or keep else {}
        asks = [Ask(client, note=note, support=state.support) for client in ctx.cohort]
        if rates := given_rates(ctx.options, self.list_masked(ctx)):
            alive = state.support.count(ctx.layout)
            seconds = (rates.seconds(num_steps(ctx, ask.client), alive) for ask in asks)
            return [replace(a, time=Timing(*s)) for a, s in zip(asks, seconds, strict=True)]
        return asks

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, and in some rounds add up the importance that the server cannot see."""
        if not cx.note:
            return cx.result(model, fit(model, cx, find_loss))
        since = cx.options.window_start(cx.round - 1)
        return fit_adding(cx, model, find_loss, cx.options.importance, since=since, **cx.note)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average the alive weights; when it is time, choose which ones are alive."""
        options, method_state, elapsed = ctx.options, state.method or State(), state.round
        new, importance = self.merge(ctx, state, answers), method_state.importance
        weights = {name: state.values[name] for name in self.list_masked(ctx)}
        old = state.support.masks_of(weights)
        if any(assign_duties(ctx, elapsed)):
            importance = collect(ctx, options.importance, importance, answers)
        masks = choose_masks(ctx, elapsed, new.values, old, importance)
        ctx.log(None, density={name: float(mask.float().mean()) for name, mask in masks.items()})
        if any(not torch.equal(masks[name], mask) for name, mask in old.items()):
            values = dict(new.values)
            if options.regrow_init == "zero":
                values |= {name: torch.where(masks[name], values[name], 0.0) for name in masks}
            new = replace(new, values=values, support=Support(mask=masks))
        return replace(new, method=State({} if options.is_due(elapsed) else importance))
