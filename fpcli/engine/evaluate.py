"""Accuracy and loss of a model on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.data.batches import evaluation_batches
from fpcli.data.split import Split


def judge_top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for which samples the largest of ``[samples, classes]`` logits is that of the label:
    bool ``[samples]``; of equal logits the first counts."""
    return logits.argmax(1) == labels


@dataclass(frozen=True)
class Score:
    """How well a model predicts.

    Attributes:
        accuracy: share of correct predictions, in [0, 1].
        loss: mean cross-entropy.
    """

    accuracy: float
    loss: float
    num_examples: int


@dataclass(frozen=True)
class ClientScore(Score):
    """How well a client's model predicts on test samples of the client's own classes.

    Attributes:
        local_accuracy: share of correct predictions where the logits of all other classes are 0.
    """

    local_accuracy: float


def evaluate(
    model: nn.Module,
    split: Split,
    normalise: Callable[[Tensor], Tensor],
    *,
    channels_last: bool = True,
) -> Score:
    """Judge a model in eval mode on a split.

    Batches have a fixed size and order, so that equal models get equal scores.
    """
    return _judge(model, split, normalise, channels_last, None)[0]


def evaluate_on_own(
    model: nn.Module,
    split: Split,
    normalise: Callable[[Tensor], Tensor],
    own_classes: Tensor,
    *,
    channels_last: bool = True,
) -> ClientScore:
    """Judge a client's model in eval mode, with and without the logits of other classes.

    Args:
        split: test samples of the client's classes.
        own_classes: the client's classes, bool ``[classes]``.
    """
    score, local_accuracy = _judge(model, split, normalise, channels_last, own_classes)
    return ClientScore(**asdict(score), local_accuracy=local_accuracy)


def mask_foreign_logits(logits: Tensor, own_classes: Tensor) -> Tensor:
    """Return ``[samples, classes]`` logits with those of classes outside ``own_classes`` set to 0.

    Not to minus infinity: where all own logits are negative, the first class that is not owned has
    the largest one, and the prediction is wrong. Of equal logits the first counts.

    Source: HeteroFL (ICLR 2021), in training and for its "local" accuracy.

    >>> own = torch.tensor([False, True, True])
    >>> masked = mask_foreign_logits(torch.tensor([[9.0, 2.0, 1.0], [9.0, -2.0, -1.0]]), own)
    >>> masked.tolist(), masked.argmax(1).tolist()
    ([[0.0, 2.0, 1.0], [0.0, -2.0, -1.0]], [1, 0])
    """
    return torch.where(own_classes, logits, 0.0)


@torch.no_grad()
def _judge(
    model: nn.Module,
    split: Split,
    normalise: Callable[[Tensor], Tensor],
    channels_last: bool,
    own_classes: Tensor | None,
) -> tuple[Score, float]:
    """Return a model's score, and its accuracy by the logits of ``own_classes`` classes alone."""
    device = next(model.parameters()).device
    own_classes = None if own_classes is None else own_classes.to(device)
    model.eval()
    correct, local, total, loss = 0, 0, 0, 0.0
    for x, y in evaluation_batches(split, normalise, device=device, channels_last=channels_last):
        logits = model(x)
        correct += int(judge_top1(logits, y).sum())
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        total += len(y)
        if own_classes is not None:
            local += int(judge_top1(mask_foreign_logits(logits, own_classes), y).sum())
    num = max(total, 1)
    return Score(correct / num, loss / num, total), local / num
