"""Local only: every client trains its own model on its own data, and nothing is shared.

The control beside personalised methods: what a client reaches alone. All clients start from the
server's initial model, which never changes; later rounds go on from what the client remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit
from fpcli.engine.types import Answer, ServerState, Tensors, Work


class LocalOnly(Method):
    """One model per client, never merged (control)."""

    source: ClassVar[str] = "control without a paper"
    traits: ClassVar[Traits] = Traits(models="personal")

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Leave the server's model as it is."""
        return state

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Go on with the client's own model, keep it, and report no change."""
        model.load_state_dict(cx.recall("model"), strict=False)
        work = cx.result(model, fit(model, cx, self.loss))
        values = model.state_dict()
        cx.remember("model", {name: values[name].detach().cpu() for name in cx.received})
        nothing = {name: torch.zeros_like(change) for name, change in work.values.items()}
        return replace(work, values=nothing)

    def view(self, cx: ClientContext, values: Tensors) -> Tensors:
        """Predict with the client's own model, before its first round with the initial one."""
        return {**values, **cx.recall("model")}
