"""normagg: averaging of normalised changes, and slow clients left out of training.

Source: Yin, Yang, Liu, Jiang, Chen, Dou, Heng, "Efficient Federated Tumor Segmentation via
Normalized Tensor Aggregation and Client Pruning", BrainLes at MICCAI 2021, of which only the
abstract is known. Its words on normalising are those of FedNova (Wang et al., NeurIPS 2020), whose
equations stand here; the rule of client pruning is ours. "Client pruning" leaves out clients; no
weight is ever pruned. recipes/normagg tells what is known from where.

==========  ====================  ==============================================================
symbol      here                  note
==========  ====================  ==============================================================
tau_k       ``work.num_steps``    local steps, which the client reports
||a_k||_1   `measure_steps`       how often its gradients enter its change
p_k         samples over their    of the clients that answered
            sum
T_k         `State.past_s`        moving average of the seconds of a client's rounds
theta       `choose_clients`      seconds above which a client is left out
==========  ====================  ==============================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from fpcli.engine.method import (
    ClientContext,
    Method,
    RoundContext,
    fit,
    merge_answers,
    sample_cohort,
)
from fpcli.engine.proximal import make_pull
from fpcli.engine.types import Answer, Ask, LocalConfig, ServerState, Work


@dataclass(frozen=True)
class Options:
    """Options of `normagg`."""

    norm: Literal["steps", "l2", "none"] = "steps"
    """What a client's change is divided by: its steps (FedNova), its length tensor by tensor, or
    nothing, as in FedAvg."""
    normalise_buffers: bool = True
    """Whether that goes for buffers, such as the statistics of batch norm, too."""
    prox_mu: Annotated[float, Ge(0)] = 0.0
    """Weight of FedProx's proximal term in what clients make small."""
    work: Literal["all", "random"] = "all"
    """Clients do all of `local.epochs`, or each a number drawn from 1 to that in every round."""
    prune_rule: Literal["threshold", "quantile", "none"] = "threshold"
    """Which clients are left out: those that took long against the median, the slowest share, or
    nobody."""
    kappa: Annotated[float, Gt(0)] = 1.5
    """Under `threshold`: who took more than this many times the median is left out."""
    slowest: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Under `quantile`: share of the clients that is left out."""
    warmup: Annotated[int, Ge(0)] = 1
    """First rounds in which nobody is left out."""
    readmit_every: Annotated[int, Ge(0)] = 5
    """Rounds from one in which nobody is left out to the next; 0 means none after the warm-up."""
    coverage: Annotated[float, Ge(0), Le(1)] = 0.5
    """Share of all samples that clients with at least so many must stay for."""
    keep_at_least: Annotated[int, Ge(1)] = 2
    """Clients that stay in any case, the fastest."""
    memory: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Share of the past in the moving average of a client's seconds."""


@dataclass(frozen=True)
class State:
    """Client -> moving average of the simulated seconds of its rounds, of those that had one."""

    past_s: Mapping[int, float] = field(default_factory=dict)


def measure_steps(num_steps: int, local: LocalConfig, prox_mu: float = 0.0) -> float:
    """Return ||a||_1: how often the gradients of some local steps enter the change that they make.

    It is what the steps would move a weight whose gradient is always -1, over the learning rate.
    For plain SGD that is their number; with momentum rho
    ``[tau - rho (1 - rho^tau) / (1 - rho)] / (1 - rho)``, and with a proximal term, with
    ``alpha = lr mu``, ``(1 - (1 - alpha)^tau) / alpha``. Adam counts as plain SGD (inferred).

    Source: FedNova, sections 3 and 4 of arXiv 2007.07481.
    """
    if local.optimizer == "adam":
        return float(num_steps)
    rho, alpha = local.momentum, local.lr * prox_mu
    # One step, of how far the weight has moved, its velocity and 1.
    step = np.array([[1 - alpha, rho, 1], [-alpha, rho, 1], [0, 0, 1]])
    return float(np.linalg.matrix_power(step, num_steps)[0, 2])


def find_factors(
    sizes: Sequence[float], steps: Sequence[float], norms: Sequence[float], prox_mu: float = 0.0
) -> list[float]:
    """Return what to multiply each client's change with ahead of averaging by samples.

    That is ``tau_eff / ||a_k||_1``, where tau_eff is the mean of ||a_k||_1 by samples, or with a
    proximal term that of the steps; exactly 1 where all are equal and there is none.

    Args:
        sizes: samples of each client, n_k.
        steps: its local steps, tau_k.
        norms: its ||a_k||_1.

    Source: FedNova; tau_eff with ||a_k||_1 as in Flower's baseline.
    """
    if not prox_mu and len({*norms}) == 1:
        return [1.0] * len(norms)
    counted = steps if prox_mu else norms
    mean = math.fsum(n * tau for n, tau in zip(sizes, counted, strict=True)) / math.fsum(sizes)
    return [mean / norm if norm else 1.0 for norm in norms]


class Chosen(NamedTuple):
    """Who may train, sorted, and the seconds above which others are left out (infinite: nobody)."""

    clients: list[int]
    limit_s: float


