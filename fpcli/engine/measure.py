"""What a client can measure on batches without an epoch of training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.engine.fit import Batch
from fpcli.errors import DivergedError


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradient of every parameter, those that a mask keeps at 0 included.

    Raises:
        DivergedError: the loss is not finite.
    """
    if not bool(torch.isfinite(loss)):
        raise DivergedError("a loss is not finite", hint="lower local.lr")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return {name: grad for name, grad in zip(names, found, strict=True) if grad is not None}


@torch.no_grad()
def accuracy(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Return the share of samples that the model classifies rightly; its mode stays as it was."""
    was_training = model.training
    model.eval()
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    model.train(was_training)
    return hits / sum(len(y) for _, y in batches)


def one_hot_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean binary cross-entropy of all outputs against one-hot targets."""
    outputs = model(batch[0])
    targets = F.one_hot(batch[1], outputs.shape[1]).to(outputs.dtype)
    return F.binary_cross_entropy_with_logits(outputs, targets)
