"""Methods that exist only to exercise hooks which no shipped method uses yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit
from fpcli.engine.types import Answer, Ask, ServerState, Support, Tensors, Timing, Work


class Masked(Method):
    """Every client gets its own random mask over the weights, new in every round."""

    source: ClassVar[str] = "test"
    traits: ClassVar[Traits] = Traits(cuts="weights", sub_models="own", masks_by="client")

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        asks = []
        for client in ctx.cohort:
            rng = ctx.rng(f"mask/{client}")
            mask = {
                name: torch.rand(spec.shape, generator=rng) < 0.5
                for name, spec in ctx.layout.tensors.items()
                if len(spec.shape) > 1
            }
            asks.append(Ask(client, support=Support(mask=mask)))
        return asks

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, then give up the smallest half of what was received."""
        fitted = fit(model, cx, self.loss)
        trained = model.state_dict()
        own = {
            name: mask & (trained[name].abs() >= trained[name].abs().median())
            for name, mask in cx.mask.items()
        }
        work = cx.result(model, fitted, mask=own)
        delta = {
            name: torch.where(own[name], value, 0.0) if name in own else value
            for name, value in work.values.items()
        }
        return replace(work, values=delta)


class Narrowing(Method):
    """Every client goes on with every other channel of the stem that it received."""

    source: ClassVar[str] = "test"
    traits: ClassVar[Traits] = Traits(cuts="channels", sub_models="own", masks_by="client")

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        return [
            Ask(client, support=Support({"stem": torch.arange(client + 1, 8)}))
            for client in ctx.cohort
        ]

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        stay = {"stem": torch.arange(len(cx.received["stem.bias"])) % 2 == 0}
        return cx.result(model, fit(model, cx, self.loss), stay=stay)


class Remembering(Method):
    """Half of every weight matrix, the same half for three rounds; clients remember which."""

    source: ClassVar[str] = "test"
    traits: ClassVar[Traits] = Traits(cuts="weights", remembers_masks=True)

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        rng = torch.Generator().manual_seed((ctx.round - 1) // 3)
        mask = {
            name: torch.rand(spec.shape, generator=rng) < 0.5
            for name, spec in ctx.layout.tensors.items()
            if len(spec.shape) > 1
        }
        return [Ask(client, support=Support(mask=mask)) for client in ctx.cohort]


class Personal(Method):
    """Clients with random widths remember their model and predict with the mean of both."""

    source: ClassVar[str] = "test"
    traits: ClassVar[Traits] = Traits(
        cuts="channels", sub_models="own", models="personal", coordinates=True
    )

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        asks = []
        for client in ctx.cohort:
            rng = ctx.rng(f"width/{client}")
            keep = {
                name: torch.randperm(group.width, generator=rng)[: group.width // 2].sort().values
                for name, group in ctx.layout.prunable.items()
            }
            asks.append(Ask(client, note={"told": client}, support=Support(keep)))
        return asks

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        known = cx.recall("model")
        told = {"told": cx.note["told"], "knew": float(len(known))}
        work = cx.result(model, fit(model, cx, self.loss), metrics=told)
        cx.remember("model", {k: cx.received[k] + v for k, v in work.values.items()})
        return work

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

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        return [Ask(client, "labels", note={"phase": ctx.phase}) for client in ctx.cohort]

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        labels = torch.cat([y for _, y in cx.batches()])
        return Work({"counts": torch.bincount(labels, minlength=10).float()})

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        known: Asked = state.method
        labels = dict(known.labels) | {a.ask.client: a.work.values["counts"] for a in answers}
        return replace(state, method=Asked(labels, (*known.phases, (ctx.phase, len(answers)))))


class Timed(Method):
    """Knows better than the clock how long clients take, for training and for answers."""

    source: ClassVar[str] = "test"
    offset_s: ClassVar[float] = 0.0

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        return [Ask(client, "wait") for client in ctx.cohort] if ctx.phase == "start" else []

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        seconds = {"compute_s": 30.0 + cx.client + self.offset_s, "down_s": 0.0, "up_s": 0.0}
        return Work({"one": torch.ones(1)}, metrics=seconds)

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        return [Ask(client, time=Timing(client + 1.0, 0.5, 0.25)) for client in ctx.cohort]
