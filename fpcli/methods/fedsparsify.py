"""FedSparsify: weights leave by magnitude, a few in every round, and never return.

Source: Stripelis, Gupta, Ver Steeg, Ambite, "Federated Progressive Sparsification (Purge, Merge,
Tune)+", arXiv 2204.12430, and Stripelis et al., "Towards Sparsified Federated Neuroimaging Models
via Weight Pruning", DeCaF 2022, with their official code. ``global``: the server purges the merged
model. ``local``: every client purges its own before it sends it, and the server merges by vote.
Symbols: s_i, s_f, t_0, F and n are options; T is `RoundContext.rounds`; v is `count_votes`.
recipes/fedsparsify tells what is known from where; the body of the papers was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit, merge_answers
from fpcli.engine.types import Answer, Ask, Fitted, ServerState, Support, Tensors, Work
from fpcli.pruning.polynomial import find_sparsity
from fpcli.rng import stream
from fpcli.structure.budget import drop_smallest, list_masked_weights
from fpcli.structure.layout import Layout
from fpcli.structure.masks import count_votes
from fpcli.structure.pairs import mask_entries, measure_entries

Sparsity = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class Options:
    """Options of `fedsparsify`."""

    variant: Literal["global", "local"] = "global"
    """Who purges: the server the merged model, or every client its own before it sends it."""
    final_sparsity: Sparsity = 0.9
    """Share of the ranked scalars that is dead at the end of the run (s_f)."""
    initial_sparsity: Sparsity = 0.0
    """Where the schedule begins (s_i); that of `final_sparsity` prunes once, after
    `prune_start`."""
    prune_start: Annotated[int, Ge(0)] = 1
    """Rounds before the first purge (t0); all but one leave it to the last round."""
    prune_every: Annotated[int, Ge(1)] = 1
    """The target changes in rounds that are multiples of this (F)."""
    exponent: Annotated[float, Gt(0)] = 3.0
    """How much faster the sparsity rises at first than at the end (n); 1 is a straight line."""
    ranking: Literal["global", "layer", "random"] = "global"
    """What leaves first: the smallest of all tensors together, or of each tensor alone; or, as a
    control, what comes first in a random order that is drawn once."""
    prune_scope: Literal["all", "weights"] = "all"
    """What is ranked: all parameters, biases and norms too, or weights of layers alone."""
    merge: Literal["fedavg", "mv", "nnz", "nnz-mv"] = "mv"
    """How `local` models are averaged: over all clients, a purged weight being 0 (`fedavg`); over
    those who kept it (`nnz`); and each with a vote on what stays (`mv`)."""
    vote: Literal["majority", "official-floor", "strict"] = "majority"
    """Of K clients at least K/2 must keep a weight, or K/2 rounded down, or more than K/2."""
    finetune_epochs: Annotated[int, Ge(0)] = 0
    """Epochs that `local` clients train after their purge (E_ft)."""
    mask_from_zeros: bool = False
    """Count every weight that is exactly 0 as dead, as the official code does."""

    def __post_init__(self) -> None:
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError("initial_sparsity is above final_sparsity")
        is_plain = (self.merge, self.vote, self.finetune_epochs) == ("mv", "majority", 0)
        if self.variant == "global" and not is_plain:
            raise ValueError("merge, vote and finetune_epochs belong to variant local")
        if self.variant == "local" and self.ranking == "random":
            raise ValueError("ranking random belongs to variant global: all masks would be equal")
        if self.vote != "majority" and self.merge not in ("mv", "nnz-mv"):
            raise ValueError("vote belongs to merge mv and nnz-mv")

    def find_target(self, number: int, rounds: int) -> float:
        """Return the sparsity of a round, 0 where it purges nothing.

        Args:
            number: of the round, counted from 1.
            rounds: of the whole run (T).
        """
        return find_sparsity(
            number,
            start=self.prune_start,
            end=rounds,
            every=self.prune_every,
            initial=self.initial_sparsity,
            final=self.final_sparsity,
            exponent=self.exponent,
        )

    def least_votes(self, num_clients: int) -> int:
        """Return how many of the clients must keep a weight, so that it stays."""
        if self.merge in ("fedavg", "nnz"):
            return 1
        least = {"majority": (num_clients + 1) // 2, "strict": num_clients // 2 + 1}
        return max(1, least.get(self.vote, num_clients // 2))


def list_ranked(layout: Layout, options: Options) -> list[str]:
    """Return the tensors of which weights are purged."""
    if options.prune_scope == "weights":
        return list_masked_weights(layout)
    return list(layout.parameters.tensors)


def purge_weights(
    layout: Layout, values: Tensors, options: Options, sparsity: float, seed: int = 0
) -> dict[str, Tensor]:
    """Return masks without the smallest weights.

    Args:
        values: dense; what is dead already is 0, and so leaves first.
        sparsity: share of the ranked scalars that is dead then, rounded down; what ties with the
            smallest that stays, stays.
        seed: of the random order, which needs no values.

    Source: official code; its random baseline has a permutation of all positions.
    """
    sizes = measure_entries(layout, {name: values[name] for name in list_ranked(layout, options)})
    if options.ranking == "random":
        pieces = [x.numel() for x in sizes.values()]
        order = torch.randperm(sum(pieces), generator=stream(seed, "fedsparsify/order"))
        parts = zip(sizes.items(), order.split(pieces), strict=True)
        sizes = {name: part.view(x.shape) for (name, x), part in parts}
    groups = [{n: x} for n, x in sizes.items()] if options.ranking == "layer" else [sizes]
    kept: dict[str, Tensor] = {}
    for group in groups:
        kept |= drop_smallest(group, sparsity, splits_ties=False)
    return mask_entries(layout, kept)


def measure_votes(votes: Tensors, before: Tensors, num_clients: int) -> list[float]:
    """Return the share of weights that 0, 1, ... of the clients kept, of those they received."""
    held = torch.cat([votes[name][before[name]] for name in votes])
    counts = torch.bincount(held, minlength=num_clients + 1)
    return [float(f"{x:.4g}") for x in (counts / max(len(held), 1)).tolist()]


class FedSparsify(Method):
    """Progressive magnitude pruning of single weights, by the server or by the clients."""

    source: ClassVar[str] = "Stripelis et al., arXiv 2204.12430; DeCaF 2022"
    traits: ClassVar[Traits] = Traits(cuts="weights", remembers_masks=True, trains_sparse=True)
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "sparse"}
    Options: ClassVar[type] = Options

    def traits_of(self, options: Any) -> Traits:
        """Return the traits; who purges says what is masked."""
        if options.variant == "local":
            return replace(self.traits, masks_by="client", remembers_masks=False)
        return self.traits

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that no round purges, or that the final sparsity is not reached."""
        final, last = options.final_sparsity, options.find_target(rounds, rounds)
        if not final or last == final:
            return []
        if options.prune_start >= rounds:
            return [
                f"`method.prune_start` is {options.prune_start}, but the run ends after round "
                f"{rounds}: no round purges; lower it, or set rounds above it"
            ]
        return [
            f"`method.final_sparsity` {final:g} is not reached, the last round has {last:.4g}: "
            f"{rounds} rounds are no multiple of `method.prune_every` {options.prune_every}"
        ]

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send the sparse model, and to clients that purge the round's sparsity."""
        options: Options = ctx.options
        target = options.find_target(ctx.round, ctx.rounds)
        if options.variant == "global" or not target:
            return [Ask(client, support=state.support) for client in ctx.cohort]
        local = replace(ctx.local, epochs=ctx.local.epochs + options.finetune_epochs)
        note = {"sparsity": target}
        return [Ask(c, note=note, local=local, support=state.support) for c in ctx.cohort]

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train what is alive; where the server says how much is to leave, purge, and tune."""
        if not cx.note:
            return cx.result(model, fit(model, cx, self.loss))
        num_before = cx.local.epochs - cx.options.finetune_epochs
        fitted = fit(model, cx, self.loss, epochs=range(num_before))
        weights = dict(model.named_parameters())
        values = {name: weight.detach().cpu() for name, weight in weights.items()}
        chosen = purge_weights(cx.site.layout, values, cx.options, cx.note["sparsity"])
        masks = {name: mask & cx.mask[name].cpu() if name in cx.mask else mask
                 for name, mask in chosen.items()}  # fmt: skip
        held = {name: mask.to(cx.torch_device) for name, mask in masks.items()}
        with torch.no_grad():
            for name, mask in held.items():
                weights[name].mul_(mask)
        if cx.options.finetune_epochs:
            epochs = range(num_before, cx.local.epochs)
            fitted = add_fits(fitted, fit(model, cx, self.loss, epochs=epochs, mask=held))
        return cx.result(model, fitted, mask=masks)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average, and let weights leave: by the server's purge, or by the clients' votes."""
        options: Options = ctx.options
        target = options.find_target(ctx.round, ctx.rounds)
        is_of_holders = options.merge.startswith("nnz")
        new = merge_answers(ctx, state, answers, absent="skip" if is_of_holders else "zero")
        ranked = {name: new.values[name] for name in list_ranked(ctx.layout, options)}
        before = state.support.masks_of(ranked)
        masks = before
        if target and options.variant == "global":
            chosen = purge_weights(ctx.layout, new.values, options, target, ctx.seed)
            masks = {name: before[name] & mask for name, mask in chosen.items()}
        elif target:
            votes = count_votes([answer.support for answer in answers], ranked)
            least = options.least_votes(len(answers))
            masks = {name: vote >= least for name, vote in votes.items()}
            ctx.log(None, votes=measure_votes(votes, before, len(answers)))
        if options.mask_from_zeros and ctx.round >= options.prune_start:
            masks = {name: mask & new.values[name].ne(0) for name, mask in masks.items()}
        self._report(ctx, target, before, masks)
        if masks is before:
            return new
        zeroed = {name: torch.where(mask, ranked[name], 0.0) for name, mask in masks.items()}
        return replace(new, values={**new.values, **zeroed}, support=Support(mask=masks))

    def _report(self, ctx: RoundContext, target: float, before: Tensors, masks: Tensors) -> None:
        """Log how sparse the model is, and warn of a layer that has no weight left."""
        alive = {name: int(mask.sum()) for name, mask in masks.items()}
        size = sum(mask.numel() for mask in masks.values())
        layers = [name for name in list_masked_weights(ctx.layout) if name in masks]
        ctx.log(
            None,
            target_sparsity=target,
            sparsity=1 - sum(alive.values()) / size,
            density={name: alive[name] / masks[name].numel() for name in layers},
        )
        if dead := [name for name in layers if not alive[name]]:
            ctx.log(None, dead_layers=dead)
            if fresh := [name for name in dead if before[name].any()]:
                ctx.log(None, warning=f"no weight of {', '.join(fresh)} is left")


def add_fits(first: Fitted, second: Fitted) -> Fitted:
    """Return what two trainings did together."""
    num_samples = first.num_samples + second.num_samples
    loss_sum = first.loss * first.num_samples + second.loss * second.num_samples
    return Fitted(loss_sum / max(num_samples, 1), first.num_steps + second.num_steps, num_samples)
