"""Uniform pruning: every client gets the same pruning ratio, ranked anew every round.

Source: the baseline "UP-FL" of Jiang et al., "FedMP", ICDE 2022, section 4: pruning, training and
recovery are FedMP's, but one fixed ratio serves all clients. It shows what choosing the ratio per
client is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from fpcli.engine.method import Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support
from fpcli.scores.sample import score_of_weights
from fpcli.structure.patterns import keep_ranked


@dataclass(frozen=True)
class Options:
    """Options of `uniform`."""

    ratio: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of the channels of every group that is left out, for all clients and rounds."""
    score: str = "l1"
    """Which channels stay: the ones with the highest score (a name of `fpcli.scores`
    that needs only weights: l1, l2, bn-scale, largest)."""


class Uniform(Method):
    """One pruning ratio for all clients (UP-FL)."""

    source: ClassVar[str] = "baseline UP-FL of Jiang et al., ICDE 2022"
    traits: ClassVar[Traits] = Traits(cuts="channels")
    Options: ClassVar[type] = Options

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Keep the highest-scored channels of the current global model."""
        options: Options = ctx.options
        scores = score_of_weights(options.score, ctx.layout, state.values)
        support = Support(keep_ranked(ctx.layout, scores, options.ratio))
        return [Ask(c, support=support, record={"ratio": options.ratio}) for c in ctx.cohort]

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Recover each sub-model with the values it left out, and average by sample counts."""
        return merge_answers(ctx, state, answers, absent="keep")
