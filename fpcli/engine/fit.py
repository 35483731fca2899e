"""The training loop: one epoch of SGD, and a client's local training made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fpcli.engine.client_context import ClientContext
from fpcli.engine.types import Fitted
from fpcli.errors import DataError, DivergedError
from fpcli.settings.learning import FitConfig, LocalConfig
from fpcli.structure.support import EMPTY
from fpcli.tasks.learning_task import Batch


@contextmanager
def explain_lone_sample(batch_size: int, num_samples: int, key: str) -> Iterator[None]:
    """Say what to do when a layer of batch norm is to train on a batch of one sample.

    `batches` makes such a batch only where it must: of a single sample, or at batch size 1. Many
    layers can train on it all the same, since an image has several values per channel.

    Args:
        batch_size: samples of a batch, as the setting called ``key`` says.
        num_samples: that there are to train on.

    Raises:
        DataError: in the place of torch's ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        remedy = f"set {key} to 2 or more"
        if batch_size > 1 or num_samples == 1:
            by = " (task.partition.min_size, or fewer clients)" if key.startswith("local") else ""
            remedy = f"give it {num_samples + 1} samples or more{by}"
        raise DataError(
            f"batch norm cannot train on a batch of one sample ({key} {batch_size}, "
            f"{num_samples} training sample{'s' * (num_samples != 1)})",
            hint=f"{remedy}, or take group norm: a network called NAME-gn",
        ) from error


def make_optimizer(model: nn.Module, config: LocalConfig | FitConfig) -> torch.optim.Optimizer:
    """Return a fresh optimiser of all parameters of a model."""
    parameters, decay = model.parameters(), config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, weight_decay=decay)


class Passed(NamedTuple):
    """What one pass over some batches did; ``loss_sum`` is over samples."""

    loss_sum: float
    num_steps: int
    num_samples: int


def fit_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    mask: Mapping[str, Tensor] = EMPTY,
    clip_norm: float = 0.0,
    before_step: Callable[[], None] | None = None,
    after_backward: Callable[[nn.Module], None] | None = None,
) -> Passed:
    """Train ``model`` in place on every batch once.

    Args:
        mask: parameter -> its mask; gradients are masked, so that elements that are masked off
            (and 0 before) stay exactly 0 under momentum and weight decay too.
        clip_norm: largest norm of a step's whole gradient; 0 does not clip.
        before_step: is called ahead of every step; a schedule sets the learning rate here.
        after_backward: sees the gradients of every step before they are masked and clipped, and
            may change them.
    """
    masked = [(p, mask[name]) for name, p in model.named_parameters() if name in mask]
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    steps, samples = 0, 0
    for batch in batches:
        if before_step is not None:
            before_step()
        optimizer.zero_grad(set_to_none=True)
        value = loss(model, batch)
        value.backward()
        if after_backward is not None:
            after_backward(model)
        for parameter, alive in masked:
            if parameter.grad is not None:
                parameter.grad.mul_(alive)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        total += value.detach() * len(batch[1])
        steps += 1
        samples += len(batch[1])
    return Passed(total.item(), steps, samples)


def fit(
    model: nn.Module,
    cx: ClientContext,
    loss: Callable[[ClientContext, nn.Module, Batch], Tensor],
    *,
    samples: Tensor | None = None,
    epochs: Sequence[int] | None = None,
    mask: Mapping[str, Tensor] | None = None,
    after_backward: Callable[[nn.Module], None] | None = None,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> Fitted:
    """Train ``model`` in place for ``cx.local.epochs`` epochs, or for the steps of the task
    where these are fewer; the optimiser starts fresh.

    Args:
        samples: train on these of the client's samples only.
        epochs: only these of the ``cx.local.epochs``, counted from 0; they say which batches come.
        mask: see :func:`fit_epoch`; by default ``cx.mask``.
        after_backward: see :func:`fit_epoch`.
        after_epoch: is called with the number of each epoch, counted from 1, when it ends.

    Raises:
        DivergedError: the loss of an epoch is not finite.
    """
    local, max_steps = cx.local, cx.task.max_steps
    optimizer = make_optimizer(model, local)
    model.train()
    total, steps, processed = 0.0, 0, 0
    for epoch in range(local.epochs) if epochs is None else epochs:
        left = max_steps - steps if max_steps else None
        passed = fit_epoch(
            model,
            optimizer,
            islice(cx.batches(epoch, samples=samples), left),
            partial(loss, cx),
            mask=cx.mask if mask is None else mask,
            clip_norm=local.clip_norm,
            after_backward=after_backward,
        )
        total += passed.loss_sum
        steps += passed.num_steps
        processed += passed.num_samples
        if not math.isfinite(passed.loss_sum):
            raise DivergedError(
                f"the training loss is not finite after epoch {epoch + 1}",
                hint=f"lower local.lr (now {local.lr:g})",
            )
        if after_epoch is not None:
            after_epoch(epoch + 1, model)
        if steps == max_steps:
            break
    return Fitted(total / max(processed, 1), steps, processed)
