"""Sweep: judge a model with some channels of one group gone, group by group and ratio by ratio.

Channels are truly removed. Only what the cut changes is computed anew (``structure.reuse``): what
comes before is recorded from the whole model once, for as many images as memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fpcli.data.batches import evaluation_batches
from fpcli.data.datasets import Dataset
from fpcli.data.split import Split
from fpcli.engine.central import train_centrally
from fpcli.engine.trained import Trained
from fpcli.pruning.amounts import choose_best, list_alive, num_left
from fpcli.rng import stream
from fpcli.scores.sample import Sample, score
from fpcli.settings.learning import FitConfig
from fpcli.structure.layout import Tensors
from fpcli.structure.reuse import (
    NOTHING,
    Recorded,
    Resumed,
    SharedPrefix,
    drop_prefix,
    find_prefix,
    record,
)
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Batch, LearningTask

BATCH_SIZE = 128
"""Small, since what one layer leaves in the processor's cache the next one finds there."""

_RECORDED_BYTES = 2**29
_NUM_PROVING = 4
BASELINE = ""
"""Key of the whole model's tally."""


@dataclass(frozen=True)
class SweepConfig:
    """What is swept.

    Attributes:
        scores: names; the channels with the lowest scores leave.
        ratios: shares of a group's channels that leave, ascending, in [0, 1).
        samples: images that judge, drawn without repetition; fewer if the split has fewer.
        is_test: judge on test images instead of validation ones.
        retraining: train every cut model so, and judge it again; None does not.
        seed: of all draws.
    """

    scores: tuple[str, ...]
    ratios: tuple[float, ...]
    samples: int = 2000
    is_test: bool = False
    retraining: FitConfig | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tally:
    """How well a model did on the images seen so far; both sums are over images.

    Attributes:
        metric_sum: of the task's primary metric; for classes, how many were predicted right.
    """

    seen: int = 0
    metric_sum: float = 0.0
    loss_sum: float = 0.0

    def plus(self, task: LearningTask, outputs: Tensor, targets: Tensor) -> Tally:
        """Return the tally with one more batch."""
        values, losses = task.judge_each(outputs, targets)
        return Tally(
            self.seen + len(targets),
            self.metric_sum + float(values.sum()),
            self.loss_sum + float(losses.sum()),
        )

    @property
    def metric(self) -> float:
        """The task's primary metric."""
        return self.metric_sum / self.seen

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.loss_sum / self.seen


@dataclass(frozen=True, eq=False)
class Cut:
    """A group with some channels gone.

    Attributes:
        key: of its tally.
        keep: channels that stay, in the initial model's numbers.
        places: the same, counted among the channels that are alive now.
    """

    key: str
    group: str
    keep: Tensor
    places: Tensor


def key_of(score: str, group: str, num: int) -> str:
    """Return the key of the tally of ``num`` channels that stay."""
    return f"{score}/{group}/{num}"


def key_after_retraining(key: str) -> str:
    """Return the key of the tally after retraining."""
    return f"{key}/retrained"


def width_of(trained: Trained, group: str) -> int:
    """Return how many channels of a group are alive."""
    return len(list_alive(trained.layout, trained.support, group))


def count_kept(trained: Trained, group: str, ratios: Sequence[float]) -> list[int]:
    """Return how many channels of a group stay at each ratio, by the rule of Li et al."""
    block = trained.layout.groups[group].block
    return [num_left(width_of(trained, group), ratio, block) for ratio in ratios]


def choose_images(dataset: Dataset, config: SweepConfig) -> Split:
    """Return the images that judge, in stored order."""
    split = dataset.test if config.is_test else dataset.validation
    order = torch.randperm(len(split), generator=stream(config.seed, "sensitivity/samples"))
    return split.take(order[: config.samples].sort().values)


def list_cuts(trained: Trained, dataset: Dataset, config: SweepConfig) -> list[Cut]:
    """Return every distinct cut, group by group; scores look at validation images only.

    Raises:
        FpError: a score does not exist or cannot judge this network.
    """
    few = choose_images(dataset, replace(config, is_test=False))
    batches = list(evaluation_batches(few, dataset.normalise, batch_size=BATCH_SIZE))
    sample = Sample(trained.template, batches, dataset.task, config.seed)
    scores = {
        name: score(name, trained.layout, trained.values, sample)
        for name in dict.fromkeys(config.scores)
    }
    cuts = []
    for group in trained.layout.prunable:
        channels = list_alive(trained.layout, trained.support, group)
        block = trained.layout.groups[group].block
        for name, scores_of in scores.items():
            for num in dict.fromkeys(count_kept(trained, group, config.ratios)):
                keep = choose_best(channels, scores_of[group], num, block)
                places = torch.searchsorted(channels, keep)
                cuts.append(Cut(key_of(name, group, num), group, keep, places))
    return cuts


