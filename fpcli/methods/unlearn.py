"""Unlearn: prune the channels that speak of some classes, then train on the others.

Source: Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022 (arXiv
2110.11794), and its official code. Before the first round every client measures how strongly each
channel answers to each class; the server ranks channels by TF-IDF, silences those that tell a class
apart, and ordinary rounds without the class follow. The classes are those of ``task.withhold``, the
model that forgets is that of ``task.start``. Here the highest scores are pruned, as the paper says;
its published code prunes the lowest. recipes/unlearn tells what is known from where.
Symbols: A is `Scored.activations`, R is `Options.ratio`, u is `Scored.target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from fpcli.engine.client import ClientContext
from fpcli.engine.method import Kind, Method, RoundContext
from fpcli.engine.types import Answer, Probe, ServerState, Tensors, is_finite
from fpcli.errors import ClientError, DataError, LayoutError
from fpcli.scores.tfidf import (
    Aggregation,
    Direction,
    Means,
    Reference,
    Scope,
    Smoothing,
    aggregated,
    chosen,
    class_means,
    followers,
    tfidf,
)
from fpcli.structure.layout import Layout
from fpcli.structure.silence import silence, silenced
from fpcli.structure.support import Support, place

COUNTS = "counts"
"""Name of the answer's tensor that is of no layer; a layer's is ``LAYER>NORM``, see `answer`."""


@dataclass(frozen=True)
class Options:
    """Options of `unlearn`."""

    ratio: Annotated[float, Ge(0), Lt(1)] = 0.05
    """Share of the channels of all convolutions that is pruned for each class (paper: R)."""
    scope: Scope = "global"
    """Rank all channels together, or those of every layer by themselves."""
    direction: Direction = "highest"
    """Prune the highest scores (paper), the lowest (official code), or as many at random."""
    idf_ref: Reference = "channel"
    """What an activation must reach to count for a class: the channel's mean over the classes
    (official code), or the class's mean over the channels (formula of the paper)."""
    idf: Smoothing = "paper"
    """Smoothing of the inverse document frequency: of the paper, or of the official code."""
    agg: Aggregation = "count"
    """Mean over clients weighted by their samples of a class, over those that have the class, or
    over all."""
    min_keep: Annotated[int, Ge(1)] = 1
    """Channels that every layer keeps."""
    nni_skip: bool = False
    """Spare layers narrower than 1 / ratio, as the library of the official code does."""
    score_batches: Annotated[int, Ge(0)] = 0
    """Batches that a client looks at for the scores; 0 means all of its data."""


@dataclass(frozen=True)
class Scored:
    """One class: layer -> mean activations ``[classes, channels]``, scores ``[channels]``, and the
    channels pruned, all in coordinates of the initial model."""

    target: int
    activations: Mapping[str, Tensor]
    scores: Mapping[str, Tensor]
    pruned: Mapping[str, Tensor]


@dataclass(frozen=True)
class State:
    """What was found and done for each class."""

    classes: tuple[Scored, ...] = field(default_factory=tuple)


