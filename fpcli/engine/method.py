"""Method: the ten hooks in which one federated algorithm differs from another.

A method is a stateless class. Six hooks run on the server (`begin`, `select`, `probe`, `absorb`,
`plan`, `aggregate`) and four on clients (`loss`, `train`, `answer`, `view`). State goes in and
comes out: what the server must remember is in `ServerState.method`, what a client must remember
goes through `cx.remember`. Every default is one call of a named function, so that an override can
call the same function; no method extends another one. With no hook overridden this is FedAvg.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fpcli.engine.fit import Result, Work, cross_entropy, fit
from fpcli.engine.types import (
    Answer,
    Plan,
    Probe,
    ServerState,
    Support,
    Tensors,
    Timing,
    Update,
)
from fpcli.fleet.clock import stamp, train_seconds
from fpcli.fleet.devices import Device, Fleet
from fpcli.rng import stream
from fpcli.structure.cost import cost
from fpcli.structure.layout import Layout
from fpcli.structure.merge import Absent, Contribution, merge
from fpcli.wire.message import LocalConfig

if TYPE_CHECKING:
    from fpcli.engine.client import ClientContext

Phase = Literal["start", "round", "eval"]
Kind = Literal["dense", "structured", "masks", "personalised", "unlearning", "control"]


@dataclass(frozen=True)
class NoOptions:
    """Options of a method that has none."""


@dataclass(frozen=True)
class RoundContext:
    """What a server-side hook may know.

    Attributes:
        round: the round being played, counted from 1; 0 in phase "start".
        phase: "start" once before the first round, "round", or "eval" before an evaluation.
        options: the method's own options.
        layout: channel groups and tensors of the model.
        travels: the part of the layout that jobs and updates carry (all of it, unless the method's
            buffers are local).
        local: the local training settings of the recipe.
        fleet: the simulated devices.
        cohort: clients chosen for this round, sorted; empty until `select` has answered, and all
            registered clients in phase "start".
        num_examples: training samples of every registered client.
        share_labels: tells whether two clients have a class in common; for measures only, since a
            server that needs to know must ask.
        clients_per_round: size of a cohort, of those who have training samples.
        withheld: classes that no client trains on.
        is_upload_exact: changes arrive as clients sent them.
        attempt: 0, or how often this round was started again for want of replies.
        seed: seed of the run.
        log: takes what the event stream should know about a client, or with None about the round:
            ``ctx.log(client, reward=0.5)``; a ``warning`` about the round is shown, too.
    """

    round: int
    phase: Phase
    options: Any
    layout: Layout
    travels: Layout
    local: LocalConfig
    fleet: Fleet
    num_examples: Sequence[int]
    share_labels: Callable[[int, int], bool]
    clients_per_round: int
    seed: int
    log: Callable[..., None]
    cohort: tuple[int, ...] = ()
    attempt: int = 0
    withheld: tuple[int, ...] = ()
    is_upload_exact: bool = True

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose in this round."""
        return stream(self.seed, f"method/{purpose}", self.round)

    @cached_property
    def trainers(self) -> tuple[int, ...]:
        """The clients that have training samples; the others are never chosen."""
        return tuple(client for client, number in enumerate(self.num_examples) if number)

    @cached_property
    def available(self) -> tuple[int, ...]:
        """The clients that can be chosen in this attempt at the round: here, with samples."""
        return tuple(
            c for c in self.trainers if self.fleet.is_available(self.round, c, self.attempt)
        )

    def device(self, client: int) -> Device:
        """Return the conditions of one client in this round."""
        return self.fleet.at(self.round, client)

    def full_times(self) -> dict[int, Timing]:
        """Return the seconds that each client of the cohort needs in this round for all of its
        epochs on the whole model, sent densely both ways."""
        return self.times(Support(), {client: self.device(client) for client in self.cohort})

    def times(self, support: Support, devices: Mapping[int, Device]) -> dict[int, Timing]:
        """Return the seconds that clients need for all of their epochs on one sub-model, sent
        densely both ways without headers.

        Args:
            devices: client -> what its work is timed on.
        """
        macs = cost(self.layout, support).macs
        size = cost(self.travels, support).bytes
        times = {}
        for client, device in devices.items():
            num = self.num_examples[client] * self.local.epochs
            compute_s = train_seconds(macs, num, device)
            seconds = stamp(device, compute_s=compute_s, down_bytes=size, up_bytes=size)
            times[client] = Timing(*seconds)
        return times


def sample_cohort(ctx: RoundContext) -> list[int]:
    """Draw ``clients_per_round`` available clients uniformly without replacement, sorted by id."""
    available = ctx.available
    if ctx.clients_per_round >= len(available):
        return list(available)
    order = torch.randperm(len(available), generator=ctx.rng(f"cohort/{ctx.attempt}"))
    return sorted(available[position] for position in order[: ctx.clients_per_round].tolist())


