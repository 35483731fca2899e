"""Method: the ten hooks in which one federated algorithm differs from another.

A method is a stateless class. Six hooks run on the server (`begin`, `select`, `ask`, `absorb`,
`plan`, `aggregate`) and four on clients (`loss`, `train`, `answer`, `view`). State goes in and
comes out: what the server must remember is in `ServerState.method`, what a client must remember
goes through `cx.remember`. What the engine must know beforehand is in `traits`. Every default is
one call of a named function, so that an override can call the same function; no method extends
another one. With no hook overridden this is FedAvg.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fpcli.engine.client_context import ClientContext
from fpcli.engine.fit import fit
from fpcli.engine.round_context import RoundContext
from fpcli.engine.traits import Traits
from fpcli.engine.types import Answer, Ask, ServerState, Tensors, Work
from fpcli.errors import UsageError
from fpcli.structure.merge import Absent, Contribution, merge

__all__ = [
    "ClientContext", "Method", "NoMethodOptions", "RoundContext", "Traits", "fit",
    "merge_answers", "sample_cohort",
]  # fmt: skip
"""What a method's file needs of the engine, beside the data classes of ``types``."""


@dataclass(frozen=True)
class NoMethodOptions:
    """Options of a method that has none."""


def sample_cohort(ctx: RoundContext, among: Sequence[int] | None = None) -> list[int]:
    """Draw ``clients_per_round`` clients uniformly without replacement, sorted by id.

    Args:
        among: draw from these of the available clients only.
    """
    available = ctx.available if among is None else among
    if ctx.clients_per_round >= len(available):
        return list(available)
    order = torch.randperm(len(available), generator=ctx.rng(f"cohort/{ctx.attempt}"))
    return sorted(available[position] for position in order[: ctx.clients_per_round].tolist())


def merge_answers(
    ctx: RoundContext,
    state: ServerState,
    answers: Sequence[Answer],
    *,
    weights: Sequence[float] | None = None,
    absent: Absent = "skip",
) -> ServerState:
    """Return the state with the clients' changes merged into its values.

    Args:
        weights: one per answer, not normalised; by default the sample counts, as in FedAvg.
        absent: what a coordinate means that a client does not hold (see ``structure.merge``).
    """
    chosen = weights if weights is not None else [float(a.num_examples) for a in answers]
    contributions = [
        Contribution(a.support, a.work.values, w) for a, w in zip(answers, chosen, strict=True)
    ]
    new = merge(ctx.travels, state.values, contributions, absent=absent)
    return replace(state, values={**state.values, **new})


_FIRST_CONTRACT = {"kind", "clients_differ", "sends_indices", "remembers_mask", "probe"}
_FIRST_CONTRACT |= {"sparsifies", "trains_sparse", "keeps_buffers"}
"""Names that methods had when `plan` was called for each client by itself."""


class Method:
    """Base of all methods; see the module docstring for the rules."""

    source: ClassVar[str] = ""
    """Paper, venue and year."""
    traits: ClassVar[Traits] = Traits()
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Dotted recipe keys that the method wants another default for (``local.epochs``)."""
    Options: ClassVar[type] = NoMethodOptions
    State: ClassVar[type | None] = None
    """Type of ``ServerState.method``, from whose annotations a checkpoint restores it."""

    def __init_subclass__(cls) -> None:
        """Refuse a method that was written for the first contract.

        Raises:
            UsageError: with the first name that says so.
        """
        old = sorted(_FIRST_CONTRACT & vars(cls).keys())
        if "client" in inspect.signature(cls.plan).parameters:
            old.append("plan(ctx, state, client)")
        if old:
            raise UsageError(
                f"method `{cls.__module__}:{cls.__qualname__}` has `{old[0]}`, which methods had "
                "before `traits`, and before `plan` was asked once for a whole cohort",
                hint='README, "Adding a method", says how it is written; CHANGELOG what changed',
                where=cls.__module__,
            )

    def traits_of(self, options: Any) -> Traits:
        """Return the traits that the method has under some options."""
        return self.traits

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Say which options can never take effect in so many rounds, and how they would; a line
        each, which the user is told ahead of the first round."""
        return []

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Prepare the server's state, once, before the questions of the start."""
        return state

    def select(self, ctx: RoundContext, state: ServerState) -> list[int]:
        """Choose the cohort; ``ctx.available`` says who can be, and others are left out."""
        return sample_cohort(ctx)

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Ask clients something outside training; most methods ask nothing.

        Questions with one ``op`` are one step, in the order of their names; before each step they
        are asked for again, with the state that the answers so far have led to. Pure: equal
        arguments give equal questions, and every state of one phase the same names.

        The engine asks only who is there (``ctx.attempt``) and has samples to answer from: training
        samples, or for one that ``sees_withheld`` those of withheld classes. So a method may name
        everybody; one that asks a single client takes it from ``ctx.available``.
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

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Say what every client of the cohort gets and does, in its order; called once per attempt
        at a round. Pure: equal arguments give equal plans."""
        return [Ask(client, support=state.support) for client in ctx.cohort]

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Merge what the clients trained, ordered by client, into the state."""
        return merge_answers(ctx, state, answers)

    def loss(self, cx: ClientContext, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean loss of one batch, on a client: that of what is learned."""
        return cx.site.dataset.task.loss(model, batch)

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train the received model on a client's data."""
        return cx.result(model, fit(model, cx, self.loss))

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        """Answer a question on a client."""
        raise NotImplementedError(f"{type(self).__name__} asks {op!r} but does not answer it")

    def view(self, cx: ClientContext, values: Tensors) -> Tensors:
        """Return the tensors this client would use for prediction (personal models)."""
        return values