def alive(layout: Layout, support: Support, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return which output channels of layers are not gone: bool ``[channels]`` by layer."""
    out, axes = {}, support.axes(layout)
    for layer in layers:
        name = f"{layer}.weight"
        rows, width = axes[name][0], layout.tensors[name].shape[0]
        out[layer] = torch.ones(width, dtype=torch.bool)
        if rows is not None:
            out[layer] = torch.zeros(width, dtype=torch.bool).index_fill_(0, rows, True)
        if name in support.mask:
            out[layer] &= support.mask[name].flatten(1).any(1)
    return out


def read(layout: Layout, answers: Sequence[Answer]) -> tuple[list[Means], dict[str, str]]:
    """Return what clients say, in coordinates of the initial model, and layer -> normalisation.

    Answers that do not fit the network, or the first one's names, do not count.

    Raises:
        LayoutError: the network has no convolution.
        ClientError: no answer fits.
    """
    means: list[Means] = []
    names: list[str] = []
    for answer in answers:
        keys = [key for key in answer.tensors if key != COUNTS]
        if not keys:
            raise LayoutError(
                "the network has no convolution whose channels could be scored",
                hint="unlearning by channels needs a convolutional network",
            )
        if not _fits(layout, answer, keys) or (names and keys != names):
            continue
        names, axes = keys, answer.probe.support.axes(layout)
        values = {}
        for key in keys:
            layer, value = key.partition(">")[0], answer.tensors[key]
            rows, width = axes[f"{layer}.weight"][0], layout.tensors[f"{layer}.weight"].shape[0]
            values[layer] = place(value, (None, rows), (len(value), width))
        means.append(Means(values, answer.tensors[COUNTS].long()))
    if not means:
        raise ClientError("no client's answer fits the network", hint="see the run's log")
    pairs = (key.partition(">") for key in names)
    return means, {layer: norm for layer, _, norm in pairs if norm}


def _fits(layout: Layout, answer: Answer, keys: Sequence[str]) -> bool:
    shapes, counts = answer.probe.support.block_shapes(layout), answer.tensors.get(COUNTS)
    if counts is None or counts.dim() != 1:
        return False
    for key in keys:
        layer, _, norm = key.partition(">")
        value, width = answer.tensors[key], shapes.get(f"{layer}.weight", (0,))[0]
        if tuple(value.shape) != (len(counts), width) or not is_finite(value):
            return False
        if norm and shapes.get(f"{norm}.weight", (width,)) != (width,):
            return False
    return True


class Unlearn(Method):
    """Class-discriminative pruning, then rounds without the class."""

    source: ClassVar[str] = "Wang et al., WWW 2022"
    kind: ClassVar[Kind] = "unlearning"
    defaults: ClassVar[Mapping[str, Any]] = {"task.withhold": (0,)}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Start with nothing scored."""
        return replace(state, method=State())

    def probe(self, ctx: RoundContext, state: ServerState, cohort: Sequence[int]) -> list[Probe]:
        """Before the first round ask every client once per class: pruning for one changes what the
        next one's channels answer."""
        if ctx.phase != "start" or not ctx.options.ratio:
            return []
        return [
            Probe(client, f"score-{number:03d}", state.support, sees_withheld=True)
            for number in range(len(ctx.withheld))
            for client in cohort
        ]

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Tensors:
        """Return mean activations by class under ``LAYER>NORM`` (the normalisation that takes the
        layer's output, if one does), and how many samples they are means of."""
        batches = cx.batches(is_augmented=False, has_withheld=True)
        limit = cx.options.score_batches or None
        means = class_means(model, islice(batches, limit), cx.site.dataset.num_classes)
        example = torch.zeros(1, *cx.site.dataset.input_shape, device=cx.torch_device)
        norms = followers(model, example)
        named = {f"{name}>{norms.get(name, '')}": x for name, x in means.activations.items()}
        # Only a mean weighted by samples needs to know more than who has a class.
        is_weighted = cx.options.agg == "count"
        return {**named, COUNTS: means.counts.int() if is_weighted else means.counts > 0}

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Score the channels for one class and silence the chosen ones."""
        known: State = state.method
        options: Options = ctx.options
        target = ctx.withheld[len(known.classes)]
        means, norms = read(ctx.layout, answers)
        if not any(int(one.counts[target]) for one in means):
            raise DataError(
                f"no client holds a sample of class {target}",
                hint="there is nothing to forget",
                where="task.withhold",
            )
        activations = aggregated(means, options.agg)
        scores = {
            name: tfidf(x, target, options.idf_ref, options.idf) for name, x in activations.items()
        }
        pruned = chosen(
            scores,
            alive(ctx.layout, state.support, list(scores)),
            ratio=options.ratio,
            scope=options.scope,
            direction=options.direction,
            min_keep=options.min_keep,
            nni_skip=options.nni_skip,
            generator=ctx.rng(f"pruned/{target}"),
        )
        support = silence(ctx.layout, state.support, pruned, norms)
        scored = Scored(target, activations, {n: x.float() for n, x in scores.items()}, pruned)
        values = silenced(ctx.layout, support, state.values)
        return replace(
            state, values=values, support=support, method=State((*known.classes, scored))
        )
