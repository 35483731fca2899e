"""HeteroFL and FedRolex: clients train sub-networks of different width, cut from a global network.

Source: Diao, Ding, Tarokh, "HeteroFL: Computation and Communication Efficient Federated Learning
for Heterogeneous Clients", ICLR 2021; ``window=roll``: Alam, Liu, Yan, Zhang, "FedRolex:
Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction", NeurIPS 2022. No channel
is scored: each layer keeps its first ones (or a window that moves by one per round), and the server
averages every parameter over the clients that hold it.

=========================  ======================  ============================================
symbol of the paper        here                    note
=========================  ======================  ============================================
level a, b, ...; r         ``levels``, ``shrink``  level p has the rate r^(p-1)
rho (rate of the Scaler)   ``width``               rate of the client / largest rate of the run
sBN                        ``structure.norms``     static batch norm, in phase eval
=========================  ======================  ============================================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support, Work
from fpcli.errors import RecipeError
from fpcli.structure.layout import Layout
from fpcli.structure.norms import merge_statistics, observe_norms
from fpcli.structure.patterns import keep_scattered, keep_window
from fpcli.tasks.classify import mask_foreign_logits


@dataclass(frozen=True)
class Options:
    """Options of `heterofl`."""

    levels: str = "a1-b1-c1-d1-e1"
    """Levels and their proportions: `a1-b1-e3` means one client in five at level a, one at b,
    three at e. The largest level named is the width of the global model."""
    mode: Literal["dynamic", "fix"] = "dynamic"
    """Levels drawn anew for every client and round, or fixed by the client's number."""
    shrink: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Factor from the width of one level to the next (paper: r)."""
    window: Literal["prefix", "roll", "random"] = "prefix"
    """Channels that a client keeps: the first ones (HeteroFL), a window that starts one channel
    later every round (FedRolex), or a draw for each client and round."""
    scaler: bool = True
    """Divide outputs of hidden layers by the client's relative width during training (Scaler)."""
    masked_loss: bool = True
    """Replace logits of classes that the client does not have by 0 in its training loss."""
    class_rows: Literal["own", "all"] = "own"
    """Rows of the output layer that a client's update counts for: those of its own classes, which
    it tells the server once, or all."""
    weighting: Literal["uniform", "samples"] = "uniform"
    """Weights of the mean over a parameter's holders: equal ones, or sample counts."""
    pooled_var: bool = False
    """Batch-norm variances over all samples at once, instead of the mean of those within
    batches."""

    def __post_init__(self) -> None:
        names = [name for name, _ in parse_levels(self.levels)]
        if len(set(names)) < len(names):
            raise ValueError(f"levels {self.levels!r} name a level twice")

    @property
    def largest(self) -> float:
        """Rate of the largest level, which is the global model's."""
        return max(self.rate(name) for name, _ in parse_levels(self.levels))

    def rate(self, level: str) -> float:
        """Return the width of a level as a share of the initial model's."""
        return self.shrink ** (ord(level) - ord("a"))


def parse_levels(levels: str) -> list[tuple[str, int]]:
    """Return the levels of a text such as ``a1-b1-e3`` and their proportions, in its order.

    Raises:
        ValueError: it is not a list of letters, each with a number above 0.
    """
    if not re.fullmatch(r"[a-z][1-9]\d*(-[a-z][1-9]\d*)*", levels):
        raise ValueError(f"levels {levels!r}: write letters with proportions, such as a1-b1-e3")
    return [(part[0], int(part[1:])) for part in levels.split("-")]


def assign_level(levels: str, client: int, num_clients: int) -> str:
    """Return a client's level in blocks of client numbers; the remainder has the last level.

    Raises:
        RecipeError: there are fewer clients than the proportions add up to.
    """
    parts = parse_levels(levels)
    whole = sum(count for _, count in parts)
    if num_clients < whole:
        raise RecipeError(
            f"levels {levels} need at least {whole} clients, there are {num_clients}",
            hint="lower the proportions, or draw levels with method.mode=dynamic",
            where="method.levels",
        )
    place = client // (num_clients // whole)
    return "".join(name * count for name, count in parts)[min(place, whole - 1)]


def draw_level(levels: str, rng: torch.Generator) -> str:
    """Draw a level with the proportions as probabilities."""
    parts = parse_levels(levels)
    shares = torch.tensor([float(count) for _, count in parts])
    return parts[int(torch.multinomial(shares, 1, generator=rng))][0]


def find_class_tensors(layout: Layout, num_classes: int) -> list[str]:
    """Return the tensors of the output layer: rows are the classes, and nothing reads them."""
    for group in reversed(list(layout.groups.values())):
        is_read = any(layout.tensors[m.tensor].uses and not m.produces for m in group.members)
        if group.width == num_classes and not is_read:
            return [m.tensor for m in group.members]
    return []


