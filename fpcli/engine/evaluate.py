"""How well a model does what its data set is for, on held-out data."""

from __future__ import annotations

from torch import Tensor, nn

from fpcli.data.batches import evaluation_batches
from fpcli.data.datasets import Dataset
from fpcli.data.split import Split
from fpcli.tasks.learning_task import Score


def evaluate(
    model: nn.Module,
    split: Split,
    dataset: Dataset,
    *,
    own_classes: Tensor | None = None,
    channels_last: bool = True,
) -> Score:
    """Judge a model in eval mode on a split of a data set.

    Batches have a fixed size and order, so that equal models get equal scores.

    Args:
        own_classes: of a client, see `LearningTask.score`.
    """
    device = next(model.parameters()).device
    batches = evaluation_batches(
        split, dataset.normalise, device=device, channels_last=channels_last
    )
    return dataset.task.score(model, batches, own_classes)
