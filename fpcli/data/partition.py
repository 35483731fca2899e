"""Share out the training samples among clients."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpcli.data.label_skew import deal, dominant, members_of
from fpcli.errors import DataError
from fpcli.rng import derive

Kind = Literal["iid", "dirichlet", "shards", "dominant"]

PARTITIONS: tuple[Kind, ...] = ("iid", "dirichlet", "shards", "dominant")

MAX_DRAWS = 100
"""Dirichlet shares are drawn at most this often until every client has enough samples."""


def partition(
    labels: Tensor,
    num_clients: int,
    *,
    kind: Kind,
    alpha: float = 0.5,
    shards_per_client: int = 2,
    dominant_share: float = 0.4,
    min_size: int = 1,
    seed: int,
) -> tuple[Tensor, ...]:
    """Return one set of sample indices per client; every sample belongs to exactly one client.

    Args:
        labels: int64 ``[n]``.
        num_clients: number of parts, 1 or more.
        kind: ``iid``: equal shares at random. ``dirichlet``: every class is shared out in
            proportions drawn from Dir(alpha). ``shards``: samples sorted by label are cut in
            equal shards, ``shards_per_client`` of them for each client. ``dominant``: clients of
            equal size; ``dominant_share`` of a client's samples have one label, the others are
            spread over the other labels.
        alpha: for ``dirichlet``, above 0; smaller means more different clients.
        shards_per_client: for ``shards``; few shards mean few classes per client.
        dominant_share: for ``dominant``, from 0 to 1 and counted in total, not on top of an even
            share. 0 is the ``iid`` split; below a label's share of all data it means that share.
        min_size: smallest allowed number of samples of a client.
        seed: of the draw.

    Returns:
        per client an int64 ``[m]`` of sorted indices into ``labels``.

    Raises:
        DataError: a client would get fewer than ``min_size`` samples (``dirichlet``: in each of
            ``MAX_DRAWS`` draws), there are more clients or shards than samples, ``alpha`` is not a
            positive number, ``dominant_share`` is not from 0 to 1, or the labels do not suffice
            for it when every sample is used once.

    Source: iid and shards: McMahan et al., AISTATS 2017, section 3; dirichlet: Li et al., ICDE
    2022 (NIID-Bench), without its limit on large clients; dominant: the non-IID level of Jiang et
    al., ICDE 2022 (FedMP), figure 9, whose exact meaning is inferred.

    >>> parts = partition(torch.tensor([0, 1, 0, 1]), 2, kind="shards", shards_per_client=1, seed=0)
    >>> sorted(part.tolist() for part in parts)
    [[0, 2], [1, 3]]
    """
    smallest = max(min_size, shards_per_client if kind == "shards" else 1)
    if num_clients * smallest > len(labels):
        raise DataError(
            f"{num_clients} clients with at least {smallest} samples each need "
            f"{num_clients * smallest} samples, there are {len(labels)}",
            hint="lower task.clients, or task.partition.shards_per_client for shards",
        )
    rng = np.random.default_rng(derive(seed, "partition"))
    if kind == "iid" or (kind == "dominant" and dominant_share == 0):
        parts = np.array_split(rng.permutation(len(labels)), num_clients)
    elif kind == "shards":
        parts = _shards(labels.numpy(), num_clients, shards_per_client, rng)
    elif kind == "dominant":
        parts = dominant(labels.numpy(), num_clients, dominant_share, rng)
    else:
        parts = _dirichlet(labels.numpy(), num_clients, alpha, min_size, rng)
    return tuple(torch.from_numpy(np.sort(part).astype(np.int64)) for part in parts)


def label_table(labels: Tensor, parts: tuple[Tensor, ...], num_classes: int) -> Tensor:
    """Return how many samples of each class each client has, int64 ``[clients, classes]``.

    >>> label_table(torch.tensor([0, 1, 1]), (torch.tensor([0, 1]), torch.tensor([2])), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return torch.stack([torch.bincount(labels[part], minlength=num_classes) for part in parts])


def _shards(
    labels: NDArray[np.int64], num_clients: int, per_client: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    shards = np.array_split(np.argsort(labels, kind="stable"), num_clients * per_client)
    dealt = rng.permutation(len(shards)).reshape(num_clients, per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


def _dirichlet(
    labels: NDArray[np.int64],
    num_clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[NDArray[np.int64]]:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise DataError(f"task.partition.alpha must be above 0, got {alpha}", hint="0.5 is usual")
    classes = members_of(labels)
    sizes = np.array([[len(members)] for members in classes])
    for _ in range(MAX_DRAWS):
        shares = rng.dirichlet(np.full(num_clients, alpha), size=len(classes))
        ends = np.rint(np.cumsum(shares, axis=1) * sizes).astype(np.int64)
        ends[:, -1] = sizes[:, 0]
        table = np.diff(ends, axis=1, prepend=0).T
        if table.sum(axis=1).min() >= min_size:
            return deal(classes, table, rng)
    raise DataError(
        f"dirichlet(alpha {alpha}) left one of {num_clients} clients with fewer than {min_size} "
        f"of {len(labels)} samples in each of {MAX_DRAWS} draws",
        hint="raise task.partition.alpha or lower task.clients",
    )
