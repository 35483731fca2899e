"""A sweep against the plain way, as ratios from one run.

Run by ``pytest tests/bench -m bench -n 0 --benchmark-enable -s``.

The plain way is one forward pass of the whole network, with zeros where channels are gone, for
every point: by ``evaluate``, and by a loop over the batches that the sweep has found to be fastest.
Weights are random: they cost what trained ones cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from fpcli.data.batches import evaluation_batches
from fpcli.data.datasets import Dataset, Split
from fpcli.engine.evaluate import evaluate
from fpcli.engine.process import settle_process
from fpcli.engine.trained import Trained
from fpcli.models.build import build
from fpcli.pruning.sweep import (
    BATCH_SIZE,
    Cut,
    SweepConfig,
    Tally,
    choose_images,
    judge_cuts,
    list_cuts,
)
from fpcli.structure.reuse import Resumed, drop_prefix, find_prefix, record
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify
from fpcli.tasks.learning_task import LearningTask

pytestmark = pytest.mark.bench
settle_process()

SHAPE = (3, 32, 32)
CLOSE = 1e-4
"""Of the largest logit: nearer than that, last digits may decide which of two is larger."""


@dataclass
class Task:
    """A network with random weights and statistics, random images, and every cut of the grid."""

    trained: Trained
    dataset: Dataset
    config: SweepConfig
    cuts: list[Cut]


def task(name: str, images: int) -> Task:
    generator = torch.Generator().manual_seed(0)
    model = build(name, SHAPE, Classify(10), seed=0).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
    layout = trace(model, torch.zeros(1, *SHAPE))
    values = {key: model.state_dict()[key].clone() for key in layout.tensors}
    drawn = torch.randint(0, 256, (images, *SHAPE), dtype=torch.uint8, generator=generator)
    split = Split(drawn, torch.arange(images) % 10)
    names = tuple(map(str, range(10)))
    dataset = Dataset("random", split, split, split, 10, 1 / 255, (0.5,) * 3, (0.25,) * 3, names)
    trained = Trained(name, model, layout, Support(), values, SHAPE, 10)
    config = SweepConfig(("l1",), tuple(number / 10 for number in range(1, 10)), images)
    return Task(trained, dataset, config, list_cuts(trained, dataset, config))


def seconds(run: Callable[[], object]) -> float:
    """Return processor seconds: others may work on this machine."""
    started = time.process_time()
    run()
    return time.process_time() - started


@torch.no_grad()
def judge(model: nn.Module, batches: list[tuple[Tensor, Tensor]], task: LearningTask) -> Tally:
    tally = Tally()
    for x, y in batches:
        tally = tally.plus(task, model(x), y)
    return tally


@torch.no_grad()
def num_close(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> int:
    """Return how many images last digits decide, which another order of sums may change."""
    logits = torch.cat([model(x) for x, _ in batches])
    first, second = logits.topk(2).values.T
    return int((first - second < CLOSE * logits.abs().amax(1)).sum())


def masked(work: Task, cut: Cut) -> nn.Module:
    """Return the whole network with zeros where channels are gone, batch norm included."""
    values = work.trained.cut(Support({cut.group: cut.keep})).values
    return shrink(work.trained.template, {k: v.clone() for k, v in values.items()}).eval()


def sliced_network(work: Task, cut: Cut) -> nn.Module:
    return work.trained.cut(Support({cut.group: cut.keep})).module()


@torch.no_grad()
def cached_at_full_width(work: Task, cut: Cut, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the seconds of a point that goes on from recorded outputs, but is not sliced."""
    trained = work.trained
    width = trained.layout.groups[cut.group].width
    whole, small = trained.module(), sliced_network(work, cut)
    x = batches[0][0][:4]
    prefix = find_prefix(whole, small, trained.layout, cut.group, width, cut.keep, x)
    resumed = Resumed(drop_prefix(masked(work, cut), prefix), prefix, torch.arange(width))
    recorded = [record(whole, prefix.read, x) for x, _ in batches]
    return seconds(lambda: [resumed(r, x) for r, (x, _) in zip(recorded, batches, strict=True)])


@pytest.mark.parametrize(
    ("name", "images", "every", "least"),
    [("vgg16@0.25", 1024, 6, 3.0), ("resnet20", 512, 6, 2.0), ("vgg16", 512, 9, 3.0)],
)
def test_sweep_against_the_plain_way(name: str, images: int, every: int, least: float) -> None:
    """All points by the sweep, every so-maniest one by the other ways."""
    work = task(name, images)
    split = choose_images(work.dataset, work.config)
    batches = list(evaluation_batches(split, work.dataset.normalise, batch_size=BATCH_SIZE))
    some = work.cuts[every // 2 :: every]
    judge(work.trained.module(), batches, work.dataset.task)
    tallies: dict[str, Tally] = {}
    ours = seconds(
        lambda: tallies.update(judge_cuts(work.trained, work.dataset, work.config, work.cuts, {}))
    ) / len(work.cuts)
    usual, plain, sliced, cached, differ = 0.0, 0.0, 0.0, 0.0, 0
    for cut in some:
        whole, small, found = masked(work, cut), sliced_network(work, cut), []
        learned = work.dataset.task
        usual += seconds(lambda: evaluate(whole, split, work.dataset)) / len(some)  # noqa: B023
        plain += seconds(lambda: found.append(judge(whole, batches, learned))) / len(some)  # noqa: B023
        sliced += seconds(lambda: judge(small, batches, learned)) / len(some)  # noqa: B023
        cached += cached_at_full_width(work, cut, batches) / len(some)
        if off := abs(found[0].metric_sum - tallies[cut.key].metric_sum):
            differ += off > num_close(whole, batches)
    print(
        f"\n{name}: {len(work.cuts)} points, {images} images; times faster than evaluate "
        f"({1000 * usual:.0f} ms a point): {usual / ours:.2f}; than the loop ({1000 * plain:.0f} "
        f"ms): {plain / ours:.2f}, by going on alone {plain / cached:.2f}, by slicing alone "
        f"{plain / sliced:.2f}; {differ} of {len(some)} points differ"
    )
    assert differ == 0
    assert usual / ours >= least
