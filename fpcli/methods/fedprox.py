"""FedProx: clients stay near the model they received, and slow ones do less local work.

Source: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous
Networks", MLSys 2020, algorithm 2. A client minimises ``F_k(w) + mu/2 ||w - w^t||^2`` inexactly:
how far is up to what its system can do, and whatever it did is averaged. In the paper a share of
the cohort does a random number of epochs; by default the simulated clock says here who does less.

========  ========================  ===============================================
symbol    here                      note
========  ========================  ===============================================
w^t       ``cx.received``           the anchor
mu        mu                        paper's grid: 0.001, 0.01, 0.1, 1
E         ``local.epochs``          what a client does that is in time
gamma     ``record["work"]``        stands for the inexactness: share of the steps done
========  ========================  ===============================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import nn

from fpcli.data.batches import find_batch_ends
from fpcli.engine.method import ClientContext, Method, RoundContext, fit
from fpcli.engine.proximal import make_pull
from fpcli.engine.types import Ask, ServerState, Work
from fpcli.errors import RecipeError

StragglerShare = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Options:
    """Options of `fedprox`."""

    mu: Annotated[float, Ge(0)] = 0.01
    """Weight of the proximal term; 0 is FedAvg with partial work."""
    work: Literal["devices", "random", "all"] = "devices"
    """Who does less: slow `devices`, so that they finish in time; stragglers drawn at `random`, a
    number of epochs drawn for each (paper); or nobody, `all` do everything."""
    pace: StragglerShare = 0.5
    """Under `devices`: share of the cohort whose computing is in time with all of its work."""
    stragglers: StragglerShare = 0.5
    """Under `random`: share of the cohort that does less (paper: 0, 0.5 and 0.9)."""


def work_shares(compute_s: Sequence[float], pace: float) -> list[float]:
    """Return the share of its steps that each client can do in time.

    Args:
        compute_s: seconds that all of its work takes each client of the cohort, without links,
            which less work does not shorten.
        pace: in time is this quantile of them, interpolated linearly.

    >>> work_shares([1.0, 4.0], 0.5)
    [1.0, 0.625]
    """
    in_time = float(torch.tensor(compute_s, dtype=torch.float64).quantile(pace))
    return [min(1.0, in_time / own_s) for own_s in compute_s]


def draw_epochs(ctx: RoundContext) -> dict[int, int]:
    """Return the epochs of every client when stragglers are drawn, uniformly from 1 to E."""
    rng, most = ctx.rng("stragglers"), ctx.local.epochs
    num_active = round(len(ctx.cohort) * (1 - ctx.options.stragglers))
    order = torch.randperm(len(ctx.cohort), generator=rng).tolist()
    epochs = torch.randint(1, most + 1, (len(order),), generator=rng).tolist()
    return {
        ctx.cohort[at]: most if place < num_active else epochs[place]
        for place, at in enumerate(order)
    }


class FedProx(Method):
    """Proximal local objectives, and different amounts of local work."""

    source: ClassVar[str] = "Li et al., MLSys 2020"
    Options: ClassVar[type] = Options

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Refuse a draw of epochs that has no choice."""
        if ctx.options.work == "random" and ctx.local.epochs == 1:
            raise RecipeError(
                "fedprox draws 1 to local.epochs epochs for a straggler; local.epochs is 1",
                hint="set local.epochs to 2 or more (paper: 20)",
                where="local.epochs",
            )
        return state

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send everybody the whole model, and say how much to train it."""
        options, local = ctx.options, ctx.local
        asks = {c: Ask(c, support=state.support, record={"work": 1.0}) for c in ctx.cohort}
        if options.work == "random":
            for client, epochs in draw_epochs(ctx).items():
                config, record = replace(local, epochs=epochs), {"work": epochs / local.epochs}
                asks[client] = replace(asks[client], local=config, record=record)
        if options.work == "devices":
            shares = work_shares([t.compute_s for t in ctx.full_times().values()], options.pace)
            for client, share in zip(ctx.cohort, shares, strict=True):
                every = local.epochs * len(
                    find_batch_ends(ctx.num_examples[client], local.batch_size)
                )
                steps = max(1, floor(share * every + 1e-9))
                if steps < every:
                    record = {"work": steps / every}
                    asks[client] = replace(asks[client], max_steps=steps, record=record)
        return list(asks.values())

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Add mu (w - w^t), the gradient of the proximal term, to every gradient."""
        pull = make_pull(cx, cx.options.mu)
        return cx.result(model, fit(model, cx, self.loss, after_backward=pull))
