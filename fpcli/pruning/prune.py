"""Prune: judge, cut, retrain, step by step, whatever the method; no file or screen is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import nn

from fpcli.data.batches import evaluation_batches
from fpcli.engine.central import train_centrally
from fpcli.engine.evaluate import evaluate
from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, LayoutError, UsageError
from fpcli.pruning.amounts import explain_miss, list_alive, measure_size
from fpcli.pruning.pruner import PruneContext, Pruner, PruneTarget
from fpcli.pruning.recalibrate import recalibrate_norms
from fpcli.settings.learning import FitConfig
from fpcli.structure.cost import Cost, count_cost
from fpcli.structure.shrink import shrink
from fpcli.tasks.learning_task import Score

TOLERANCE = 1e-5
"""By how much the outputs of the small and of the masked network may differ, relative to the
largest output where that is above 1."""

_NUM_COMPARED = 64


@dataclass(frozen=True)
class PruneStage:
    """A model at one moment: before, just cut, or retrained; scores are None without data."""

    cost: Cost
    validation: Score | None
    test: Score | None


@dataclass(frozen=True, eq=False)
class Pruned:
    """What pruning came to.

    Attributes:
        trained: the final model.
        pruned: after the last cut, ahead of all that follows it.
        recalibrated: then, with new statistics of batch norm, ahead of its retraining; None where
            these were left as they were.
        widths: group -> channels before and after, for every group that may lose some.
        difference: of the outputs of the small and the masked network; see ``TOLERANCE``.
    """

    trained: Trained
    before: PruneStage
    pruned: PruneStage
    after: PruneStage
    recalibrated: PruneStage | None
    widths: dict[str, tuple[int, int]]
    difference: float


def prune_in_steps(
    pruner: Pruner, px: PruneContext, trained: Trained, target: PruneTarget, num_steps: int = 1
) -> Pruned:
    """Cut a model to a target in steps, and retrain it after each.

    Args:
        px: its ``recalibrate`` and ``retraining`` are done after every step; ``log`` gets the
            events ``before``, ``cut`` and ``recalibrated`` (one per step), ``epoch`` and ``after``,
            beside those of the method.

    Raises:
        CheckError: the target is missed, or nothing was removed.
        DivergedError: the retraining diverged.
        FpError: the method, its options and the model do not fit together.
    """
    px = _start_at(px, trained)
    steps = pruner.steps(px, trained, target, num_steps)
    before = pruned = judge_cut(px, trained)
    metric = px.dataset.task.primary_name
    px.log(event="before", num_steps=len(steps), metric=metric, **_to_json(before))
    start, difference, recalibrated = trained, 0.0, None
    for number, (step_target, share) in enumerate(steps, start=1):
        log = partial(px.log, step=number)
        trained = pruner.cut(replace(step_target, log=log), trained, share)
        pruned, difference = (
            judge_cut(px, trained),
            max(difference, measure_masked_difference(px, trained)),
        )
        log(event="cut", **_to_json(pruned), widths=_widths(start, trained))
        _check(step_target, start, trained, share, is_last=number == len(steps))
        if px.recalibrate:
            trained = recalibrate_norms(px, trained, purpose=f"recalibrate/{number}")
            recalibrated = judge_cut(px, trained)
            log(event="recalibrated", **_to_json(recalibrated))
        trained = retrain(replace(px, log=log), trained, purpose=f"prune/retrain/{number}")
    after = judge_cut(px, trained) if px.retraining.epochs else recalibrated or pruned
    px.log(event="after", **_to_json(after))
    widths = _widths(start, trained)
    return Pruned(trained, before, pruned, after, recalibrated, widths, difference)


def plan_cut(pruner: Pruner, px: PruneContext, trained: Trained, target: PruneTarget) -> Pruned:
    """Cut a model in one go and judge nothing, so that no data is needed unless the method asks.

    Raises:
        UsageError: the method trains while it cuts.
        FpError: as in :func:`prune_in_steps`.
    """
    if pruner.trains(px.options):
        raise UsageError(
            "this method chooses while it trains, so that nothing can be shown ahead",
            hint="try it with few epochs, without --dry-run",
            where="--dry-run",
        )
    px = _start_at(px, trained)
    step_target, share = pruner.steps(px, trained, target, 1)[-1]
    smaller = pruner.cut(step_target, trained, share)
    _check(step_target, trained, smaller, share, is_last=True)
    before, after = (
        PruneStage(count_cost(model.layout, model.support), None, None)
        for model in (trained, smaller)
    )
    return Pruned(smaller, before, after, after, None, _widths(trained, smaller), 0.0)


def _start_at(px: PruneContext, trained: Trained) -> PruneContext:
    if not trained.layout.prunable:
        raise LayoutError(
            f"`{trained.model}` has no channels that may leave",
            hint="its layers meet operations that tie all channels together; use another model",
        )
    return replace(px, start=trained.support)


def judge_cut(px: PruneContext, trained: Trained) -> PruneStage:
    """Return cost of a model, and how well it does."""
    small = trained.module().to(px.device)
    validation, test = (
        evaluate(small, split, px.dataset) for split in (px.dataset.validation, px.dataset.test)
    )
    return PruneStage(count_cost(trained.layout, trained.support), validation, test)


def retrain(
    px: PruneContext,
    trained: Trained,
    *,
    purpose: str,
    config: FitConfig | None = None,
    event: str = "epoch",
    after_backward: Callable[[nn.Module], None] | None = None,
) -> Trained:
    """Return the model after training of what is alive, and log every epoch.

    Args:
        purpose: names the random streams.
        config: in place of ``px.retraining``.
        event: what an epoch is called in the history.
        after_backward: see ``engine.central.train``.

    Raises:
        DivergedError: the loss of an epoch is not finite.
    """
    small = trained.module().to(px.device)
    mask = {
        name: bits.to(px.device)
        for name, bits in trained.support.block_mask(trained.layout).items()
    }
    for epoch in train_centrally(
        small,
        px.dataset,
        config or px.retraining,
        seed=px.seed,
        purpose=purpose,
        mask=mask,
        after_backward=after_backward,
        augment=px.augment,
    ):
        px.log(
            event=event,
            epoch=epoch.number,
            loss=epoch.loss,
            lr=epoch.lr,
            validation=evaluate(small, px.dataset.validation, px.dataset).to_event(),
            real_s=epoch.real_s,
        )
    return trained.updated(small)


@torch.no_grad()
def measure_masked_difference(px: PruneContext, trained: Trained) -> float:
    """Return how far the small network is from the dense one with zeros, on validation images.

    Returns:
        The largest difference of an output, divided by the largest output where that is above 1.
    """
    dense = shrink(trained.template, {name: x.clone() for name, x in trained.values.items()})
    images, _ = next(evaluation_batches(px.dataset.validation, px.dataset.normalise))
    x = images[:_NUM_COMPARED]
    wanted, got = dense.eval()(x), trained.module()(x)
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1))


def _check(
    px: PruneContext, start: Trained, trained: Trained, target: PruneTarget, *, is_last: bool
) -> None:
    layout, support = trained.layout, trained.support
    if target.measure != "ratio":
        limit = measure_size(layout, px.start, target.measure) * (1 - target.removed)
        if measure_size(layout, support, target.measure) > limit:
            raise explain_miss(px, layout, target, support)
    if is_last and count_cost(layout, support) == count_cost(layout, start.support):
        raise CheckError(
            "nothing was removed",
            hint="ask for more, round less, or ignore fewer groups",
            where="--ratio",
        )


def _widths(start: Trained, trained: Trained) -> dict[str, tuple[int, int]]:
    return {
        name: (
            len(list_alive(start.layout, start.support, name)),
            len(list_alive(trained.layout, trained.support, name)),
        )
        for name in start.layout.prunable
    }


def _to_json(stage: PruneStage) -> dict[str, object]:
    return {
        **asdict(stage.cost),
        "validation": stage.validation and stage.validation.to_event(),
        "test": stage.test and stage.test.to_event(),
    }
