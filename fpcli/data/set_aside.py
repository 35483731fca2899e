"""Set samples aside that no client holds, because the server has them."""

from __future__ import annotations

import torch
from torch import Tensor

from fpcli.errors import DataError
from fpcli.rng import stream

NO_SAMPLES: Tensor = torch.empty(0, dtype=torch.int64)
"""What the server has where nothing is set aside."""


def set_aside(
    labels: Tensor,
    *,
    share: float = 0.0,
    number: int = 0,
    kind: str = "classify",
    seed: int,
) -> Tensor:
    """Draw the training samples that the server has.

    Classes give in proportion to their sizes; a draw decides which samples these are, and between
    classes that are equally due. The last sample of a class stays with the clients. With one seed a
    smaller number is part of a larger one.

    Args:
        labels: ``[n]`` of all training samples.
        share: of them that the server has; of a share above 0 one sample at least.
        number: of samples, in place of a share.
        kind: what is learned, of ``tasks.TASKS``; without classes all samples count as of one.
        seed: of the draw.

    Returns:
        Sorted int64 indices into ``labels``; none where share and number are 0.

    Raises:
        DataError: so many would leave clients without some class.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> labels[set_aside(labels, number=3, seed=0)].tolist()
    [0, 0, 1]
    """
    if kind != "classify":
        labels = torch.zeros(len(labels), dtype=torch.int64)
    wanted = number or (max(1, round(share * len(labels))) if share else 0)
    sizes = labels.bincount()
    most = len(labels) - int((sizes > 0).sum())
    if wanted > most:
        key = "task.server_samples" if number else "task.server_share"
        raise DataError(
            f"{key} is {number or share}: of {len(labels):,} training samples the server can have "
            f"{most:,}, since one {'of each class ' * (kind == 'classify')}stays with the clients",
            hint=f"set task.server_samples to {most} or less, in place of task.server_share",
            where=key,
        )
    order = torch.randperm(len(labels), generator=stream(seed, "server/samples"))
    by_class = labels[order].argsort(stable=True)
    rank = torch.empty_like(order)
    rank[by_class] = torch.cat([torch.arange(size) for size in sizes.tolist()])
    size = sizes[labels[order]]
    # The next sample is that of the class whose number so far is furthest behind its share: the
    # divisors of Webster's method, which keep every prefix proportional.
    turn = torch.where(rank < size - 1, (rank.double() + 0.5) / size, torch.inf)
    return order[turn.argsort(stable=True)[:wanted]].sort().values
