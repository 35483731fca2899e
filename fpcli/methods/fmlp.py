"""FMLP: sequential recommendation by a Fourier MLP that is pruned while it is trained.

Source: "Fourier Enhanced MLP with Adaptive Model Pruning for Efficient Federated Recommendation",
KSEM 2022. Its text was not at hand: the network is FMLP-Rec (``models.fmlp_nets``), whose words
the abstract repeats, and the adaptive pruning is taken to be PruneFL's, with complex entries of a
filter pruned as one; `loss-quantile` is the rule of its successor eFRSA2 (official code). Users of
a client touch few items, so rows of embeddings are averaged over the clients that changed them.
Symbols: c_k is `State.ratios`, q is `Options.quantile`, r is `elapsed`.
recipes/fmlp tells what is known from where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from fpcli.engine.method import ClientContext, RoundContext, Traits, fit, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support, Work
from fpcli.methods.prunefl import Options as PruneFLOptions
from fpcli.methods.prunefl import PruneFL, find_loss
from fpcli.methods.prunefl import State as PruneFLState
from fpcli.structure.budget import find_embeddings, keep_largest
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.pairs import mask_entries, measure_entries


@dataclass(frozen=True)
class Options(PruneFLOptions):
    """Options of `fmlp`."""

    adapt: Literal["prunefl", "loss-quantile"] = "prunefl"
    """What adapts the pruning: PruneFL's importance per second, one mask for all; or each client's
    loss, by which it keeps more or fewer of the largest weights."""
    interval: Annotated[int, Ge(0)] = 10
    """Rounds from one reconfiguration to the next, and before the first; 0 means none."""
    prune_embeddings: bool = True
    """Let entries of embedding tables be pruned too, which have most of the parameters."""
    embed_agg: Literal["touched", "fedavg"] = "touched"
    """Mean of an embedding's row: over clients that changed it, or over all. With `loss-quantile`
    it is always over all."""
    embed_upload: Literal["rows", "full"] = "rows"
    """Rows of embeddings that clients send: those that changed, which tells the server what items
    a client's users met, or all."""
    quantile: Annotated[float, Ge(0), Le(1)] = 0.5
    """Of the clients' losses: who is above keeps more (paper: q)."""
    start_ratio: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the prunable weights that a client keeps at first (paper: c_k)."""


@dataclass(frozen=True)
class State(PruneFLState):
    """Importance since the last reconfiguration, and what each client keeps.

    Attributes:
        ratios: client -> c_k of its last round.
    """

    ratios: Mapping[int, float] = field(default_factory=dict)


def adapt_ratios(
    ratios: Mapping[int, float], losses: Mapping[int, float], elapsed: int, quantile: float
) -> dict[int, float]:
    """Return the shares that clients keep after a round: more of them where the loss is above the
    quantile of all losses, c + (1 - c) / (r + 2), else fewer, c - c / (r + 2).

    Args:
        ratios: client -> c_k, for every one of ``losses``.
        elapsed: rounds before this one (paper: r).

    Source: eFRSA2, official code.

    >>> halves = dict.fromkeys(range(4), 0.5)
    >>> adapt_ratios(halves, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, 0, 0.5)
    {0: 0.25, 1: 0.25, 2: 0.75, 3: 0.75}
    """
    limit = float(torch.tensor([*losses.values()], dtype=torch.float64).quantile(quantile))
    new = dict(ratios)
    for client, loss in losses.items():
        goal = 1.0 if loss > limit else 0.0
        new[client] = ratios[client] + (goal - ratios[client]) / (elapsed + 2)
    return new


def measure_spectra(layout: Layout, values: Tensors, support: Support) -> dict[str, list[float]]:
    """Return the mean modulus of every frequency over all channels, of each complex filter; what is
    dead counts as 0.

    Args:
        values: dense.
    """
    filters = {name: values[name] for name, spec in layout.tensors.items() if spec.is_complex}
    alive = {name: x * support.mask.get(name, torch.ones(())) for name, x in filters.items()}
    sizes = measure_entries(layout, alive)
    return {
        name: [float(f"{x:.4g}") for x in size.mean(1).tolist()] for name, size in sizes.items()
    }


class FMLP(PruneFL):
    """PruneFL for networks of sequences, with embeddings by rows; or a share for each client."""

    source: ClassVar[str] = "KSEM 2022 (Fourier-enhanced MLP)"
    defaults: ClassVar[Mapping[str, Any]] = {
        "wire.codec": "sparse",
        "local.optimizer": "adam",
        "local.lr": 0.001,
        "local.batch_size": 256,
    }
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def traits_of(self, options: Any) -> Traits:
        """Return the traits: who says what is masked depends on what adapts."""
        traits = super().traits_of(options)
        if options.adapt == "loss-quantile":
            return replace(traits, masks_by="client", remembers_masks=False, trains_sparse=False)
        return replace(traits, uploads="entries")

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell which options have no effect."""
        if options.adapt == "prunefl":
            return super().idle(options, rounds)
        return []

    def list_masked(self, ctx: RoundContext) -> list[str]:
        """Return the tensors that have masks: without embeddings, if these are not pruned."""
        names = super().list_masked(ctx)
        if ctx.options.prune_embeddings:
            return names
        tables = find_embeddings(ctx.server.template)
        return [name for name in names if name not in tables]

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Ask the selected client for the first masks; with `loss-quantile` there are none."""
        return super().ask(ctx, state) if ctx.options.adapt == "prunefl" else []

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Start from the sparse model."""
        return replace(super().absorb(ctx, state, answers), method=State())

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send the sparse model; with `loss-quantile` all of it, and what the client is to keep."""
        if ctx.options.adapt == "prunefl":
            return super().plan(ctx, state)
        ratios = (state.method or State()).ratios
        names, asks = self.list_masked(ctx), []
        for client in ctx.cohort:
            ratio = ratios.get(client, ctx.options.start_ratio)
            record = {"kept": ratio}
            asks.append(Ask(client, note={"keep": ratio, "names": names}, record=record))
        return asks

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, and send of embeddings the rows that changed; or prune to the share to keep."""
        if cx.options.adapt == "loss-quantile":
            return self._prune(cx, model)
        work = super().train(cx, model)
        if cx.options.embed_upload == "full" and cx.options.embed_agg == "fedavg":
            return work
        masks: dict[str, Tensor] = {}
        for name in find_embeddings(cx.site.template):
            changed = work.values[name].ne(0).any(1, keepdim=True).expand_as(work.values[name])
            masks[name] = changed & cx.mask.get(name, torch.ones_like(changed)).cpu()
        return replace(work, mask=masks)

    def _prune(self, cx: ClientContext, model: nn.Module) -> Work:
        """Return the change to the trained model with the largest weights alone."""
        fitted = fit(model, cx, find_loss, mask={})
        weights = {name: x.detach().cpu() for name, x in model.named_parameters()}
        layout, values = cx.site.layout, {name: weights[name] for name in cx.note["names"]}
        kept = keep_largest(measure_entries(layout, values), cx.note["keep"])
        masks = mask_entries(layout, kept)
        work = cx.result(model, fitted)
        # What is not kept is 0 at the server, whatever it was: that is what its mask means.
        change = {n: x * masks[n] if n in masks else x for n, x in work.values.items()}
        return replace(work, values=change, mask=masks)

    def merge(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Return the mean of the changes, of an embedding's row over those who changed it."""
        tables = find_embeddings(ctx.server.template) if ctx.options.embed_agg == "touched" else []
        held = []
        for answer in answers:
            own_masks = {n: bits for n, bits in (answer.work.mask or {}).items() if n in tables}
            support = Support(answer.support.keep, {**answer.support.mask, **own_masks})
            held.append(replace(answer, support=support))
        return merge_answers(ctx, state, held)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average, and choose what is alive; with `loss-quantile`, who keeps how much. Filters are
        logged as spectra."""
        new = self._combine(ctx, state, answers)
        if spectra := measure_spectra(ctx.layout, new.values, new.support):
            if not state.round:
                before = measure_spectra(ctx.layout, state.values, state.support)
                ctx.log(None, spectra_before=before)
            ctx.log(None, spectra=spectra)
        return new

    def _combine(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        method_state = state.method or State()
        if ctx.options.adapt == "prunefl":
            new = super().aggregate(ctx, state, answers)
            return replace(new, method=replace(method_state, importance=new.method.importance))
        new = merge_answers(ctx, state, answers, absent="zero")
        losses = {answer.ask.client: answer.work.metrics["loss"] for answer in answers}
        kept = dict.fromkeys(losses, ctx.options.start_ratio) | dict(method_state.ratios)
        ratios = adapt_ratios(kept, losses, state.round, ctx.options.quantile)
        # What nobody kept is 0, and of the model that is judged and exported it is no part.
        masks = {name: new.values[name].ne(0) for name in self.list_masked(ctx)}
        return replace(new, support=Support(mask=masks), method=State({}, ratios))
