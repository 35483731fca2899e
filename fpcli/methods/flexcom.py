"""FlexCom: every client compresses its update as much as its link and its speed call for.

Source: Li, Shi, Hou, Li, Pan, Han, "To Talk or to Work: Flexible Communication Compression for
Energy Efficient Federated Learning over Heterogeneous Mobile Edge Devices", INFOCOM 2021 (arXiv
2012.11804), which FedMP's study calls FlexCom. From its abstract: clients take part with
compression parameters of their own, chosen by their computing and their communication. Inferred:
sparsification by size with error feedback, and the rule that chooses, which balances seconds where
the paper balances energy. See recipes/flexcom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le, Lt
from torch import nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit
from fpcli.engine.types import Ask, ServerState, Timing, Work
from fpcli.structure.budget import keep_largest

MASK_SHARE = 1 / 32
"""What a bitmap of the entries costs, as a share of sending all of them: a bit for 32."""


@dataclass(frozen=True)
class Options:
    """Options of `flexcom`; the paper's values are not known."""

    ratio_min: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Least share of its update's entries that a client leaves out."""
    ratio_max: Annotated[float, Ge(0), Lt(1)] = 0.95
    """Largest share that it leaves out."""
    pace: Annotated[float, Ge(0), Le(1)] = 0.5
    """Share of the cohort that is in time when it leaves out `ratio_min`; the others compress more
    to be in time too."""

    def __post_init__(self) -> None:
        if self.ratio_min > self.ratio_max:
            raise ValueError(f"ratio_min {self.ratio_min} is above ratio_max {self.ratio_max}")


def choose_compressions(times: Sequence[Timing], options: Options) -> list[float]:
    """Return the share of its entries that each client leaves out to finish in time.

    Sending the share s of the entries takes ``s + 1/32`` of the seconds that all of them take. In
    time is the quantile ``pace`` of the times at ``ratio_min``, interpolated linearly.
    """
    sent = 1 - options.ratio_min + MASK_SHARE
    totals = [time.compute_s + time.down_s + time.up_s * sent for time in times]
    in_time = float(torch.tensor(totals, dtype=torch.float64).quantile(options.pace))
    ratios = [1 + MASK_SHARE - (in_time - t.compute_s - t.down_s) / t.up_s for t in times]
    return [min(options.ratio_max, max(ratio, options.ratio_min)) for ratio in ratios]


class FlexCom(Method):
    """Sparse updates with error feedback, a compression of its own for every client."""

    source: ClassVar[str] = "Li et al., INFOCOM 2021"
    traits: ClassVar[Traits] = Traits(uploads="entries")
    defaults: ClassVar[Mapping[str, Any]] = {"wire.codec": "sparse"}
    Options: ClassVar[type] = Options

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send the whole model, and say how much of the change to leave out."""
        ratios = choose_compressions(list(ctx.full_times().values()), ctx.options)
        notes = [{"compression": round(ratio, 4)} for ratio in ratios]
        return [
            Ask(client, note=note, support=state.support, record=note)
            for client, note in zip(ctx.cohort, notes, strict=True)
        ]

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Send the largest entries of the update and of what was left out before; keep the rest."""
        work = cx.result(model, fit(model, cx, self.loss))
        rest = cx.recall("residual")
        names = cx.site.layout.parameters.tensors
        total = {name: work.values[name] + rest.get(name, 0.0) for name in names}
        sizes = {name: x.abs() for name, x in total.items()}
        mask = keep_largest(sizes, 1 - cx.note["compression"])
        largest_of = {name: torch.where(mask[name], x, 0.0) for name, x in total.items()}
        sent = {**work.values, **largest_of}
        arrives = cx.commit(sent, mask)
        cx.remember("residual", {name: x - arrives[name] for name, x in total.items()})
        return replace(work, values=sent, mask=mask)
