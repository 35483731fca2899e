"""Random mask: every round all clients train the same random part of the model.

The control beside methods that choose what to prune: `uniform` with chance in place of its score,
so that the difference is what the score is worth. It has no paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Lt

from fpcli.engine.method import Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support
from fpcli.structure.budget import keep_largest, list_masked_weights
from fpcli.structure.layout import Layout
from fpcli.structure.patterns import keep_scattered


@dataclass(frozen=True)
class Options:
    """Options of `random-mask`."""

    ratio: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of every group's channels, or of every tensor's weights, that is left out."""
    pattern: Literal["channels", "weights"] = "channels"
    """What is left out: whole channels, so that the model is smaller, or single weights."""


def draw_support(layout: Layout, options: Options, rng: torch.Generator) -> Support:
    """Return a support drawn at random, with the same ratio in every group or tensor."""
    density = 1 - options.ratio
    if options.pattern == "channels":
        return Support(keep_scattered(layout, density, rng))
    shapes = {
        name: layout.tensors[name].shape for name in list_masked_weights(layout) if options.ratio
    }
    chance = {name: torch.rand(shape, generator=rng) for name, shape in shapes.items()}
    return Support(mask={n: keep_largest({n: x}, density)[n] for n, x in chance.items()})


class RandomMask(Method):
    """One random sub-model per round, for all clients (control)."""

    source: ClassVar[str] = "control without a paper"
    traits: ClassVar[Traits] = Traits(cuts="channels")
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "sparse"}
    Options: ClassVar[type] = Options

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send the round's part of the model, the same to everybody."""
        support = draw_support(ctx.layout, ctx.options, ctx.rng("mask"))
        return [Ask(c, support=support, record={"ratio": ctx.options.ratio}) for c in ctx.cohort]

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Recover the values that were left out, as `uniform` does, and average by samples."""
        return merge_answers(ctx, state, answers, absent="keep")
