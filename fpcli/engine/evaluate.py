"""Accuracy and loss of a model on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.data.batches import evaluation_batches
from fpcli.data.split import Split


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


@torch.no_grad()
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
    device = next(model.parameters()).device
    model.eval()
    correct, total, loss = 0, 0, 0.0
    for x, y in evaluation_batches(split, normalise, device=device, channels_last=channels_last):
        logits = model(x)
        correct += int((logits.argmax(1) == y).sum())
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        total += len(y)
    return Score(correct / max(total, 1), loss / max(total, 1), total)
