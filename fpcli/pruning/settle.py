"""Prune one model on a few batches of its own until its size settles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fpcli.engine.client_context import ClientContext
from fpcli.engine.measure import judge_batches, measure_gradients
from fpcli.fleet.linear import StepRates
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.pairs import choose_entries
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Batch, LearningTask

MEASURE_EVERY, START_ACCURACY = 10, 1.5  # passes; times the accuracy of guessing
TOLERANCE, NUM_STABLE = 0.1, 5  # so many small changes of size in a row end it


def settle_masks(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    lr: float,
    task: LearningTask,
    layout: Layout,
    passes: int,
    interval: int,
    weight_s: Mapping[str, float],
    constant_s: float,
    share: float,
    max_density: float = 1.0,
    may_regrow: bool = False,
    fresh: Tensors | None = None,
) -> tuple[dict[str, Tensor], list[Tensors]]:
    """Train in place on the same batches by plain SGD, and change the masks now and then.

    From the first pass (of 1, 11, 21, ...) that is clearly better than guessing, every ``interval``
    passes are a reconfiguration, until five changes of size in a row were small. Dead weights are 0
    in the model; without ``may_regrow`` their gradients count as 0, so that none returns.

    Args:
        task: what is learned, which says what is better than guessing.
        passes: at most so many over all batches.
        layout, weight_s, constant_s, share, max_density: as in ``structure.pairs.choose_entries``.
        fresh: values of weights that return; None means 0.

    Returns:
        The masks, and those under which each pass was trained.

    Source: PruneFL (Jiang et al., TNNLS 2023), initial pruning of its official code.
    """
    weights = dict(model.named_parameters())
    masks = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in weight_s}
    totals = {name: torch.zeros_like(weight.detach()) for name, weight in weights.items()}
    start, sizes, trained = 0, [], list[Tensors]()
    is_learning = _make_check(model, batches, task)
    for number in range(1, passes + 1):
        trained.append(masks)
        for batch in batches:
            for name, gradient in measure_gradients(model, loss(model, batch)).items():
                step = gradient * masks[name] if name in masks else gradient
                totals[name] += (gradient if may_regrow else step).square()
                weights[name].data -= lr * step
        if not start and number % MEASURE_EVERY == 1:
            start = number if is_learning() else 0
        if not start or (number - start) % interval:
            continue
        rule = {"share": share, "max_density": max_density}
        new = choose_entries(layout, weights, masks, totals, weight_s, constant_s, **rule)
        _mask_weights(weights, masks, new, fresh)
        masks, totals = new, {name: torch.zeros_like(total) for name, total in totals.items()}
        sizes.append(sum(int(mask.sum()) for mask in masks.values()))
        changes = [abs(new / old - 1) for old, new in pairwise(sizes)]
        if len(changes) >= NUM_STABLE and max(changes[-NUM_STABLE:]) <= TOLERANCE:
            break
    return {name: mask.cpu() for name, mask in masks.items()}, trained


def _mask_weights(
    weights: Mapping[str, nn.Parameter], old: Tensors, new: Tensors, fresh: Tensors | None
) -> None:
    for name, mask in new.items():
        returning = 0.0 if fresh is None else fresh[name].to(mask.device)
        values = torch.where(old[name], weights[name].data, returning)
        weights[name].data = torch.where(mask, values, 0.0)


def _make_check(
    model: nn.Module, batches: Sequence[Batch], task: LearningTask
) -> Callable[[], bool]:
    """Return what tells, whenever it is called, whether a model is clearly better than guessing.

    What guessing gives is known for classes only; elsewhere the loss must be below that of the
    model as it is now (ours).
    """
    if task.kind == "classify":
        wanted = START_ACCURACY / task.num_outputs
        return lambda: judge_batches(model, batches, task).metrics["accuracy"] >= wanted
    untrained = judge_batches(model, batches, task).loss
    return lambda: judge_batches(model, batches, task).loss < untrained


def time_epochs(
    cx: ClientContext,
    rates: StepRates | None,
    batches: Sequence[Batch],
    trained: Sequence[Tensors],
    masks: Tensors,
) -> dict[str, float]:
    """Return what it takes to train a client's model once on every batch under each of some masks.

    Args:
        rates: seconds of a step, for the clock; without them multiply-adds count on the client's
            device, and its link is left to the engine.
        trained: of every pass; no masks mean the whole model.
        masks: those that are sent when the whole model has been received.
    """
    passes = [Support(mask=each) for each in trained]
    if rates is None:
        num = sum(len(labels) for _, labels in batches)
        return {"compute_s": math.fsum(cx.train_seconds(num, each) for each in passes)}
    layout = cx.site.layout
    pass_s = [rates.seconds(len(batches), each.count(layout))[0] for each in passes]
    down_s = rates.seconds(0, Support().count(layout))[1]
    up_s = rates.seconds(0, Support(mask=masks).count(layout))[2]
    return {"compute_s": math.fsum(pass_s), "down_s": down_s, "up_s": up_s}
