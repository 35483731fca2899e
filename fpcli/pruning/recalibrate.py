"""Recalibrate: the statistics of batch norm, measured again after a cut, without any training.

What a channel's neighbours no longer send changes the mean and the variance of what batch norm
gets, while its running statistics are still those of the whole network.

Source: the adaptive batch normalisation of EagleEye (Li et al., ECCV 2020).
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fpcli.data.batches import batches
from fpcli.engine.fit import explain_lone_sample
from fpcli.engine.trained import Trained
from fpcli.pruning.pruner import PruneContext
from fpcli.structure.norms import merge_statistics, observe_norms

USUAL_BATCHES = 20
"""Batches that are enough, where nothing else trains the statistics."""


def has_running_norms(model: nn.Module) -> bool:
    """Tell whether a network has batch norm that judges by running statistics."""
    return any(isinstance(x, _BatchNorm) and x.running_mean is not None for x in model.modules())


def recalibrate_norms(px: PruneContext, trained: Trained, *, purpose: str) -> Trained:
    """Return the model with statistics of its own, over ``px.recalibrate`` training batches.

    Mean and variance of a layer are over all values of these batches, while every layer before it
    uses the statistics of the batch. No gradient is taken and no weight changes.

    Args:
        purpose: names the random stream that draws the samples.

    Raises:
        DataError: batch norm meets a batch of one sample.
    """
    train, size = px.dataset.train, px.retraining.batch_size
    drawn = batches(
        train,
        torch.arange(len(train)),
        px.dataset.normalise,
        batch_size=size,
        generator=px.rng(purpose),
        device=px.device,
    )
    with explain_lone_sample(size, len(train), "batch_size"):
        model = trained.module().to(px.device)
        observed = observe_norms(model, islice(drawn, px.recalibrate), is_pooled=True)
    small = trained.module()
    small.load_state_dict(merge_statistics([observed], is_pooled=True), strict=False)
    return trained.updated(small)
