"""Balance: per-client ratios with which all clients of a round take about as long as the fastest.

The rule that methods share which know, or have learned, how long a client would take at any ratio.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt

from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Ask, Device, ServerState, Support
from fpcli.scores.magnitude import l1
from fpcli.structure.patterns import Ranking
from fpcli.units import parse_share


@dataclass(frozen=True)
class Balance:
    """Options of the rule."""

    slack: Annotated[float, Gt(0)] = 1.05
    """Seconds that a client may take, as a multiple of the anchor's with the whole model."""
    cap: Annotated[float, Ge(0), Lt(1)] = 0.8
    """Largest ratio, whoever is how slow."""
    step: Annotated[float, Ge(0.001), Le(1)] = 0.01
    """Distance between the ratios that are tried: 0, step, 2 step, ..., cap."""
    anchor: str = "fastest"
    """Whose seconds with the whole model all others keep to: `fastest`, or `quantile:Q`, for which
    the share Q of the clients is faster (0 is the fastest, 0.5 the median)."""

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"anchor {self.anchor!r}: the quantile is between 0 and 1")

    @property
    def quantile(self) -> float:
        """Return the share of clients that are faster than the anchor."""
        name, _, share = self.anchor.partition(":")
        if self.anchor == "fastest":
            return 0.0
        try:
            return parse_share(share if name == "quantile" else "")
        except ValueError:
            raise ValueError(
                f"anchor {self.anchor!r}: write fastest, or quantile:Q such as quantile:0.25"
            ) from None


def time_limit(whole_s: Collection[float], options: Balance) -> float:
    """Return the seconds to keep within, from those of the clients with the whole model."""
    anchor_s = torch.tensor([*whole_s], dtype=torch.float64).quantile(options.quantile)
    return options.slack * float(anchor_s)


def find_ratio_within(seconds: Callable[[float], float], limit_s: float, options: Balance) -> float:
    """Return the smallest ratio of the grid whose job keeps within a limit, else ``cap``.

    Args:
        seconds: of a client's job at a ratio; never more at a larger one.

    >>> find_ratio_within(lambda a: 3 * (4 * (1 - a) ** 2 + 2 * (1 - a)), 6.3, Balance())
    0.49
    """
    grid = [round(at * options.step, 9) for at in range(math.ceil(options.cap / options.step))]
    at = bisect_left(grid, True, key=lambda ratio: seconds(ratio) <= limit_s)
    return [*grid, options.cap][at]


def balance_channels(
    ctx: RoundContext,
    state: ServerState,
    devices: Mapping[int, Device],
    factors: Mapping[int, float],
) -> dict[int, Ask]:
    """Give clients as many of the strongest channels (l1) as their seconds allow.

    Args:
        ctx: its options are a `Balance`.
        devices: client -> what its work is timed on.
        factors: client -> its seconds as a multiple of that device's.
    """
    ranking = Ranking(ctx.layout, l1(ctx.layout, state.values))
    sub_model = cache(lambda ratio: Support(ranking.keep(ratio)))
    size = cache(lambda ratio: ctx.size(sub_model(ratio)))

    def seconds(client: int, ratio: float) -> float:
        return factors[client] * ctx.time(client, devices[client], size(ratio)).total_s

    limit_s = (
        time_limit([seconds(client, 0.0) for client in devices], ctx.options) if devices else 0.0
    )
    asks = {}
    for client in devices:
        ratio = find_ratio_within(partial(seconds, client), limit_s, ctx.options)
        asks[client] = Ask(client, support=sub_model(ratio), record={"ratio": ratio})
    return asks
