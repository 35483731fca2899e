"""Classification: one of several classes is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.settings.metrics import LOCAL
from fpcli.tasks.learning_task import Batch, LearningTask, Score


def judge_top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for which samples the largest of ``[samples, classes]`` logits is that of the label:
    bool ``[samples]``; of equal logits the first counts."""
    return logits.argmax(1) == labels


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean softmax cross-entropy of one batch."""
    x, y = batch
    return F.cross_entropy(model(x), y)


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


@dataclass(frozen=True)
class Classify(LearningTask):
    """Labels are 0..num_outputs-1, and a network returns a logit for each.

    The loss is the softmax cross-entropy; ``accuracy`` is the share of samples whose label has the
    largest logit.
    """

    kind: ClassVar[str] = "classify"
    primary_name: ClassVar[str] = "accuracy"
    answers: ClassVar[str] = "classes"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracy alone."""
        return (self.primary_name,)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean softmax cross-entropy of one batch."""
        return cross_entropy(model, batch)

    def judge_each(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 for samples that are predicted right and 0 for others, and cross-entropies."""
        losses = F.cross_entropy(outputs, targets, reduction="none")
        return judge_top1(outputs, targets).double(), losses.double()

    @torch.no_grad()
    def score(
        self, model: nn.Module, batches: Iterable[Batch], own_classes: Tensor | None = None
    ) -> Score:
        """Return accuracy and loss, and accuracy by the logits of ``own_classes`` alone."""
        model.eval()
        correct, local, total, loss = 0, 0, 0, 0.0
        for x, y in batches:
            logits = model(x)
            correct += int(judge_top1(logits, y).sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            total += len(y)
            if own_classes is not None:
                own_logits = mask_foreign_logits(logits, own_classes.to(logits.device))
                local += int(judge_top1(own_logits, y).sum())
        num = max(total, 1)
        metrics = {self.primary_name: correct / num}
        if own_classes is not None:
            metrics[LOCAL + self.primary_name] = local / num
        return Score(loss / num, metrics, total)

    def describe(self) -> str:
        """Return the number of classes."""
        return f"{self.num_outputs} classes"
