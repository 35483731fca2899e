"""What a client can measure on batches without an epoch of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.errors import DivergedError
from fpcli.tasks.classify import judge_top1
from fpcli.tasks.learning_task import Batch, LearningTask, Score


def measure_gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradient of every parameter, those that a mask keeps at 0 included.

    Raises:
        DivergedError: the loss is not finite.
    """
    if not bool(torch.isfinite(loss)):
        raise DivergedError("a loss is not finite", hint="lower local.lr")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return {name: grad for name, grad in zip(names, gradients, strict=True) if grad is not None}


def judge_batches(model: nn.Module, batches: Sequence[Batch], task: LearningTask) -> Score:
    """Return how well a model does on some batches; its mode stays as it was."""
    was_training = model.training
    score = task.score(model, batches)
    model.train(was_training)
    return score


@torch.no_grad()
def count_right(model: nn.Module, batches: Iterable[Batch], num_classes: int) -> Tensor:
    """Return how many samples of each class the model, put in evaluation mode, predicts right, and
    how many there are: int64 ``[2, classes]``."""
    model.eval()
    counts = torch.zeros(2, num_classes, dtype=torch.int64)
    for x, y in batches:
        hits = y[judge_top1(model(x), y)]
        counts += torch.stack([z.cpu().bincount(minlength=num_classes) for z in (hits, y)])
    return counts


def compute_one_hot_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean binary cross-entropy of all outputs against one-hot targets."""
    outputs = model(batch[0])
    targets = F.one_hot(batch[1], outputs.shape[1]).to(outputs.dtype)
    return F.binary_cross_entropy_with_logits(outputs, targets)


def can_be_counts(counts: Tensor, most: int) -> bool:
    """Tell whether these can be a client's samples by class, or whether it has some."""
    if counts.dtype not in (torch.int32, torch.int64, torch.bool) or not counts.numel():
        return False
    # Each by itself first, since a sum of huge ones may come out small.
    whole = counts.long()
    return bool(((whole >= 0) & (whole <= most)).all()) and int(whole.sum()) <= most
