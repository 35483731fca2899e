"""NISP: one mask of neurons for all clients, by importance that the server propagates.

Source: Kumar and Toshniwal, "Neuron Specific Pruning for Communication Efficient Federated
Learning", CIKM 2022 (also called FedSparse; extended as FedNISP in 2024), on the importance of Yu
et al., "NISP", CVPR 2018. The server, which has the weights alone, scores every neuron by how much
of the network's output it can reach (``scores.response_propagation``) and removes the same share of
every layer. What is left travels both ways; clients put zeros where neurons are gone, and train the
model in its full shape. recipes/nisp tells what is known from where; bodies of the papers were not
at hand.
Symbols: M is ``state.support``, p is `Options.ratio`, s is what `measure_importance` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from fpcli.engine.method import ClientContext, Method, RoundContext, Traits, fit, merge_answers
from fpcli.engine.types import Answer, Ask, ServerState, Support, Work
from fpcli.errors import RecipeError
from fpcli.scores.inf_fs import select_infinite_features
from fpcli.scores.producers import find_classifier
from fpcli.scores.response_propagation import (
    StartingScores,
    score_by_propagation,
    score_kept_only,
    start_at_classifier,
    start_at_output,
    start_from,
    watch_responses,
)
from fpcli.scores.sample import Sample, score
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.patterns import keep_ranked

RESPONSES = "responses"
"""Name of a client's scores of the classifier's inputs, in what it sends and in its note."""


@dataclass(frozen=True)
class Options:
    """Options of `nisp`; the paper's own numbers are not known."""

    ratio: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Share of every layer's neurons that is removed (paper: p)."""
    prune_start: Annotated[int, Ge(0)] = 1
    """Round after which the first mask is made; 0 prunes the initial model."""
    mask_every: Annotated[int, Ge(0)] = 0
    """Rounds from one mask to the next; 0 makes one only. A later mask differs only with
    `server: retain`, since a neuron that is 0 has no importance."""
    score: Literal["nisp", "l1", "random"] = "nisp"
    """What ranks neurons: propagated importance, or a rival (l1 norm of incoming weights, chance).
    The options from `frl` to `bn` are of `nisp`."""
    frl: Literal["ones-out", "ones", "inffs", "client-inffs"] = "ones-out"
    """Where importance starts: 1 at every output; 1 at every input of the classifier (the final
    response layer); there, by infinite feature selection on samples of the server's, or on those of
    the round's clients, averaged."""
    propagate: Literal["all", "kept"] = "all"
    """Whose importance flows on to lower layers: that of all neurons, or of those that stay."""
    bn: Literal["var", "ignore"] = "var"
    """Factor of batch norm: scale over running deviation, or the scale alone."""
    local: Literal["dense", "frozen"] = "dense"
    """What clients train: the full shape with zeros where neurons are gone, or the small model."""
    server: Literal["zero", "retain"] = "zero"
    """What the server has of removed neurons: zeros, or their last values, which may return."""

    def __post_init__(self) -> None:
        if self.frl == "client-inffs" and not self.prune_start:
            raise ValueError(
                "frl client-inffs needs prune_start 1 or more: clients answer in rounds"
            )

    def is_due(self, rounds: int) -> bool:
        """Tell whether a mask is made after so many finished rounds."""
        since = rounds - self.prune_start
        return since == 0 or (self.mask_every > 0 and since > 0 and since % self.mask_every == 0)


def score_own_responses(model: nn.Module, cx: ClientContext) -> Tensor:
    """Return a client's scores of what its classifier reads, ``[inputs]``; 0 for all where they do
    not vary, as those of a single sample."""
    responses = watch_responses(model.eval(), cx.batches(is_augmented=False)).cpu()
    try:
        return select_infinite_features(responses).float()
    except RecipeError:
        return torch.zeros(responses.shape[1])


def average_responses(layout: Layout, classifier: str, answers: Sequence[Answer]) -> Tensor:
    """Return the clients' mean scores of the classifier's inputs, by samples; float64, in
    coordinates of the initial model.

    An input that clients do not hold scores 0. Scores of a wrong shape or type do not count.
    """
    name = f"{classifier}.weight"
    total = torch.zeros(layout.tensors[name].shape[1], dtype=torch.float64)
    for answer in answers:
        sent, held = answer.work.stats.get(RESPONSES), answer.support.axes(layout)[name][1]
        rows = torch.arange(len(total)) if held is None else held
        if sent is not None and sent.shape == rows.shape and sent.is_floating_point():
            total[rows] += answer.num_examples * sent.double()
    return total / max(sum(answer.num_examples for answer in answers), 1)


def make_sample(ctx: RoundContext) -> Sample:
    """Return a sample of the right shape without content, which is all that the server has."""
    dataset = ctx.server.dataset
    blank = dataset.normalise(torch.zeros_like(dataset.train.images[:1]))
    return Sample(ctx.server.template, [(blank, torch.zeros(1))], dataset.task, ctx.seed)


def find_start(
    ctx: RoundContext, sample: Sample, values: Tensors, answers: Sequence[Answer]
) -> StartingScores:
    """Return where importance starts, and charge the server for what it has to look at."""
    if ctx.options.frl == "ones-out":
        return start_at_output
    if ctx.options.frl == "ones":
        return start_at_classifier
    if ctx.options.frl == "client-inffs":
        classifier = find_classifier(sample.module(values), sample.batches[0][0])
        return start_from(average_responses(ctx.layout, classifier, answers))
    batches = ctx.server.batches(batch_size=ctx.local.batch_size, is_augmented=False)
    responses = watch_responses(ctx.server.module(values).eval(), batches)
    ctx.server.charge(ctx.server.num_examples, passes="forward")
    return start_from(select_infinite_features(responses.cpu()))


