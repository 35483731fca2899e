"""Unlearn: prune the channels that speak of some classes, then train on the others.

Source: Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022 (arXiv
2110.11794), and its official code. Before the first round every client measures how strongly each
channel answers to each class; the server ranks channels by TF-IDF, silences those that tell a class
apart, and ordinary rounds without the class follow. The classes are those of ``task.withhold``, the
model that forgets is that of ``task.start``. Here the highest scores are pruned, as the paper says;
its published code prunes the lowest. Clients may also be asked how many of their own samples are
still predicted right, by which `unlearn.ratio_search` finds R. recipes/unlearn tells what is known
from where.
Symbols: A is `Scored.activations`, R is `UnlearnChoice.ratio`, u is `Scored.target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fpcli.engine.measure import can_be_counts, count_right
from fpcli.engine.method import ClientContext, Method, RoundContext, Traits
from fpcli.engine.types import Answer, Ask, ServerState, Work, is_finite
from fpcli.errors import ClientError, DataError, LayoutError, RecipeError
from fpcli.scores.tfidf import (
    Means,
    aggregate_means,
    choose_forgotten,
    find_followers,
    measure_class_means,
    score_tfidf,
)
from fpcli.settings.unlearning import UnlearnChoice
from fpcli.structure.layout import Layout
from fpcli.structure.silence import silence_channels, zero_silent
from fpcli.structure.support import Support, scatter

COUNTS, RIGHT = "counts", "right"
"""Names of an answer's tensors that are of no layer; a layer's is ``LAYER>NORM``, see `answer`."""

FIRST, TELL = "score-000", "tell"
"""The first question for scores, and the one how many samples are predicted right, which comes
after all those."""


@dataclass(frozen=True)
class Options(UnlearnChoice):
    """Options of `unlearn`, most of which `fp unlearn` has too."""


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
    """What was found and done for each class; and with ``counts_right``, before, after pruning and
    after each evaluated round, int64 ``[2, classes]``: samples predicted right, and samples."""

    classes: tuple[Scored, ...] = field(default_factory=tuple)
    told: tuple[Tensor, ...] = field(default_factory=tuple)


def mark_alive(layout: Layout, support: Support, layers: Sequence[str]) -> dict[str, Tensor]:
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


def read_answers(layout: Layout, answers: Sequence[Answer]) -> tuple[list[Means], dict[str, str]]:
    """Return what clients say, in coordinates of the initial model, and layer -> normalisation.

    Answers that do not fit the network, or the first one's names, or are of more samples than the
    client has, do not count.

    Raises:
        LayoutError: the network has no convolution.
        ClientError: no answer fits.
    """
    means: list[Means] = []
    names: list[str] = []
    for answer in answers:
        keys = [key for key in answer.work.values if ">" in key]
        # A client without a single sample has seen no layer put out anything.
        if not keys or not _fits(layout, answer, keys) or (names and keys != names):
            continue
        names, axes = keys, answer.ask.support.axes(layout)
        values = {}
        for key in keys:
            layer, value = key.partition(">")[0], answer.work.values[key]
            rows, width = axes[f"{layer}.weight"][0], layout.tensors[f"{layer}.weight"].shape[0]
            values[layer] = scatter(value, (None, rows), (len(value), width))
        means.append(Means(values, answer.work.values[COUNTS].long()))
    if not any(">" in key for answer in answers for key in answer.work.values):
        raise LayoutError(
            "the network has no convolution whose channels could be scored",
            hint="unlearning by channels needs a convolutional network",
        )
    if not means:
        raise ClientError("no client's answer fits the network", hint="see the run's log")
    pairs = (key.partition(">") for key in names)
    return means, {layer: norm for layer, _, norm in pairs if norm}


def _fits(layout: Layout, answer: Answer, keys: Sequence[str]) -> bool:
    shapes, counts = answer.ask.support.block_shapes(layout), answer.work.values.get(COUNTS)
    if counts is None or counts.dim() != 1 or not can_be_counts(counts, answer.num_examples):
        return False
    for key in keys:
        layer, _, norm = key.partition(">")
        value, width = answer.work.values[key], shapes.get(f"{layer}.weight", (0,))[0]
        if tuple(value.shape) != (len(counts), width) or not is_finite(value):
            return False
        if norm and shapes.get(f"{norm}.weight", (width,)) != (width,):
            return False
    return True


def sum_counts(answers: Sequence[Answer]) -> Tensor:
    """Return what clients say of their samples together, int64 ``[2, classes]``: predicted right,
    and all; what cannot be does not count.

    Raises:
        ClientError: nobody says anything that can be.
    """
    counts = [(a.work.values[RIGHT], a.num_examples) for a in answers if RIGHT in a.work.values]
    counts = [(x, most) for x, most in counts if x.dtype != torch.bool and x.dim() == 2]
    good = [x.long() for x, most in counts if len(x) == 2 and can_be_counts(x[1], most)]
    good = [x for x in good if bool(((x[0] >= 0) & (x[0] <= x[1])).all())]
    good = [x for x in good if x.shape == good[0].shape]
    if not good:
        raise ClientError("no client's count of its samples can be", hint="see the run's log")
    return torch.stack(good).sum(0)


class Unlearn(Method):
    """Class-discriminative pruning, then rounds without the class."""

    source: ClassVar[str] = "Wang et al., WWW 2022"
    traits: ClassVar[Traits] = Traits(cuts="channels", starts_pruned=True, needs_classes=True)
    defaults: ClassVar[Mapping[str, Any]] = {"task.withhold": (0,)}
    Options: ClassVar[type] = Options
    State: ClassVar[type] = State

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Start with nothing scored.

        Raises:
            RecipeError: the share of channels is still to be found.
        """
        if ctx.options.ratio == "auto":
            raise RecipeError(
                "`method.ratio: auto` is no share yet",
                hint="`fp unlearn` finds one; else give a number",
                where="method.ratio",
            )
        return replace(state, method=State())

    def ask(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Before the first round ask every client once per class: pruning for one changes what the
        next one's channels answer."""
        options, ops = ctx.options, list[str]()
        if ctx.phase == "start" and options.ratio:
            ops = [f"score-{number:03d}" for number in range(len(ctx.withheld))]
        if ctx.phase in ("start", "eval") and options.counts_right:
            ops.append(TELL)
        return [
            Ask(client, op, support=state.support, sees_withheld=True)
            for op in ops
            for client in range(len(ctx.num_examples))
        ]

    def answer(self, cx: ClientContext, model: nn.Module, op: str) -> Work:
        """Return mean activations by class under ``LAYER>NORM`` (the normalisation that takes the
        layer's output, if one does), and how many samples they are means of; or how many samples
        the model predicts right, which is also told with the first scores."""
        num_classes, outputs = cx.site.dataset.num_classes, {}
        if op == TELL or (op == FIRST and cx.options.counts_right):
            batches = cx.batches(is_augmented=False, has_withheld=True)
            outputs[RIGHT] = count_right(model, batches, num_classes).int()
        if op == TELL:
            return Work(outputs)
        batches = cx.batches(is_augmented=False, has_withheld=True)
        limit = cx.options.score_batches or None
        means = measure_class_means(model, islice(batches, limit), num_classes)
        example = torch.zeros(1, *cx.site.dataset.input_shape, device=cx.torch_device)
        norms = find_followers(model, example)
        named = {f"{name}>{norms.get(name, '')}": x for name, x in means.activations.items()}
        # Only a mean weighted by samples needs to know more than who has a class.
        is_weighted = cx.options.agg == "count"
        counts = means.counts.int() if is_weighted else means.counts > 0
        return Work({**named, COUNTS: counts, **outputs})

    def absorb(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Score the channels for one class and silence the chosen ones; keep what was counted."""
        method_state: State = state.method
        options: Options = ctx.options
        if options.counts_right and answers[0].ask.op in (FIRST, TELL):
            method_state = replace(method_state, told=(*method_state.told, sum_counts(answers)))
        if answers[0].ask.op == TELL:
            return replace(state, method=method_state)
        target = ctx.withheld[len(method_state.classes)]
        means, norms = read_answers(ctx.layout, answers)
        if not any(int(mean.counts[target]) for mean in means):
            raise DataError(
                f"no client holds a sample of class {target}",
                hint="there is nothing to forget; name a class that a client holds",
                where="task.withhold",
            )
        activations = aggregate_means(means, options.agg)
        scores = {
            name: score_tfidf(x, target, options.idf_ref, options.idf)
            for name, x in activations.items()
        }
        pruned = choose_forgotten(
            scores,
            mark_alive(ctx.layout, state.support, list(scores)),
            ratio=float(options.ratio),
            scope=options.scope,
            direction=options.direction,
            min_keep=options.min_keep,
            nni_skip=options.nni_skip,
            generator=ctx.rng(f"pruned/{target}"),
        )
        support = silence_channels(ctx.layout, state.support, pruned, norms)
        scored = Scored(target, activations, {n: x.float() for n, x in scores.items()}, pruned)
        values = zero_silent(ctx.layout, support, state.values)
        method_state = replace(method_state, classes=(*method_state.classes, scored))
        return replace(state, values=values, support=support, method=method_state)
