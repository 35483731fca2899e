"""GWEP: weights leave by magnitude little by little, and messages have a few bits per value.

Source: Prakash, Ding, Chen, Qin, Shu, Cui, Guo, Pan, "IoT Device Friendly and
Communication-Efficient Federated Learning via Joint Model Pruning and Quantization", IEEE Internet
of Things Journal 9, 2022. Known of it: the server quantises the model that it sends and clients
what they have trained, with error feedback; single weights leave by magnitude up to a share that is
fixed beforehand. Schedule: Zhu and Gupta, "To prune, or not to prune", 2017, equation 1. All else
is inferred or ours; recipes/gwep tells which.

==========  ====================================  ================================================
symbol      here                                  note
==========  ====================================  ================================================
x_t         ``state.values``                      float32, dead weights with their last values
Q_w, Q_g    ``wire.down``, ``wire.up``            codecs; ``sparse`` rounds nothing
m_t         ``state.support.mask``                the mask that clients trained last
s_t         `find_target`                         t counts rounds from 0
u_k, q_k    ``-work.values``, ``-work.values``    before and after `feed_back`; what is added here
e_k         ``cx.recall("residual")``             minus the paper's, as changes are
==========  ====================================  ================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support, Tensors, Work
from fpcli.pruning.polynomial import find_sparsity
from fpcli.structure.budget import drop_smallest, list_masked_weights
from fpcli.structure.layout import Layout
from fpcli.structure.pairs import mask_entries, measure_entries

DeadShare = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class Options:
    """Options of `gwep`; the paper's values are not known."""

    final_sparsity: DeadShare = 0.5
    """Share of the weights that is dead when the schedule ends (s_f); 0 prunes nothing."""
    initial_sparsity: DeadShare = 0.0
    """Share with which the schedule begins (s_i)."""
    prune_start: Annotated[int, Ge(0)] | None = None
    """Rounds ahead of the schedule (t_0); null is a tenth of the run, rounded up."""
    prune_every: Annotated[int, Ge(1)] = 1
    """Rounds from one step of the schedule to the next."""
    prune_steps: Annotated[int, Ge(1)] | None = None
    """Steps from the initial to the final sparsity (n); null has the last of them after six tenths
    of the run."""
    scope: Literal["layer", "global"] = "layer"
    """Each tensor loses the same share, or all are ranked together."""
    regrow: bool = True
    """A dead weight keeps its value at the server, and returns if that is among the largest at a
    step of the schedule; false lets none return."""
    error_feedback: bool = True
    """Clients remember what rounding took from a change, and add it to their next one."""
    ef_on_pruned: Literal["drop", "hold"] = "drop"
    """What a client remembers of a weight that dies is forgotten, or waits for its return."""
    ef_max_age: Annotated[int, Ge(1)] | None = None
    """A client that was last chosen more than so many rounds ago forgets; null never forgets."""
    master: Literal["float32", "quantised"] = "float32"
    """What the server goes on with: its own sums, or what `wire.down` makes of them."""
    eval: Literal["quantised", "float32"] = "quantised"
    """What is judged and written out: the model as `wire.down` sends it, or the server's own."""

    def __post_init__(self) -> None:
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError("initial_sparsity is above final_sparsity")
        if not self.error_feedback and (self.ef_on_pruned != "drop" or self.ef_max_age):
            raise ValueError("ef_on_pruned and ef_max_age belong to error_feedback true")

    def find_schedule(self, rounds: int) -> tuple[int, int]:
        """Return t_0 and n for a run of so many rounds; ours where the options do not say them."""
        start = -(-rounds // 10) if self.prune_start is None else self.prune_start
        steps = max(1, (6 * rounds // 10 - start) // self.prune_every)
        return start, self.prune_steps or steps

    def find_target(self, at: int, rounds: int) -> float:
        """Return the sparsity s_t of round ``at``, counted from 0, of so many rounds.

        Source: Zhu and Gupta, equation 1: s_f + (s_i - s_f) (1 - j/n)^3 at step j, and 0 ahead of
        t_0.
        """
        start, steps = self.find_schedule(rounds)
        number = (at - start) // self.prune_every
        if number <= 0:
            return self.initial_sparsity if at >= start else 0.0
        return find_sparsity(
            number, start=0, end=steps, initial=self.initial_sparsity, final=self.final_sparsity
        )

    def is_step(self, at: int, rounds: int) -> bool:
        """Tell whether round ``at``, counted from 0, is one in which the schedule goes on."""
        start, steps = self.find_schedule(rounds)
        number, rest = divmod(at - start, self.prune_every)
        return rest == 0 and 0 <= number <= steps


def choose_alive(
    layout: Layout, values: Tensors, options: Options, sparsity: float, before: Tensors
) -> dict[str, Tensor]:
    """Return masks without the smallest weights.

    Args:
        values: what clients would read of the masked tensors, dense.
        sparsity: share of every tensor, or of all together, that is dead then, rounded down; of
            equal weights those of smaller index leave.
        before: the masks so far, where there are any; their dead weights go first unless they may
            return.
    """
    sizes = measure_entries(layout, values)
    if not options.regrow:
        for name, mask in before.items():
            alive = mask.any(-1) if layout.tensors[name].is_complex else mask
            sizes[name] = torch.where(alive, sizes[name], -1.0)
    groups = [sizes] if options.scope == "global" else [{n: x} for n, x in sizes.items()]
    kept: dict[str, Tensor] = {}
    for group in groups:
        kept |= drop_smallest(group, sparsity)
    return mask_entries(layout, kept)


class Gwep(Method):
    """Gradual magnitude pruning, rounded messages both ways, and error feedback."""

    source: ClassVar[str] = "Prakash et al., IEEE IoT J. 2022 (reconstruction)"
    traits: ClassVar[Traits] = Traits(
        cuts="weights", remembers_masks=True, trains_sparse=True, judges="sent"
    )
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "int8"}
    Options: ClassVar[type] = Options

    def traits_of(self, options: Any) -> Traits:
        """Return the traits; the option `eval` says what is judged."""
        return replace(self.traits, judges="sent" if options.eval == "quantised" else "held")

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that no round prunes, or that the final sparsity is not reached."""
        final, last = options.final_sparsity, options.find_target(rounds - 1, rounds)
        if last == final:
            return []
        start, steps = options.find_schedule(rounds)
        return [
            f"`method.final_sparsity` {final:g} is not reached, the last round has {last:.4g}: the "
            f"schedule takes {start + steps * options.prune_every + 1} rounds of {rounds}; lower "
            "`method.prune_start`, `prune_every` or `prune_steps`, or set rounds above it"
        ]

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send everybody the weights that are alive under the round's sparsity."""
        support = Support(mask=self._masks(ctx, state))
        return [Ask(client, support=support) for client in ctx.cohort]

    def _masks(self, ctx: RoundContext, state: ServerState) -> Tensors:
        """Return m_t: of what clients would read, at the steps of the schedule."""
        options: Options = ctx.options
        at, before = ctx.round - 1, state.support.mask
        target = options.find_target(at, ctx.rounds)
        if not target:
            return {}
        if before and not options.is_step(at, ctx.rounds):
            return before
        names = list_masked_weights(ctx.layout)
        seen = ctx.send({name: state.values[name] for name in names})
        return choose_alive(ctx.layout, seen, options, target, before)

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train what is alive, and send the change with what rounding took from earlier ones."""
        work = cx.result(model, fit(model, cx, self.loss))
        if not cx.options.error_feedback or cx.is_upload_exact:
            return work
        return self._feed_back(cx, work)

    def _feed_back(self, cx: ClientContext, work: Work) -> Work:
        """Return the change plus the memory, and remember what rounding takes from the sum."""
        options: Options = cx.options
        oldest = cx.round - options.ef_max_age if options.ef_max_age else 0
        held = cx.recall("residual", since=max(0, oldest))
        total, rest = {}, {}
        for name in cx.site.layout.parameters.tensors:
            total[name] = work.values[name] + held.get(name, 0.0)
            if name in cx.job.mask:
                total[name] = torch.where(cx.job.mask[name], total[name], 0.0)
        sent = {**work.values, **total}
        arrives = cx.commit(sent)
        for name, value in total.items():
            rest[name] = value - arrives[name]
            if options.ef_on_pruned == "hold" and name in held and name in cx.job.mask:
                rest[name] = torch.where(cx.job.mask[name], rest[name], held[name])
        cx.remember("residual", rest)
        residual = compare_norms(rest, {name: work.values[name] for name in total})
        return replace(work, values=sent, metrics={**work.metrics, "residual": residual})

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average what arrived; dead weights keep their values, and the mask is the round's."""
        masks = answers[0].ask.support.mask
        new = merge_answers(ctx, state, answers)
        values = new.values
        if ctx.options.master == "quantised":
            values = {**values, **ctx.send({name: values[name] for name in ctx.layout.tensors})}
        self._report(ctx, values, masks, answers)
        return replace(new, values=values, support=Support(mask=masks))

    def _report(
        self, ctx: RoundContext, values: Tensors, masks: Tensors, answers: Sequence[Answer]
    ) -> None:
        """Log how sparse the model is, and what rounding takes from it and leaves with clients."""
        alive = {name: int(mask.sum()) for name, mask in masks.items()}
        sizes = {name: values[name].numel() for name in list_masked_weights(ctx.layout)}
        block = Support(mask=masks).gather(ctx.layout.parameters, values)
        sent = ctx.send(block, masks)
        ctx.log(
            None,
            rounding=compare_norms({name: sent[name] - x for name, x in block.items()}, block),
            target_sparsity=ctx.options.find_target(ctx.round - 1, ctx.rounds),
            sparsity=1 - sum(alive.get(n, x) for n, x in sizes.items()) / sum(sizes.values()),
            density={name: alive.get(name, x) / x for name, x in sizes.items()},
        )
        for answer in answers:
            if "residual" in answer.work.metrics:
                ctx.log(answer.ask.client, residual=answer.work.metrics["residual"])


def compare_norms(part: Tensors, whole: Tensors) -> float:
    """Return the Euclidean norm of all tensors of one as a share of another's; 0 of nothing."""
    one, other = (
        math.sqrt(math.fsum(float(x.double().square().sum()) for x in tensors.values()))
        for tensors in (part, whole)
    )
    return one / other if other else 0.0
