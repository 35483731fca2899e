"""Federated Pruning: the server drops units of weight matrices, and clients train what is left.

Source: Lin, Xiao, Yang, Zhao, Xiong, Motta, Beaufays, "Federated Pruning: Improving Neural Network
Efficiency with Federated Learning", INTERSPEECH 2022. Only the abstract and half of the
introduction were at hand: this is a reconstruction, not the authors' algorithm. The server keeps
every value, ranks units (columns, halves of columns, ...) by scores that cost clients nothing,
drops more of them along a ramp, and then goes on ranking, so that units return.
Symbols: s_f is `Options.sparsity`, r_0 `ramp_start`, r_1 `ramp_end`, r_end `refine_end`, beta
`decay`; W is ``ServerState.values``, V `State.momentum`, M the support's mask.
recipes/federated-pruning tells what is known from where.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from fpcli.engine.method import Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support
from fpcli.errors import RecipeError
from fpcli.rng import stream
from fpcli.structure.budget import find_embeddings, list_masked_weights
from fpcli.structure.mask_units import (
    average_units,
    drop_by_layer,
    drop_over_layers,
    let_return,
    list_kept_units,
    number_units,
    turn_pattern,
    write_bits,
)

_REGROW = re.compile(r"random:(0?\.\d+|1(?:\.0*)?)")
DROPS = {
    "row": "an output of all inputs",
    "column": "an input of all outputs",
    "half-row": "an output of half of the inputs",
    "half-column": "an input of half of the outputs",
    "element": "single weights",
}
"""Pattern of [out, in] -> what one unit is, in words."""
MOST_UNITS = 8192
"""Units of a layer up to which events say which of them stay."""


@dataclass(frozen=True)
class Options:
    """Options of `federated-pruning`."""

    sparsity: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Share of the prunable weights that is dropped at last (s_f)."""
    pattern: str = "half-column"
    """Units that stay or leave as one, of a matrix [out, in]: row, column, half-row, half-column,
    block:AxB, element."""
    kernel_layout: Literal["torch", "tf"] = "torch"
    """What rows are: outputs (torch), or inputs, as in TensorFlow's kernels [in, out]."""
    score: Literal["magnitude", "l2", "momentum", "taylor", "random"] = "magnitude"
    """Mean over a unit: of |W|, of W^2 (its root), of V, of |W V|; or chance."""
    budget: Literal["adaptive", "uniform"] = "adaptive"
    """Units of all layers compete, each by its score over the layer's root mean square; or every
    layer loses the same share of its units."""
    cap: Annotated[float, Gt(0), Le(1)] = 0.9
    """Largest share of a layer's units that `adaptive` drops."""
    ramp: Literal["cubic", "one-shot"] = "cubic"
    """The share that is dropped grows from 0 to `sparsity`, fast at first; or is all dropped in
    `ramp_start`."""
    ramp_start: Annotated[int, Ge(1)] = 3
    """Round of the first pruning (r_0)."""
    ramp_end: Annotated[int, Ge(1)] = 15
    """Round in which the share is first `sparsity` (r_1)."""
    ramp_every: Annotated[int, Ge(1)] = 2
    """Rounds from one step of the ramp to the next."""
    refine_every: Annotated[int, Ge(0)] = 2
    """Rounds from one ranking to the next after the ramp; 0 means none."""
    refine_end: Annotated[int, Ge(0)] = 24
    """Round after which no mask changes (r_end)."""
    regrow: str = "memory"
    """What units that have left may return: all, by the values that the server has kept (memory);
    none; or a share of them, drawn at random (random:0.1)."""
    decay: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Share of V, the mean of |change|, that a round leaves (beta)."""
    dense_every: Annotated[int, Ge(0)] = 0
    """Rounds from one in which clients train the whole model to the next, so that what has left
    learns too; 0 means none."""
    protect: Literal["both", "first", "last", "none"] = "both"
    """Which of the first and the last layer is never pruned."""

    def __post_init__(self) -> None:
        turn_pattern(self.pattern)
        if self.regrow not in ("memory", "none") and not _REGROW.fullmatch(self.regrow):
            raise ValueError(f"regrow is `{self.regrow}`; it is memory, none or random:SHARE")
        if self.ramp == "cubic" and self.ramp_end <= self.ramp_start:
            raise ValueError("ramp_end must come after ramp_start; or set ramp=one-shot")
        if self.last_step == 1 and self.score in ("momentum", "taylor"):
            raise ValueError(f"score {self.score} needs changes: set ramp_start to 2 or more")

    @property
    def last_step(self) -> int:
        """The round in which the ramp is at its end."""
        return self.ramp_end if self.ramp == "cubic" else self.ramp_start

    def is_due(self, number: int) -> bool:
        """Tell whether units are ranked ahead of a round, counted from 1."""
        if number <= self.last_step:
            is_step = (number - self.ramp_start) % self.ramp_every == 0 or number == self.last_step
            return number >= self.ramp_start and is_step
        since = number - self.last_step
        return (
            number <= self.refine_end and self.refine_every > 0 and since % self.refine_every == 0
        )

    def share(self, number: int) -> float:
        """Return the share of the prunable weights to drop in a round from `ramp_start` on."""
        if number >= self.last_step:
            return self.sparsity
        left = 1 - (number - self.ramp_start) / (self.ramp_end - self.ramp_start)
        return float(self.sparsity * (1 - left**3))

    def is_dense(self, number: int) -> bool:
        """Tell whether clients train the whole model in a round."""
        return self.dense_every > 0 and number >= self.ramp_start and number % self.dense_every == 0

    @property
    def units(self) -> str:
        """The pattern, of matrices [out, in]."""
        return turn_pattern(self.pattern) if self.kernel_layout == "tf" else self.pattern


@dataclass(frozen=True)
class State:
    """V of the prunable weights, dense; nothing where no score reads it."""

    momentum: Mapping[str, Tensor] = field(default_factory=dict)


def list_prunable(ctx: RoundContext) -> list[str]:
    """Return the weights that units are dropped of, in the layout's order: matrices and
    convolutions, without the first and the last one (`protect`), embeddings and complex filters."""
    names, protect = list_masked_weights(ctx.layout), ctx.options.protect
    stay = find_embeddings(ctx.server.template)
    stay += names[:1] * (protect in ("both", "first")) + names[-1:] * (protect in ("both", "last"))
    return [n for n in names if n not in stay and not ctx.layout.tensors[n].is_complex]


def score_entries(score: str, value: Tensor, momentum: Tensor) -> Tensor:
    """Return what a unit's score is the mean of, for every entry."""
    if score == "magnitude":
        return value.abs()
    if score == "l2":
        return value.square()
    return momentum if score == "momentum" else (value * momentum).abs()