def choose_cohort(method: Method, ctx: RoundContext, state: ServerState) -> tuple[int, ...]:
    """Return whom a method selects, without clients that are not available, sorted by id."""
    available = set(ctx.available)
    return tuple(sorted(c for c in method.select(ctx, state) if c in available))


def merged(
    ctx: RoundContext,
    state: ServerState,
    updates: Sequence[Update],
    *,
    weights: Sequence[float] | None = None,
    absent: Absent = "skip",
) -> ServerState:
    """Return the state with the updates merged into its values.

    Args:
        weights: one per update, not normalised; by default the sample counts, as in FedAvg.
        absent: what a coordinate means that an update does not hold (see ``structure.merge``).
    """
    chosen = weights if weights is not None else [float(u.num_examples) for u in updates]
    contributions = [
        Contribution(u.support, u.delta, w) for u, w in zip(updates, chosen, strict=True)
    ]
    new = merge(ctx.travels, state.values, contributions, absent=absent)
    return replace(state, values={**state.values, **new})


class Method:
    """Base of all methods; see the module docstring for the rules."""

    source: ClassVar[str] = ""
    """Paper, venue and year."""
    kind: ClassVar[Kind] = "dense"
    clients_differ: ClassVar[bool] = False
    """True where clients of one round may get different sub-models."""
    sends_indices: ClassVar[bool] = False
    """True where clients need to know which channels they hold (client memory under sub-models);
    otherwise the widths of the tensors tell them enough and no index travels."""
    remembers_mask: ClassVar[bool] = False
    """True where clients keep the masks they last had, so that a plan may send values alone
    (``Plan.is_mask_known``)."""
    trains_sparse: ClassVar[bool] = False
    """True where weights off the mask of a plan stay 0 in every step of local training, so that
    layers may skip them (``executor.sparse``)."""
    sparsifies: ClassVar[bool] = False
    """True where clients leave entries out of their change, by the mask of their result: such an
    entry did not change, and the client held and trained it all the same."""
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Dotted recipe keys that the method wants another default for (``local.epochs``)."""
    Options: ClassVar[type] = NoOptions
    State: ClassVar[type | None] = None
    """Type of ``ServerState.method``, from whose annotations a checkpoint restores it."""

    def keeps_buffers(self, options: Any) -> bool:
        """Tell whether running statistics of batch norm stay where they are, instead of travelling
        and being merged like weights; clients then start from fresh ones, or from what they
        remember."""
        return False

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Say which options can never take effect in so many rounds, and how they would; a line
        each, which the user is told ahead of the first round."""
        return []

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Prepare the server's state, once, before the start-phase probe."""
        return state

    def select(self, ctx: RoundContext, state: ServerState) -> list[int]:
        """Choose the cohort; ``ctx.available`` says who can be, and others are left out."""
        return sample_cohort(ctx)

    def probe(self, ctx: RoundContext, state: ServerState, cohort: Sequence[int]) -> list[Probe]:
        """Ask clients something outside training; most methods ask nothing.

        Questions with one ``op`` are one step, in the order of their names; before each step they
        are asked for again, with the state that the answers so far have led to. Pure: equal
        arguments give equal questions, and every state of one phase the same names.

        The engine asks only who is there (``ctx.attempt``) and has samples to answer from: training
        samples, or for a probe that ``sees_withheld`` those of withheld classes. So a method may
        name everybody; one that asks a single client takes it from ``ctx.available``.

        Args:
            cohort: that of the round; all registered clients in phase "start".
        """
        return []

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Take in the answers that came, one or more, ordered by client.

        Clients may be missing: who was away, or late, or whose answer was wrong. When nobody at all
        answers, the start and an evaluation fail; a round goes on without what it asked.
        """
        return state

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        """Say what one client gets and does. Pure: equal arguments give equal plans."""
        return Plan(client, state.support, ctx.local)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, updates: Sequence[Update]
    ) -> ServerState:
        """Merge the usable updates, ordered by client, into the state."""
        return merged(ctx, state, updates)

    def loss(self, cx: ClientContext, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean loss of one batch, on a client."""
        return cross_entropy(model, batch)

    def train(self, cx: ClientContext, model: nn.Module) -> Result:
        """Train the received model on a client's data."""
        return cx.result(model, fit(model, cx, self.loss))

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Tensors | Work:
        """Answer a probe on a client; `Work` where that took training steps."""
        raise NotImplementedError(f"{type(self).__name__} asks {op!r} but does not answer it")

    def view(self, cx: ClientContext, values: Tensors) -> Tensors:
        """Return the tensors this client would use for prediction (personalised methods)."""
        return values


def overrides(method: Method) -> Mapping[str, bool]:
    """Tell which of the ten hooks a method overrides."""
    hooks = [
        "begin",
        "select",
        "probe",
        "absorb",
        "plan",
        "aggregate",
        "loss",
        "train",
        "answer",
        "view",
    ]
    return {hook: getattr(type(method), hook) is not getattr(Method, hook) for hook in hooks}
