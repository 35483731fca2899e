"""The local training loop of a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.errors import DivergedError

if TYPE_CHECKING:
    from fpcli.engine.client import ClientContext

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Fitted:
    """What one call of `fit` did.

    Attributes:
        loss: mean training loss over all samples processed.
        num_steps: optimiser steps.
        num_samples: samples processed (a sample counts once per epoch).
    """

    loss: float
    num_steps: int
    num_samples: int


@dataclass(frozen=True)
class Result:
    """What a client sends back after training; made by ``cx.result``.

    Attributes:
        delta: trained minus received tensors, block coordinates.
        mask: the client's own mask per tensor, or None where it is the one received.
        stats: further tensors for the server's half of the method.
    """

    delta: Mapping[str, Tensor]
    fitted: Fitted
    mask: Mapping[str, Tensor] | None = None
    stats: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """An answer to a probe that took training steps, which the clock then counts."""

    tensors: Mapping[str, Tensor]
    num_steps: int


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean softmax cross-entropy of one batch."""
    x, y = batch
    return F.cross_entropy(model(x), y)


def fit(
    model: nn.Module,
    cx: ClientContext,
    loss: Callable[[ClientContext, nn.Module, Batch], Tensor],
    *,
    after_backward: Callable[[nn.Module], None] | None = None,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Fitted:
    """Train ``model`` in place by SGD for ``cx.local.epochs`` epochs, or for ``cx.max_steps`` steps
    where these are fewer; the optimiser starts fresh.

    Gradients are masked by ``cx.mask``, so that elements that are masked off (and 0 on arrival)
    stay exactly 0 under momentum and weight decay too.

    Args:
        after_backward: sees the gradients of every step before they are masked and clipped, and
            may change them.
        after_epoch: is called with the number of each epoch, counted from 1, when it ends.

    Raises:
        DivergedError: the loss of an epoch is not finite.
    """
    local = cx.local
    optimizer = torch.optim.SGD(
        model.parameters(), lr=local.lr, momentum=local.momentum, weight_decay=local.weight_decay
    )
    masked = [(p, cx.mask[name]) for name, p in model.named_parameters() if name in cx.mask]
    model.train()
    total, steps, samples = 0.0, 0, 0
    for epoch in range(local.epochs):
        epoch_loss = torch.zeros((), dtype=torch.float64, device=cx.torch_device)
        left = cx.max_steps - steps if cx.max_steps else None
        for batch in islice(cx.batches(epoch), left):
            optimizer.zero_grad(set_to_none=True)
            value = loss(cx, model, batch)
            value.backward()
            if after_backward is not None:
                after_backward(model)
            for parameter, mask in masked:
                if parameter.grad is not None:
                    parameter.grad.mul_(mask)
            if local.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), local.clip_norm)
            optimizer.step()
            epoch_loss += value.detach() * len(batch[1])
            steps += 1
            samples += len(batch[1])
        total += epoch_loss.item()
        if not torch.isfinite(epoch_loss):
            raise DivergedError(
                f"the training loss is not finite after epoch {epoch + 1}",
                hint=f"lower local.lr (now {local.lr:g})",
            )
        if after_epoch is not None:
            after_epoch(epoch + 1, model)
        if steps == cx.max_steps:
            break
    return Fitted(total / max(samples, 1), steps, samples)
