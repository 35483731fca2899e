"""Batches of normalised images, drawn from tensors in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fpcli.data.split import Split

Batch = tuple[Tensor, Tensor]
"""Images, float32 ``[b, C, H, W]``, and labels, int64 ``[b]``."""


def batches(
    split: Split,
    indices: Tensor,
    normalise: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Batch]:
    """Yield one epoch of the samples at ``indices``, each exactly once.

    A last partial batch is kept, but a last single sample joins the batch before it: batch
    normalisation cannot train on one value per channel.

    Args:
        split: where the samples are.
        indices: int64 ``[n]`` into ``split``; a single sample is yielded as it is.
        normalise: stored images -> float32 (``Dataset.normalise``).
        batch_size: 1 or more.
        generator: draws the order; None keeps the order of ``indices``.
        device: where the batches go.
        channels_last: lay the images out channels last, which most convolutions like better.
        augment: changes the stored images of each batch (``augment.augmenter``).
    """
    count = len(indices)
    if generator is not None:
        indices = indices[torch.randperm(count, generator=generator)]
    for chosen in indices.tensor_split(_ends(count, batch_size)) if count else ():
        batch = split.take(chosen.to(split.images.device))
        yield _ready(batch, normalise, device, channels_last, augment)


def num_batches(count: int, batch_size: int) -> int:
    """Return how many batches :func:`batches` yields for ``count`` samples.

    >>> num_batches(10, 4), num_batches(9, 4), num_batches(1, 4), num_batches(0, 4)
    (3, 2, 1, 0)
    """
    return len(_ends(count, batch_size)) + 1 if count else 0


def _ends(count: int, batch_size: int) -> list[int]:
    """Return where the batches but the last one end."""
    ends = list(range(batch_size, count, batch_size))
    if ends and batch_size > 1 and count - ends[-1] == 1:
        ends.pop()
    return ends


def evaluation_batches(
    split: Split,
    normalise: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> Iterator[Batch]:
    """Yield all samples of ``split`` in their stored order (arguments as in :func:`batches`)."""
    for images, labels in zip(
        split.images.split(batch_size), split.labels.split(batch_size), strict=True
    ):
        yield _ready(Split(images, labels), normalise, device, channels_last)


def _ready(
    batch: Split,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device | str,
    channels_last: bool,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Batch:
    # Stored images are smaller than normalised ones, so they travel and are changed first.
    images = batch.images.to(device)
    images = normalise(images if augment is None else augment(images))
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, batch.labels.to(device)