def choose_unit_masks(
    ctx: RoundContext, state: ServerState, momentum: Mapping[str, Tensor], number: int
) -> dict[str, Tensor]:
    """Return the masks of a round: bool, dense shapes; a layer that loses nothing has none."""
    options: Options = ctx.options
    units = {n: number_units(state.values[n].shape, options.units) for n in list_prunable(ctx)}
    scores, stays = {}, {}
    for name, places in units.items():
        stays[name] = list_kept_units(places, state.support.mask.get(name))
        if options.score == "random":
            rng = stream(ctx.seed, f"score/random/{name}")
            scores[name] = torch.rand(len(stays[name]), generator=rng)
            continue
        value = state.values[name]
        v = momentum.get(name, torch.zeros_like(value))
        mean = average_units(score_entries(options.score, value, v), places)
        scores[name] = mean.sqrt() if options.score == "l2" else mean
    if options.regrow != "memory":
        share = float(options.regrow.partition(":")[2] or 0)
        scores = let_return(scores, stays, share, ctx.rng("regrow"))
    share = options.share(number)
    if options.budget == "uniform":
        kept = drop_by_layer(scores, share)
    else:
        sizes = {name: places.flatten().bincount() for name, places in units.items()}
        kept = drop_over_layers(scores, sizes, share, options.cap)
    return {
        name: bits[units[name]].view(state.values[name].shape)
        for name, bits in kept.items()
        if not bool(bits.all())
    }


