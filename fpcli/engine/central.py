"""Plain training of one model where the data is: what pruning starts from and retrains with."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fpcli.data.augment import make_augmenter
from fpcli.data.batches import batches, find_batch_ends
from fpcli.data.datasets import Dataset
from fpcli.data.split import Split
from fpcli.engine.fit import Passed, explain_lone_sample, fit_epoch, make_optimizer
from fpcli.engine.types import is_finite
from fpcli.errors import DivergedError
from fpcli.rng import seed_torch, stream
from fpcli.settings.learning import FitConfig
from fpcli.settings.tasks import Augment
from fpcli.structure.layout import Tensors
from fpcli.structure.support import EMPTY
from fpcli.tasks.learning_task import Batch

_BUFFER = "momentum_buffer"


@dataclass(frozen=True)
class Momentum:
    """What the optimiser carries from one epoch to the next: parameter -> momentum buffer of SGD,
    ``parameter/slot`` -> what Adam has."""

    buffers: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    Attributes:
        number: counted from 1.
        loss: mean training loss over its samples.
        lr: learning rate of its last step.
        real_s: measured seconds.
        momentum: a copy, so that it stays that of this epoch.
    """

    number: int
    loss: float
    lr: float
    num_steps: int
    num_samples: int
    real_s: float
    momentum: Momentum


def lr_at(config: FitConfig, step: int, num_steps: int) -> float:
    """Return the learning rate of one step of ``num_steps``, counted from 0.

    >>> config = FitConfig(lr=1.0)
    >>> [round(lr_at(config, step, 4), 4) for step in range(4)]
    [1.0, 0.8536, 0.5, 0.1464]
    >>> [lr_at(FitConfig(lr=1.0, schedule="steps"), step, 4) for step in range(4)]
    [1.0, 1.0, 0.1, 0.01]
    """
    share = step / num_steps
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * share))
    if config.schedule == "steps":
        return config.lr / 10 ** sum(at <= share for at in config.drop_at)
    return config.lr


def train_centrally(
    model: nn.Module,
    dataset: Dataset,
    config: FitConfig,
    *,
    seed: int,
    purpose: str = "fit",
    split: Split | None = None,
    done: int = 0,
    momentum: Momentum | None = None,
    mask: Mapping[str, Tensor] = EMPTY,
    loss: Callable[[nn.Module, Batch], Tensor] | None = None,
    before_step: Callable[[int], None] | None = None,
    after_backward: Callable[[nn.Module], None] | None = None,
    augment: Augment = "none",
    is_channels_last: bool = True,
) -> Iterator[Epoch]:
    """Train ``model`` in place and yield after every epoch.

    Training in parts, by ``done`` epochs and their momentum, ends in the same bits as in one piece.

    Args:
        model: on the device that computes.
        dataset: brings normalisation and, unless ``split`` says otherwise, the training samples.
        purpose: names the random streams; two trainings of one seed differ by it.
        done, momentum: epochs that lie behind, and what the optimiser carries over from them.
        loss: of a batch; None is that of the data's task.
        mask, after_backward: see ``fit_epoch``; augment: see ``data.augment``.
        before_step: is called with the number of every step, counted from 0 over all epochs.

    Raises:
        DivergedError: the loss of an epoch, or the model after it, is not finite.
        DataError: batch norm meets a batch of one sample.
    """
    split = dataset.train if split is None else split
    device = next(model.parameters()).device
    optimizer = _build_optimizer(model, config, momentum)
    advance = _follow_schedule(optimizer, config, len(split), done, before_step)
    for number in range(done + 1, config.epochs + 1):
        started = time.perf_counter()
        drawn = _draw_batches(
            dataset, split, config, seed, purpose, number, augment, device, is_channels_last
        )
        model.train()
        with (
            seed_torch(seed, f"{purpose}/torch", number, device=device),
            explain_lone_sample(config.batch_size, len(split), "batch_size"),
        ):
            passed = fit_epoch(
                model,
                optimizer,
                drawn,
                loss or dataset.task.loss,
                mask=mask,
                clip_norm=config.clip_norm,
                before_step=advance,
                after_backward=after_backward,
            )
        _check_finite(number, passed, model, config)
        yield _record(number, passed, optimizer, model, started)


def _draw_batches(
    dataset: Dataset,
    split: Split,
    config: FitConfig,
    seed: int,
    purpose: str,
    number: int,
    augment: Augment,
    device: torch.device,
    is_channels_last: bool,
) -> Iterator[Batch]:
    """Return the batches of one epoch, in an order of its own."""
    return batches(
        split,
        torch.arange(len(split)),
        dataset.normalise,
        batch_size=config.batch_size,
        generator=stream(seed, f"{purpose}/batches", number),
        device=device,
        channels_last=is_channels_last,
        augment=make_augmenter(augment, stream(seed, f"{purpose}/augment", number)),
    )


def _build_optimizer(
    model: nn.Module, config: FitConfig, momentum: Momentum | None
) -> torch.optim.Optimizer:
    """Return an optimiser that goes on with what it had."""
    optimizer = make_optimizer(model, config)
    held: Tensors = EMPTY if momentum is None else momentum.buffers
    parameters = dict(model.named_parameters())
    for key, value in held.items():
        name, _, slot = key.partition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # Laid out in memory like the parameter, for the same kernels and so the same bits.
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][slot or _BUFFER] = value
    return optimizer


def _follow_schedule(
    optimizer: torch.optim.Optimizer,
    config: FitConfig,
    num_samples: int,
    done: int,
    before_step: Callable[[int], None] | None,
) -> Callable[[], None]:
    """Return what goes before every step: the caller's ``before_step``, and the learning rate."""
    per_epoch = len(find_batch_ends(num_samples, config.batch_size))
    steps = itertools.count(done * per_epoch)

    def advance() -> None:
        step = next(steps)
        if before_step is not None:
            before_step(step)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(config, step, per_epoch * config.epochs)

    return advance


def _check_finite(number: int, passed: Passed, model: nn.Module, config: FitConfig) -> None:
    values = [x for x in model.state_dict().values() if x.is_floating_point()]
    if not (math.isfinite(passed.loss_sum) and all(map(is_finite, values))):
        raise DivergedError(
            f"the training loss or the model is not finite after epoch {number}",
            hint=f"lower the learning rate (it starts at {config.lr:g})",
        )


def _record(
    number: int,
    passed: Passed,
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    started: float,
) -> Epoch:
    buffers: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state[parameter].items():
            if value is not None:
                buffers[name if slot == _BUFFER else f"{name}/{slot}"] = value.clone()
    return Epoch(
        number=number,
        loss=passed.loss_sum / max(passed.num_samples, 1),
        lr=optimizer.param_groups[0]["lr"],
        num_steps=passed.num_steps,
        num_samples=passed.num_samples,
        real_s=time.perf_counter() - started,
        momentum=Momentum(buffers),
    )