def judge_cuts(
    trained: Trained,
    dataset: Dataset,
    config: SweepConfig,
    cuts: Sequence[Cut],
    tallies: Mapping[str, Tally],
) -> Iterator[tuple[str, Tally]]:
    """Judge the whole model and all cuts.

    Args:
        cuts: of :func:`list_cuts`.
        tallies: of an earlier, interrupted call; what they have seen is not repeated.

    Yields:
        Key and tally whenever one has grown. A cut is done when it has seen all images, and its
        retrained tally is there if ``config.retraining`` is.

    Raises:
        DivergedError: a retraining diverged.
    """
    split = choose_images(dataset, config)
    whole = trained.module()
    rests = _rests(trained, whole, cuts, dataset.normalise(split.images[:_NUM_PROVING]))
    size = _part_size(rests)
    whole_parts = {*range(0, len(split), size), len(split)}
    finished = {key: tally for key, tally in tallies.items() if tally.seen in whole_parts}
    for start in range(0, len(split), size):
        part = Split(split.images[start : start + size], split.labels[start : start + size])
        end = start + len(part)
        left = [cut for cut in cuts if finished.get(cut.key, Tally()).seen < end]
        if not left and finished.get(BASELINE, Tally()).seen >= end:
            continue
        batches = list(evaluation_batches(part, dataset.normalise, batch_size=BATCH_SIZE))
        recorded = _record(whole, [rests[group] for group in {cut.group for cut in left}], batches)
        if finished.get(BASELINE, Tally()).seen < end:
            finished[BASELINE] = _tally(
                dataset.task, finished.get(BASELINE, Tally()), recorded, batches
            )
            yield BASELINE, finished[BASELINE]
        for cut in left:
            finished[cut.key] = _judge(
                trained, rests[cut.group], cut, finished.get(cut.key, Tally()), recorded, batches
            )
            yield cut.key, finished[cut.key]
    if config.retraining is not None:
        for cut in cuts:
            key = key_after_retraining(cut.key)
            if key not in finished:
                yield key, _retrain(trained, dataset, config.retraining, config.seed, cut, split)


def _support(trained: Trained, cut: Cut) -> Support:
    return Support({**trained.support.keep, cut.group: cut.keep}, trained.support.mask)


@dataclass(frozen=True, eq=False)
class _Rest:
    """What is computed anew for the cuts of one group.

    Attributes:
        template: the network without the prefix.
        values: the dense tensors that it has.
    """

    prefix: SharedPrefix
    template: nn.Module
    values: Tensors

    def cut(self, trained: Trained, cut: Cut) -> nn.Module:
        """Return its cut form; it shares tensors with the model and must not be trained."""
        block = _support(trained, cut).gather(trained.layout, self.values)
        return shrink(self.template, block).eval()


def _rests(trained: Trained, whole: nn.Module, cuts: Sequence[Cut], x: Tensor) -> dict[str, _Rest]:
    narrowest: dict[str, Cut] = {}
    for cut in cuts:
        if cut.group not in narrowest or len(cut.keep) < len(narrowest[cut.group].keep):
            narrowest[cut.group] = cut
    layout, rests = trained.layout, {}
    for group, cut in narrowest.items():
        small = _Rest(NOTHING, trained.template, trained.values).cut(trained, cut)
        width = width_of(trained, group)
        prefix = find_prefix(whole, small, layout, group, width, cut.places, x)
        template = drop_prefix(trained.template, prefix)
        left = template.state_dict().keys() & trained.values.keys()
        rests[group] = _Rest(prefix, template, {name: trained.values[name] for name in left})
    return rests


def _part_size(rests: Mapping[str, _Rest]) -> int:
    """Return how many images are recorded at once, in whole batches."""
    floats = {
        name: rest.prefix.stubs[name].numel()
        for rest in rests.values()
        for name in rest.prefix.read
    }
    per_batch = 4 * BATCH_SIZE * sum(floats.values())
    return max(1, _RECORDED_BYTES // max(per_batch, 1)) * BATCH_SIZE


@torch.no_grad()
def _record(
    whole: nn.Module, rests: Sequence[_Rest], batches: Sequence[Batch]
) -> list[dict[str, Tensor]]:
    names = frozenset[str]().union(*(rest.prefix.read for rest in rests))
    return [record(whole, names, x) for x, _ in batches]


def _tally(
    task: LearningTask, tally: Tally, recorded: Sequence[Recorded], batches: Sequence[Batch]
) -> Tally:
    for outputs, (_, y) in zip(recorded, batches, strict=True):
        tally = tally.plus(task, outputs[""], y)
    return tally


@torch.no_grad()
def _judge(
    trained: Trained,
    rest: _Rest,
    cut: Cut,
    tally: Tally,
    recorded: Sequence[Recorded],
    batches: Sequence[Batch],
) -> Tally:
    resumed = Resumed(rest.cut(trained, cut), rest.prefix, cut.places)
    for outputs, (x, y) in zip(recorded, batches, strict=True):
        tally = tally.plus(trained.task, resumed(outputs, x), y)
    return tally


def _retrain(
    trained: Trained, dataset: Dataset, config: FitConfig, seed: int, cut: Cut, split: Split
) -> Tally:
    support = _support(trained, cut)
    small = trained.cut(support).module()
    mask = support.block_mask(trained.layout)
    # The same batches for every cut, so that nothing but the cut makes the difference.
    for _ in train_centrally(small, dataset, config, seed=seed, purpose="sensitivity", mask=mask):
        pass
    small.eval()
    tally = Tally()
    with torch.no_grad():
        for x, y in evaluation_batches(split, dataset.normalise, batch_size=BATCH_SIZE):
            tally = tally.plus(dataset.task, small(x), y)
    return tally