def note_units(pattern: str, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return for events which units of each layer stay, but for layers with too many of them."""
    notes = {}
    for name, mask in masks.items():
        kept = list_kept_units(number_units(mask.shape, pattern), mask)
        if len(kept) <= MOST_UNITS:
            notes[name] = {"shape": list(mask.shape), "kept": write_bits(kept)}
    return {"pattern": pattern, "layers": notes}


class FederatedPruning(Method):
    """Rows, columns or halves of them dropped by the server, one sub-model for all clients."""

    source: ClassVar[str] = "Lin et al., INTERSPEECH 2022 (reconstruction)"
    traits: ClassVar[Traits] = Traits(cuts="weights", remembers_masks=True, trains_sparse=True)
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "sparse"}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that nothing is pruned, or less than asked, or that nothing is there to rank by."""
        if not options.sparsity:
            return []
        told = []
        if options.ramp_start > rounds:
            told.append(
                f"`method.ramp_start` is {options.ramp_start}, but the run ends after round "
                f"{rounds}: nothing is pruned; lower method.ramp_start"
            )
        elif options.last_step > rounds:
            told.append(
                f"`method.sparsity` is not reached: the ramp ends in round {options.ramp_end}, and "
                f"the run in round {rounds}; lower method.ramp_end"
            )
        elif options.dense_every and not any(map(options.is_dense, range(1, rounds + 1))):
            told.append(
                f"`method.dense_every` is {options.dense_every}, but the run ends after round "
                f"{rounds}: no round trains the whole model; lower method.dense_every"
            )
        return told

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Choose the masks of round 1, if it has any.

        Raises:
            RecipeError: the network has nothing that may be pruned.
        """
        if ctx.options.sparsity and not list_prunable(ctx):
            raise RecipeError(
                "the network has no weights that may be pruned",
                hint="set method.protect=none, or take one with more layers",
                where="method.protect",
            )
        return self._rank(ctx, replace(state, method=State()), 1)

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send the units that stay; or the whole model, in rounds that are to train it."""
        support = Support() if ctx.options.is_dense(ctx.round) else state.support
        return [Ask(client, support=support) for client in ctx.cohort]

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average the change of what was trained, note its size, and choose the next masks."""
        options: Options = ctx.options
        new = merge_answers(ctx, state, answers)
        momentum = dict(state.method.momentum)
        if options.score in ("momentum", "taylor"):
            trained = answers[0].support.mask  # all clients have the same
            for name in list_prunable(ctx):
                size = (new.values[name] - state.values[name]).abs()
                old = momentum.get(name, torch.zeros_like(size))
                mean = options.decay * old + (1 - options.decay) * size
                momentum[name] = torch.where(trained[name], mean, old) if name in trained else mean
        return self._rank(ctx, replace(new, method=State(momentum)), ctx.round + 1)

    def _rank(self, ctx: RoundContext, state: ServerState, number: int) -> ServerState:
        """Return the state ahead of a round, with its masks, and log what stays."""
        options: Options = ctx.options
        if options.sparsity and options.is_due(number):
            masks = choose_unit_masks(ctx, state, state.method.momentum, number)
            new = replace(state, support=Support(mask=masks))
        else:
            new = state
        names = list_prunable(ctx)
        if not options.sparsity or not names:
            return new
        weights = {name: state.values[name] for name in names}
        kept, old = new.support.masks_of(weights), state.support.masks_of(weights)
        num_kept = sum(int(mask.sum()) for mask in kept.values())
        size = sum(mask.numel() for mask in kept.values())
        ctx.log(None, sparsity=1 - num_kept / size, units=DROPS.get(options.units, options.units))
        ctx.log(None, density={name: float(mask.float().mean()) for name, mask in kept.items()})
        if new is not state:
            returned = sum(int((kept[name] & ~old[name]).sum()) for name in names)
            ctx.log(None, returned=returned, kept_units=note_units(options.units, kept))
        return new