def choose_clients(
    options: Options, elapsed: int, past_s: Mapping[int, float], sizes: Mapping[int, int]
) -> Chosen:
    """Return which clients train in a round; who has no past is never left out.

    Args:
        elapsed: finished rounds.
        past_s: see `State`.
        sizes: samples of each client that is there.

    Source: ours; the abstract says that clients are left out for their training times.
    """
    known = {client: past_s[client] for client in sizes if client in past_s}
    is_open = options.readmit_every > 0 and elapsed % options.readmit_every == 0
    if options.prune_rule == "none" or elapsed < options.warmup or is_open or not known:
        return Chosen(sorted(sizes), math.inf)
    by_speed = sorted(known, key=lambda client: (known[client], client))
    if options.prune_rule == "threshold":
        limit_s = options.kappa * median(known.values())
    else:
        num_slow = math.floor(options.slowest * len(by_speed) + 1e-9)
        limit_s = known[by_speed[len(by_speed) - num_slow - 1]]
    staying = {client for client in sizes if known.get(client, 0.0) <= limit_s}
    pruned = [client for client in by_speed if client not in staying]
    total = sum(sizes.values())
    while pruned and sum(sizes[client] for client in staying) < options.coverage * total:
        back = max(pruned, key=lambda client: (sizes[client] / known[client], -client))
        pruned.remove(back)
        staying.add(back)
    staying.update(pruned[: max(options.keep_at_least - len(staying), 0)])
    return Chosen(sorted(staying), limit_s)


def compare_lengths(
    sizes: Sequence[float], changes: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, float]]:
    """Return for every client and tensor the mean length of the changes by samples over its own.

    Source: another reading of "normalised tensors" (inferred); one of length 0 stays as it is.
    """
    total = math.fsum(sizes)
    factors: list[dict[str, float]] = [{} for _ in changes]
    for name in changes[0]:
        lengths = [float(torch.linalg.vector_norm(change[name].double())) for change in changes]
        mean = math.fsum(n * length for n, length in zip(sizes, lengths, strict=True)) / total
        for own, length in zip(factors, lengths, strict=True):
            own[name] = mean / length if length else 1.0
    return factors


class NormAgg(Method):
    """Normalised averaging (FedNova), and client pruning by past times (reconstruction)."""

    source: ClassVar[str] = "Yin et al., BrainLes 2021 (abstract)"
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def select(self, ctx: RoundContext, state: ServerState) -> list[int]:
        """Draw the cohort among the clients that are not left out."""
        return sample_cohort(ctx, _choose(ctx, state).clients)

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send everybody the whole model, and under `random` a number of epochs."""
        asks = [Ask(client, support=state.support) for client in ctx.cohort]
        if ctx.options.work == "random":
            draws = torch.randint(
                1, ctx.local.epochs + 1, (len(asks),), generator=ctx.rng("epochs")
            )
            asks = [
                replace(ask, local=replace(ctx.local, epochs=epochs), record={"epochs": epochs})
                for ask, epochs in zip(asks, draws.tolist(), strict=True)
            ]
        return asks

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, with the proximal term if there is one."""
        pull = make_pull(cx, cx.options.prox_mu)
        return cx.result(model, fit(model, cx, self.loss, after_backward=pull))

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average normalised changes, and take the seconds of this round into the past."""
        options: Options = ctx.options
        sizes = [float(answer.num_examples) for answer in answers]
        changes = [answer.work.values for answer in answers]
        factors = [dict.fromkeys(change, 1.0) for change in changes]
        if options.norm == "l2":
            factors = compare_lengths(sizes, changes)
        elif options.norm == "steps":
            steps = [answer.work.num_steps for answer in answers]
            norms = [measure_steps(tau, ctx.local, options.prox_mu) for tau in steps]
            found = find_factors(sizes, steps, norms, options.prox_mu)
            factors = [dict.fromkeys(changes[0], factor) for factor in found]
            for answer, factor in zip(answers, found, strict=True):
                ctx.log(answer.ask.client, factor=factor)
        names = changes[0] if options.normalise_buffers else ctx.layout.parameters.tensors
        scaled = [
            replace(answer, work=replace(answer.work, values={**own, **normalised}))
            for answer, own, by in zip(answers, changes, factors, strict=True)
            for normalised in [{name: own[name] * by[name] for name in names}]
        ]
        past_s = dict(_recall_past(state))
        for answer in answers:
            client, seconds, kept = answer.ask.client, answer.time.total_s, options.memory
            past_s[client] = kept * past_s.get(client, seconds) + (1 - kept) * seconds
        chosen = _choose(ctx, state)
        limit_s = chosen.limit_s if math.isfinite(chosen.limit_s) else None
        left_out = {str(c): past_s[c] for c in ctx.available if c not in chosen.clients}
        ctx.log(None, left_out=left_out, limit_s=limit_s)
        return replace(merge_answers(ctx, state, scaled), method=State(past_s))


def _choose(ctx: RoundContext, state: ServerState) -> Chosen:
    sizes = {client: ctx.num_examples[client] for client in ctx.available}
    return choose_clients(ctx.options, state.round, _recall_past(state), sizes)


def _recall_past(state: ServerState) -> Mapping[int, float]:
    return (state.method or State()).past_s
