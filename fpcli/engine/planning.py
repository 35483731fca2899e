"""Who takes part in a round, and what each client is asked: the one place that decides it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fpcli.engine.client_context import EVALUATE
from fpcli.engine.federation import Federation
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import TRAIN, Ask, ServerState, require_kind
from fpcli.errors import UsageError


def choose_cohort(fed: Federation, ctx: RoundContext, state: ServerState) -> tuple[int, ...]:
    """Return whom the method selects, without clients that are not available, sorted by id."""
    available = set(ctx.available)
    return tuple(sorted(c for c in fed.method.select(ctx, state) if c in available))


def plan_round(fed: Federation, ctx: RoundContext, state: ServerState) -> list[Ask]:
    """Return what every client of ``ctx.cohort`` is asked, in its order.

    Raises:
        UsageError: the method plans for others than the cohort, or something else than training.
        LayoutError: a sub-model does not fit the network.
    """
    asks = _require_asks("plan", fed.method.plan(ctx, state))
    if tuple(ask.client for ask in asks) != ctx.cohort:
        raise UsageError(
            f"method `{fed.method_name}` plans for clients {[ask.client for ask in asks]}, the "
            f"cohort is {list(ctx.cohort)}",
            hint="`plan` returns one ask per client of `ctx.cohort`, in its order",
        )
    for ask in asks:
        if ask.op != TRAIN:
            raise UsageError(
                f"method `{fed.method_name}` plans `{ask.op}` for client {ask.client}",
                hint="`plan` says how clients train; questions are for `ask`",
            )
    return [complete_ask(ask, ctx) for ask in asks]


def plan_questions(fed: Federation, ctx: RoundContext, state: ServerState) -> list[Ask]:
    """Return what the method asks outside training, ordered by client.

    Raises:
        UsageError: a question has a name that means something else.
    """
    asks = _require_asks("ask", fed.method.ask(ctx, state))
    asks.sort(key=lambda ask: ask.client)
    for ask in asks:
        if ask.op in (TRAIN, EVALUATE):
            raise UsageError(
                f"method `{fed.method_name}` asks client {ask.client} to `{ask.op}`",
                hint="`ask` gives every question a name of its own; `plan` says who trains",
            )
    return asks


def _require_asks(hook: str, asks: object) -> list[Ask]:
    listed = [*asks] if isinstance(asks, Iterable) else require_kind(asks, list, hook)
    return [require_kind(ask, Ask, hook) for ask in listed]


def complete_ask(ask: Ask, ctx: RoundContext) -> Ask:
    """Return an ask with the round's settings of training, unless it has its own."""
    return ask if ask.local else replace(ask, local=ctx.local)


def foresee(
    fed: Federation, state: ServerState, round: int, client: int | None = None
) -> list[Ask]:
    """Return what the clients of a round would be asked without what it would ask beforehand.

    Args:
        state: before the round.
        client: one that is to be among them; it takes the place of the last where it is not.
    """
    ctx = fed.context(round, "round", lambda client, **values: None)
    cohort = choose_cohort(fed, ctx, state)
    if client is not None and client not in cohort:
        cohort = tuple(sorted([*cohort[:-1], client]))
    return plan_round(fed, replace(ctx, cohort=cohort), state)
