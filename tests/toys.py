"""Methods that exist only to exercise hooks which no shipped method uses yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from fpcli.engine.client import ClientContext
from fpcli.engine.fit import Result, Work, fit
from fpcli.engine.method import Kind, Method, RoundContext
from fpcli.engine.types import Answer, Plan, Probe, ServerState, Support, Tensors, Timing


class Masked(Method):
    """Every client gets its own random mask over the weights, new in every round."""

    source: ClassVar[str] = "test"
    kind: ClassVar[Kind] = "masks"
    clients_differ: ClassVar[bool] = True

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        rng = ctx.rng(f"mask/{client}")
        mask = {
            name: torch.rand(spec.shape, generator=rng) < 0.5
            for name, spec in ctx.layout.tensors.items()
            if len(spec.shape) > 1
        }
        return Plan(client, Support(mask=mask), ctx.local)

    def train(self, cx: ClientContext, model: nn.Module) -> Result:
        """Train, then give up the smallest half of what was received."""
        fitted = fit(model, cx, self.loss)
        trained = model.state_dict()
        own = {
            name: mask & (trained[name].abs() >= trained[name].abs().median())
            for name, mask in cx.mask.items()
        }
        result = cx.result(model, fitted, mask=own)
        delta = {
            name: torch.where(own[name], value, 0.0) if name in own else value
            for name, value in result.delta.items()
        }
        return replace(result, delta=delta)


class Personal(Method):
    """Clients with random widths remember their model and predict with the mean of both."""

    source: ClassVar[str] = "test"
    kind: ClassVar[Kind] = "personalised"
    clients_differ: ClassVar[bool] = True
    sends_indices: ClassVar[bool] = True

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        rng = ctx.rng(f"width/{client}")
        keep = {
            name: torch.randperm(group.width, generator=rng)[: group.width // 2].sort().values
            for name, group in ctx.layout.prunable.items()
        }
        return Plan(client, Support(keep), ctx.local, note={"told": client})

    def train(self, cx: ClientContext, model: nn.Module) -> Result:
        known = cx.recall("model")
        result = cx.result(model, fit(model, cx, self.loss))
        cx.remember("model", {k: cx.received[k] + v for k, v in result.delta.items()})
        return replace(result, metrics={"told": cx.note["told"], "knew": float(len(known))})

    def view(self, cx: ClientContext, values: Tensors) -> Tensors:
        mine: dict[str, Tensor] = cx.recall("model")
        return {name: (value + mine.get(name, value)) / 2 for name, value in values.items()}


@dataclass(frozen=True)
class Asked:
    """What `Asking` knows: label counts by client, and how many answers came in each phase."""

    labels: Mapping[int, Tensor] = field(default_factory=dict)
    phases: tuple[tuple[str, int], ...] = ()


class Asking(Method):
    """Asks in every phase and keeps the answers in its state."""

    source: ClassVar[str] = "test"
    State: ClassVar[type] = Asked

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        return replace(state, method=Asked())

    def probe(self, ctx: RoundContext, state: ServerState, cohort: Sequence[int]) -> list[Probe]:
        return [Probe(client, "labels", note={"phase": ctx.phase}) for client in cohort]

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Tensors:
        labels = torch.cat([y for _, y in cx.batches()])
        return {"counts": torch.bincount(labels, minlength=10).float()}

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        known: Asked = state.method
        labels = dict(known.labels) | {a.probe.client: a.tensors["counts"] for a in answers}
        return replace(state, method=Asked(labels, (*known.phases, (ctx.phase, len(answers)))))


class Timed(Method):
    """Knows better than the clock how long clients take, for training and for answers."""

    source: ClassVar[str] = "test"
    offset_s: ClassVar[float] = 0.0

    def probe(self, ctx: RoundContext, state: ServerState, cohort: Sequence[int]) -> list[Probe]:
        return [Probe(client, "wait") for client in cohort] if ctx.phase == "start" else []

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        seconds = {"compute_s": 30.0 + cx.client + self.offset_s, "down_s": 0.0, "up_s": 0.0}
        return Work({"one": torch.ones(1)}, seconds)

    def plan(self, ctx: RoundContext, state: ServerState, client: int) -> Plan:
        return Plan(client, state.support, ctx.local, time=Timing(client + 1.0, 0.5, 0.25))
