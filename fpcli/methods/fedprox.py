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
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import nn

from fpcli.data.batches import batch_ends
from fpcli.engine.fit import Result, fit
from fpcli.engine.method import Kind, Method, RoundContext
from fpcli.engine.types import Plan, ServerState
from fpcli.errors import RecipeError

if TYPE_CHECKING:
    from fpcli.engine.client import ClientContext

Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Options:
    """Options of `fedprox`."""

    mu: Annotated[float, Ge(0)] = 0.01
    """Weight of the proximal term; 0 is FedAvg with partial work."""
    work: Literal["devices", "random", "all"] = "devices"
    """Who does less: slow `devices`, so that they finish in time; stragglers drawn at `random`, a
    number of epochs drawn for each (paper); or nobody, `all` do everything."""
    pace: Share = 0.5
    """Under `devices`: share of the cohort whose computing is in time with all of its work."""
    stragglers: Share = 0.5
    """Under `random`: share of the cohort that does less (paper: 0, 0.5 and 0.9)."""


def work_share(compute_s: Sequence[float], own_s: float, pace: float) -> float:
    """Return the share of its steps that a client can do in time.

    Args:
        compute_s: seconds that all of its work takes each client of the cohort, without links,
            which less work does not shorten.
        own_s: those of the client.
        pace: in time is this quantile of them, interpolated linearly.

    >>> work_share([1.0, 4.0], 4.0, 0.5), work_share([1.0, 4.0], 1.0, 0.5)
    (0.625, 1.0)
    """
    in_time = torch.tensor(compute_s, dtype=torch.float64).quantile(pace)
    return min(1.0, float(in_time) / own_s)


def drawn_epochs(ctx: RoundContext) -> dict[int, int]:
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
    kind: ClassVar[Kind] = "dense"
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

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        """Send the whole model, and say how much to train it."""
        options, local = ctx.options, ctx.local
        plan = Plan(client, state.support, local, record={"work": 1.0})
        if options.work == "random":
            epochs = drawn_epochs(ctx)[client]
            record = {"work": epochs / local.epochs}
            return replace(plan, local=replace(local, epochs=epochs), record=record)
        if options.work == "devices":
            seconds = {one: time.compute_s for one, time in ctx.full_times().items()}
            share = work_share([*seconds.values()], seconds[client], options.pace)
            every = local.epochs * len(batch_ends(ctx.num_examples[client], local.batch_size))
            steps = max(1, floor(share * every + 1e-9))
            if steps < every:
                return replace(plan, max_steps=steps, record={"work": steps / every})
        return plan

    def train(self, cx: ClientContext, model: nn.Module) -> Result:
        """Add mu (w - w^t), the gradient of the proximal term, to every gradient."""
        mu = cx.options.mu
        anchor = {name: value.to(cx.torch_device) for name, value in cx.received.items()}

        def pull(model: nn.Module) -> None:
            for name, weight in model.named_parameters():
                if weight.grad is not None:
                    weight.grad.add_(weight.detach() - anchor[name], alpha=mu)

        return cx.result(model, fit(model, cx, self.loss, after_backward=pull if mu else None))
