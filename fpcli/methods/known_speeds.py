"""Known speeds: the ratios that `pace` would choose if it knew what the simulator knows.

The control beside methods that must find out how fast their clients are: the same rule, with every
client's true seconds in this very round in the place of what was learned. What another method lacks
to it is what not knowing costs. It has no paper, and no meaning outside a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fpcli.engine.balance import Balance, balanced
from fpcli.engine.method import Kind, Method, RoundContext, merged
from fpcli.engine.types import Plan, ServerState, Update


class KnownSpeeds(Method):
    """The ratios of `pace` from the true speeds (control)."""

    source: ClassVar[str] = "control without a paper"
    kind: ClassVar[Kind] = "structured"
    clients_differ: ClassVar[bool] = True
    Options: ClassVar[type] = Balance

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        """Keep as many of the highest-scored channels as the client's device allows."""
        own = {client: ctx.device(client)}
        return balanced(
            ctx,
            state,
            client,
            [time.total_s for time in ctx.full_times().values()],
            lambda support: ctx.times(support, own)[client].total_s,
        )

    def aggregate(
        self, ctx: RoundContext, state: ServerState, updates: Sequence[Update]
    ) -> ServerState:
        """Recover and average (R2SP)."""
        return merged(ctx, state, updates, absent="keep")
