"""Batches of normalised samples, drawn from tensors in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fpcli.data.split import Split
from fpcli.tasks.learning_task import Batch


def find_batch_ends(count: int, batch_size: int) -> list[int]:
    """Return where in its order each batch of an epoch ends.

    A last partial batch is kept, but a last single sample joins the batch before it: batch
    normalisation cannot train on one value per channel.

    >>> find_batch_ends(70, 32), find_batch_ends(65, 32), find_batch_ends(0, 32)
    ([32, 64, 70], [32, 65], [])
    """
    ends = list(range(batch_size, count, batch_size))
    if ends and batch_size > 1 and count - ends[-1] == 1:
        ends.pop()
    return [*ends, count] if count else []


def num_processed(count: int, batch_size: int, epochs: int, max_steps: int = 0) -> int:
    """Return how many samples go through in some epochs, counted again in each.

    Args:
        count: samples of one epoch.
        batch_size: 1 or more.
        epochs: passes over the samples.
        max_steps: steps after which training stops, even within an epoch; 0 stops at its end.

    >>> num_processed(70, 32, 2), num_processed(70, 32, 2, 4), num_processed(70, 32, 2, 9)
    (140, 102, 140)
    """
    ends = find_batch_ends(count, batch_size)
    if not 0 < max_steps < epochs * len(ends):
        return epochs * count
    whole, more = divmod(max_steps, len(ends))
    return whole * count + (ends[more - 1] if more else 0)


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
    """Yield one epoch of the samples at ``indices``, each exactly once (see `find_batch_ends`).

    Args:
        split: where the samples are.
        indices: int64 ``[n]`` into ``split``; a single sample is yielded as it is.
        normalise: stored samples -> float32 (``Dataset.normalise``).
        batch_size: 1 or more.
        generator: draws the order; None keeps the order of ``indices``.
        device: where the batches go.
        channels_last: lay images out channels last, which most convolutions like better; tables
            stay as they are.
        augment: changes the stored images of each batch (``augment.augmenter``).
    """
    if generator is not None:
        indices = indices[torch.randperm(len(indices), generator=generator)]
    ends = find_batch_ends(len(indices), batch_size)
    for chosen in indices.tensor_split(ends[:-1]) if ends else ():
        batch = split.take(chosen.to(split.images.device))
        yield _ready(batch, normalise, device, channels_last, augment)


def evaluation_batches(
    split: Split,
    normalise: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> Iterator[Batch]:
    """Yield all samples of ``split`` in their stored order (arguments as in :func:`batches`).

    Where samples have negatives, these stand behind the label: ``[b, 1 + N]``.
    """
    targets = split.labels
    if split.negatives is not None:
        targets = torch.cat([targets[:, None], split.negatives], 1)
    parts = zip(split.images.split(batch_size), targets.split(batch_size), strict=True)
    for images, labels in parts:
        yield _ready(Split(images, labels), normalise, device, channels_last)


def _ready(
    batch: Split,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device | str,
    channels_last: bool,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Batch:
    # Stored samples are smaller than normalised ones, so they travel and are changed first.
    images = batch.images.to(device)
    images = normalise(images if augment is None else augment(images))
    if channels_last and images.dim() == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, batch.labels.to(device)
