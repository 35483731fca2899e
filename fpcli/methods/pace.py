"""Pace: a pruning ratio per client, from the one number about it that the server does not know.

Source: ours, no paper. FedMP's server counts exactly what a sub-model costs and still lets a bandit
find out, over dozens of rounds, what ratio makes a client keep up. Here one factor per client, its
observed seconds over those of a reference device for the same job, says at once how long it would
take at any ratio; every client gets the smallest one with which it keeps up with the fastest.
Sub-models and aggregation are FedMP's: l1 ranking and recovery (R2SP).

=================  ==========================  ===================================================
symbol             here                        note
=================  ==========================  ===================================================
a_n                ratio                       share of the channels that client n goes without
w_n(a)             ``ctx.times``               its job at ratio a on the reference device
f_n                ``State.factors``           learned; the true speeds are not used
T_n                ``answer.time.total_s``     observed seconds of a reply
tau                ``balance.limit``           seconds that every client should keep within
=================  ==========================  ===================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, Lt

from fpcli import plugins
from fpcli.engine.balance import Balance, balance_channels
from fpcli.engine.method import Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, Device, ServerState, Support
from fpcli.errors import RecipeError, UsageError
from fpcli.scores.magnitude import l1
from fpcli.structure.min_coverage import measure_rare_channels
from fpcli.structure.patterns import keep_ranked


@dataclass(frozen=True)
class Options(Balance):
    """Options of `pace`."""

    first: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Ratio of a client whose speed is not known yet."""
    keep: Annotated[float, Ge(0), Le(1)] = 0.5
    """Weight of what is known of a client's speed against a new observation, in a geometric mean:
    0 forgets at once, 1 never learns more than the first reply told."""
    reference: str = ""
    """Fleet profile whose first device jobs are measured by; empty means the run's own."""


@dataclass(frozen=True)
class State:
    """What the server knows of its clients.

    Attributes:
        factors: client -> its seconds as a multiple of the reference device's; those that have
            answered at least once.
        has_warned: one warning about channels that hardly anybody trains is enough.
    """

    factors: Mapping[int, float] = field(default_factory=dict)
    has_warned: bool = False


def learn_factor(factor: float | None, observed: float, keep: float) -> float:
    """Return a client's factor after another observation.

    >>> round(learn_factor(3.0, 8 / 2.0604, keep=0.5), 6), learn_factor(None, 2.0, keep=0.5)
    (3.412949, 2.0)
    """
    return observed if factor is None else factor**keep * observed ** (1 - keep)


def choose_reference(ctx: RoundContext) -> Device:
    """Return the device that jobs are measured by, the same in every round.

    Raises:
        RecipeError: there is no such profile.
    """
    name = ctx.options.reference
    try:
        return (plugins.lookup("fleets", name)(ctx.seed) if name else ctx.fleet).nominal(0)
    except UsageError as error:
        text = f"method.reference: {error.message}"
        raise RecipeError(text, hint=error.hint, where="method.reference") from error


class Pace(Method):
    """As small a model as it takes to keep up with the fastest client, from learned speeds."""

    source: ClassVar[str] = "ours, without a paper"
    traits: ClassVar[Traits] = Traits(cuts="channels", sub_models="own")
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Know nobody yet; refuse a reference that does not exist."""
        choose_reference(ctx)
        return replace(state, method=State())

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Keep as many of the highest-scored channels as each client's pace allows."""
        factors, device, ratio = state.method.factors, choose_reference(ctx), ctx.options.first
        observed = [client for client in ctx.cohort if client in factors]
        asks = balance_channels(ctx, state, dict.fromkeys(observed, device), factors)
        first = Support(keep_ranked(ctx.layout, l1(ctx.layout, state.values), ratio))
        return [
            asks.get(client) or Ask(client, support=first, record={"ratio": ratio})
            for client in ctx.cohort
        ]

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Recover and average (R2SP), and learn from how long every reply took."""
        options: Options = ctx.options
        device, method_state = choose_reference(ctx), state.method
        factors = dict(method_state.factors)
        for answer in answers:
            client, seconds = answer.ask.client, answer.time.total_s
            expected = ctx.times(answer.support, {client: device})[client].total_s
            factors[client] = learn_factor(factors.get(client), seconds / expected, options.keep)
            ctx.log(client, factor=factors[client], seconds=seconds)
        rare = measure_rare_channels(ctx.layout, [answer.support for answer in answers])
        ctx.log(None, rare_channels=rare)
        is_thin = bool(method_state.factors) and len(answers) > 1 and rare > 0.5
        if is_thin and not method_state.has_warned:
            ctx.log(
                None,
                warning=f"{rare:.0%} of the channels were trained by fewer than two clients; "
                "set method.anchor=quantile:0.25, or a lower method.cap",
            )
        new = merge_answers(ctx, state, answers, absent="keep")
        return replace(new, method=State(factors, method_state.has_warned or is_thin))