def keep_own_rows(layout: Layout, support: Support, own_classes: Tensor | None) -> Support:
    """Return a support without the output layer's rows of classes that a client does not have."""
    if own_classes is None or bool(own_classes.all()):
        return support
    rows = {}
    for name in find_class_tensors(layout, len(own_classes)):
        shape = layout.tensors[name].shape
        rows[name] = own_classes.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    return support.intersect(Support(mask=rows))


@contextmanager
def scale_outputs(model: nn.Module, width: float, but: Collection[str] = ()) -> Iterator[None]:
    """Divide the outputs of convolutions and linear layers by ``width``, ``but`` some modules'."""

    def divide(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output / width

    hidden = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear) and name not in but and width != 1.0
    ]
    handles = [module.register_forward_hook(divide) for module in hidden]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class State:
    """Which classes each client has (bool ``[classes]``), as far as it has told."""

    classes: Mapping[int, Tensor] = field(default_factory=dict)


class HeteroFL(Method):
    """Width-nested or rolling sub-models, averaged over their holders (HeteroFL, FedRolex)."""

    source: ClassVar[str] = "Diao et al., ICLR 2021; Alam et al., NeurIPS 2022"
    traits: ClassVar[Traits] = Traits(cuts="channels", sub_models="own", buffers="local")
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"local.clip_norm": 1.0})
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Ask everybody once for classes, and for batch-norm statistics of the evaluated model."""
        if ctx.phase != "eval" and ctx.options.class_rows == "own":
            classes_of = state.method.classes if state.method else {}
            smallest = Support(keep_window(ctx.layout, 0.0))  # nothing of the model is needed
            new = [client for client in ctx.cohort if client not in classes_of]
            return [Ask(client, "classes", support=smallest) for client in new]
        if ctx.phase == "eval" and len(ctx.travels.tensors) < len(ctx.layout.tensors):
            everyone = range(len(ctx.num_examples))
            return [Ask(client, "batch_norm", support=state.support) for client in everyone]
        return []

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        """Tell the own classes, or the moments of every batch norm's input."""
        if op == "classes":
            return Work({"own": cx.own_classes})
        batches = cx.batches(is_augmented=False)
        return Work(observe_norms(model, batches, is_pooled=cx.options.pooled_var))

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Note the classes, or give the global model the merged batch-norm statistics."""
        if ctx.phase != "eval":
            new_classes = {answer.ask.client: answer.work.values["own"] for answer in answers}
            classes_of = state.method.classes if state.method else {}
            return replace(state, method=State({**classes_of, **new_classes}))
        statistics = [answer.work.values for answer in answers]
        block = merge_statistics(statistics, is_pooled=ctx.options.pooled_var)
        values, held = state.support.scatter(ctx.layout, block)
        new = {k: torch.where(held[k] > 0, v, state.values[k]) for k, v in values.items()}
        return replace(state, values={**state.values, **new})

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Give every client a sub-model as wide as its level."""
        options: Options = ctx.options
        start, asks = ctx.round - 1 if options.window == "roll" else 0, []
        nested = cache(partial(keep_window, ctx.layout, start=start, within=options.largest))
        for client in ctx.cohort:
            if options.mode == "fix":
                level = assign_level(options.levels, client, len(ctx.num_examples))
            else:
                level = draw_level(options.levels, ctx.rng(f"level/{client}"))
            width = options.rate(level) / options.largest
            if options.window == "random":
                rng = ctx.rng(f"window/{client}")
                support = Support(keep_scattered(ctx.layout, width, rng, within=options.largest))
            else:
                support = Support(nested(width))
            record = {"level": level, "width": width}
            asks.append(Ask(client, note={"width": width}, support=support, record=record))
        return asks

    def loss(self, cx: ClientContext, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss, of classes over the client's own ones, hidden layers scaled."""
        task = cx.site.dataset.task
        tensors = find_class_tensors(cx.site.layout, task.num_outputs)
        output = {name.rpartition(".")[0] for name in tensors}
        with scale_outputs(model, cx.note["width"] if cx.options.scaler else 1.0, but=output):
            if not (cx.options.masked_loss and task.kind == "classify"):
                return task.loss(model, batch)
            logits = model(batch[0])
        logits = mask_foreign_logits(logits, cx.own_classes.to(logits.device))
        return functional.cross_entropy(logits, batch[1])

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average every parameter over its holders; one that nobody holds stays as it is."""
        options: Options = ctx.options
        classes = state.method.classes if options.class_rows == "own" else {}
        held = [
            replace(a, support=keep_own_rows(ctx.travels, a.support, classes.get(a.ask.client)))
            for a in answers
        ]
        weights = [1.0 if options.weighting == "uniform" else float(a.num_examples) for a in held]
        new = merge_answers(ctx, state, held, weights=weights, absent="skip")
        return replace(new, support=Support(keep_window(ctx.layout, 1.0, within=options.largest)))