def measure_importance(
    ctx: RoundContext, values: Tensors, answers: Sequence[Answer] = ()
) -> dict[str, Tensor]:
    """Return the importance of every neuron, prunable group -> ``[width]``, and charge the server
    for its propagation: a pass forward and back of one sample, with `propagate: kept` as many as
    there are groups.

    Args:
        values: dense, of the global model.
        answers: of the round, in which clients may tell of responses.
    """
    options, sample = ctx.options, make_sample(ctx)
    if options.score != "nisp":
        return score(options.score, ctx.layout, values, sample)
    start = find_start(ctx, sample, values, answers)
    if options.bn == "ignore":
        values = {
            name: torch.ones_like(x) if name.endswith(".running_var") else x
            for name, x in values.items()
        }
    if options.propagate == "all":
        ctx.server.charge(1)
        return score_by_propagation(ctx.layout, values, sample, start)
    ctx.server.charge(len(ctx.layout.prunable))
    return score_kept_only(ctx.layout, values, sample, start, options.ratio)


def tell_scores(scores: Tensor, kept: Tensor | None) -> dict[str, list[float]]:
    """Return the scores of the neurons of a layer that stay and of those that leave, each from the
    largest on, with four digits.

    Args:
        kept: the neurons that stay; None if all do.

    >>> tell_scores(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([1]))
    {'kept': [0.5], 'removed': [0.25, 0.25]}
    """
    stays = torch.ones(len(scores), dtype=torch.bool)
    if kept is not None:
        stays = torch.zeros_like(stays).index_fill_(0, kept, True)
    return {
        word: [float(f"{x:.4g}") for x in scores[part].sort(descending=True).values.tolist()]
        for word, part in (("kept", stays), ("removed", ~stays))
    }


def prune_neurons(
    ctx: RoundContext, state: ServerState, answers: Sequence[Answer] = ()
) -> ServerState:
    """Return the state with a new mask, by the importance of its neurons, which is logged."""
    importance = measure_importance(ctx, state.values, answers)
    support = Support(keep_ranked(ctx.layout, importance, ctx.options.ratio))
    ctx.log(
        None, importance={n: tell_scores(x, support.keep.get(n)) for n, x in importance.items()}
    )
    if ctx.options.server == "retain":
        return replace(state, support=support)
    values, _ = support.scatter(ctx.layout, support.gather(ctx.layout, state.values))
    return replace(state, values={**state.values, **values}, support=support)


class NISP(Method):
    """Neurons pruned by importance that the server propagates back, one mask for all clients."""

    source: ClassVar[str] = "Kumar and Toshniwal, CIKM 2022"
    traits: ClassVar[Traits] = Traits(cuts="channels", coordinates=True)
    Options: ClassVar[type] = Options

    def traits_of(self, options: Any) -> Traits:
        """Return the traits: who rebuilds the full shape must know which neurons it has."""
        return replace(
            self.traits,
            coordinates=options.local == "dense",
            needs_server_data=options.score == "nisp" and options.frl == "inffs",
        )

    def idle(self, options: Any, rounds: int) -> list[str]:
        """Tell that no round is played with a mask, or that later masks are the first one."""
        texts = []
        if options.ratio and options.prune_start >= rounds:
            texts.append(
                f"`method.prune_start` is {options.prune_start}, but the run ends after round "
                f"{rounds}: no round is played with a mask; set it below {rounds}"
            )
        if options.mask_every and options.server == "zero":
            texts.append(
                "`method.mask_every` changes nothing: removed neurons are 0 at the server, so that "
                "every later mask is the first; set method.server=retain, or mask_every=0"
            )
        return texts

    def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
        """Refuse a network that importance cannot flow through, and prune now if that is asked."""
        if ctx.options.is_due(0):
            return prune_neurons(ctx, state)
        if ctx.options.score == "nisp":
            score_by_propagation(ctx.layout, state.values, make_sample(ctx), start_at_output)
        return state

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        """Send what is kept; say what training computes with, and whether responses are asked."""
        options: Options = ctx.options
        macs = ctx.size(Support() if options.local == "dense" else state.support)[0]
        note = {}
        if options.score == "nisp" and options.frl == "client-inffs" and options.is_due(ctx.round):
            note = {RESPONSES: True}
            # A forward pass of all samples, a third of the work of an epoch.
            macs += ctx.size(state.support)[0] / (3 * ctx.local.epochs)
        record = {"ratio": options.ratio if state.support.keep else 0.0}
        return [
            Ask(client, note=note, support=state.support, record=record, macs=macs)
            for client in ctx.cohort
        ]

    def train(self, cx: ClientContext, model: nn.Module) -> Work:
        """Train, with `local: dense` in the full shape, of which the kept entries are sent."""
        if cx.options.local == "dense" and cx.support.keep:
            dense, _ = cx.support.scatter(cx.site.layout, cx.received)
            whole = cx.module(dense)
            fitted = fit(whole, cx, self.loss)
            trained = {name: value.cpu() for name, value in whole.state_dict().items()}
            model.load_state_dict(cx.support.gather(cx.site.layout, trained), strict=False)
        else:
            fitted = fit(model, cx, self.loss)
        stats = {RESPONSES: score_own_responses(model, cx)} if RESPONSES in cx.note else {}
        return cx.result(model, fitted, stats=stats)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        """Average what is kept, and make a mask when it is time."""
        new = merge_answers(ctx, state, answers)
        return prune_neurons(ctx, new, answers) if ctx.options.is_due(ctx.round) else new
