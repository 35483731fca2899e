"""Splits in which clients differ in their numbers of samples, and long-tailed classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fpcli.data.arrays import Indices, apportion, group_by_label
from fpcli.data.label_skew import MAX_DRAWS, check_alpha
from fpcli.errors import DataError
from fpcli.settings.tasks import Law


def draw_quantity(
    count: int,
    num_clients: int,
    rng: np.random.Generator,
    *,
    law: Law,
    alpha: float,
    exponent: float,
    sizes: Sequence[float],
    min_size: int,
) -> list[Indices]:
    """Return clients of unequal size with labels at random.

    Args:
        count: number of samples.
        law: ``dirichlet`` draws the sizes from Dir(alpha); ``power`` makes the r-th largest client
            proportional to r^-exponent. Which client has which size is drawn.
        sizes: relative sizes, one per client in their order; empty for ``law``.
        min_size: sizes of ``dirichlet`` are drawn again while one is smaller.

    Raises:
        DataError: ``sizes`` are not one positive number per client, ``alpha`` is not above 0, or
            in each of ``MAX_DRAWS``
            draws a client has fewer than ``min_size`` samples.
    """
    if sizes:
        if len(sizes) != num_clients or not all(0 < size < math.inf for size in sizes):
            raise DataError(
                f"task.partition.sizes has {len(sizes)} numbers for {num_clients} clients, or one "
                "that is not above 0",
                hint="give one relative size per client, or none",
            )
        numbers = apportion(np.array(sizes, dtype=np.float64), count, rng)
    elif law == "power":
        ranks = np.arange(1, num_clients + 1, dtype=np.float64)
        numbers = rng.permutation(apportion(ranks**-exponent, count, rng))
    else:
        numbers = _draw_sizes(count, num_clients, alpha, min_size, rng)
    return np.split(rng.permutation(count), np.cumsum(numbers)[:-1])


def _draw_sizes(
    count: int, num_clients: int, alpha: float, min_size: int, rng: np.random.Generator
) -> Indices:
    check_alpha(alpha)
    for _ in range(MAX_DRAWS):
        numbers = apportion(rng.dirichlet(np.full(num_clients, alpha)), count, rng)
        if numbers.min() >= min_size:
            return numbers
    raise DataError(
        f"sizes of {num_clients} clients from dirichlet(alpha {alpha}) had one below {min_size} of "
        f"{count} samples in each of {MAX_DRAWS} draws",
        hint="raise task.partition.alpha or lower task.clients",
    )


def group_owners(owners: Indices, num_clients: int) -> list[Indices]:
    """Return clients that are owners of samples, or equally many consecutive owners each.

    Where the owners do not divide evenly, the last client has the remaining ones too.

    Args:
        owners: number of each sample's owner.

    Raises:
        DataError: there are fewer owners than clients.

    Source: Jiang et al., TNNLS 2023 (PruneFL), whose 10 clients have 19 of 193 writers each, the
    last one 22.
    """
    by_owner = group_by_label(owners)
    if len(by_owner) < num_clients:
        raise DataError(
            f"{len(by_owner)} owners of samples are too few for {num_clients} clients",
            hint=f"lower task.clients to {len(by_owner)} or less",
        )
    each = len(by_owner) // num_clients
    starts = [each * client for client in range(num_clients)] + [len(by_owner)]
    return [np.concatenate(by_owner[start:end]) for start, end in pairwise(starts)]


def thin_out_classes(labels: Indices, imbalance: float, rng: np.random.Generator) -> Indices:
    """Return sorted indices of the samples that remain when class sizes fall exponentially.

    Of class c of k, counted from 0, floor(n_c * mu^c) samples remain, at least one, with
    mu = imbalance^(-1 / (k - 1)): of equal classes the first has ``imbalance`` times the samples of
    the last.

    Args:
        imbalance: 1 or more; 1 keeps everything.

    Source: Cui et al., CVPR 2019, section 5.1; rounded down as in the usual CIFAR-10-LT.
    """
    classes = group_by_label(labels)
    factors = imbalance ** (-np.arange(len(classes)) / max(len(classes) - 1, 1))
    kept = [
        rng.permutation(members)[: max(1, math.floor(len(members) * factor + 1e-9))]
        for members, factor in zip(classes, factors, strict=True)
    ]
    return np.sort(np.concatenate(kept))
