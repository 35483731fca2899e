"""Known speeds: the ratios that `pace` would choose if it knew what the simulator knows.

The control beside methods that must find out how fast their clients are: the same rule, with every
client's true seconds in this very round in the place of what was learned. What another method lacks
to it is what not knowing costs. It has no paper, and no meaning outside a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fpcli.engine.balance import Balance, balance_channels
from fpcli.engine.method import Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState


class KnownSpeeds(Method):
    """The ratios of `pace` from the true speeds (control)."""

    source: ClassVar[str] = "control without a paper"
    traits: ClassVar[Traits] = Traits(cuts="channels", sub_models="own")
    Options: ClassVar[type] = Balance

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Keep as many of the highest-scored channels as each client's device allows."""
        devices = {client: ctx.device(client) for client in ctx.cohort}
        return list(balance_channels(ctx, state, devices, dict.fromkeys(devices, 1.0)).values())

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Recover and average (R2SP)."""
        return merge_answers(ctx, state, answers, absent="keep")
