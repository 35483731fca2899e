"""Share out the training samples among clients."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fpcli.data import label_skew, size_skew
from fpcli.data.arrays import Indices
from fpcli.data.kinds import require_classes
from fpcli.data.set_aside import NO_SAMPLES
from fpcli.data.split_file import read_split
from fpcli.errors import DataError
from fpcli.rng import derive
from fpcli.settings.tasks import Partition

_BY_CLASS = frozenset({"dirichlet", "shards", "dominant", "classes", "missing"})


def partition(
    labels: Tensor,
    num_clients: int,
    how: Partition,
    *,
    owners: Tensor | None = None,
    data: str = "",
    reserved: Tensor = NO_SAMPLES,
    kind: str = "classify",
    seed: int,
) -> tuple[Tensor, ...]:
    """Return one set of sample indices per client; no sample belongs to two clients.

    Every sample belongs to one, but ``reserved`` ones and what ``imbalance`` or a file leave out.

    Args:
        labels: ``[n]``.
        how: ``iid``: equal shares at random. ``dirichlet``: every class is shared out in
            proportions drawn from Dir(alpha). ``shards``: samples sorted by label are cut in
            equal shards, ``shards_per_client`` of them for each client. ``dominant``: clients of
            equal size; ``dominant_share`` of a client's samples have one label, the others are
            spread over the other labels; the share is counted in total, not on top of an even
            one, and below the label's share of all data it means that share. ``classes``: a
            client holds ``classes_per_client`` classes, each dealt evenly to its holders.
            ``missing``: likewise all but ``missing_classes``. ``quantity``: unequal sizes, labels
            at random. ``natural``: by owner. ``file``: as a file says.
        owners: int64 ``[n]``, the number of each sample's owner; needed by ``natural``.
        data: name of the data, which a file must have too.
        reserved: indices of samples that the server has; what is left is split, as if there were
            nothing else.
        kind: what is learned, of ``tasks.TASKS``.

    Returns:
        per client an int64 ``[m]`` of sorted indices into ``labels``.

    Raises:
        DataError: a client would get fewer than ``min_size`` samples (``dirichlet``: in each of
            ``MAX_DRAWS`` draws), there are more clients or shards than samples, the labels or
            owners do not suffice, a number is out of its range, or the file is wrong or gives a
            client what is reserved.
        RecipeError: it goes by classes, and none are learned.

    Source: iid and shards: McMahan et al., AISTATS 2017, section 3; dirichlet, classes and
    quantity: Li et al., ICDE 2022 (NIID-Bench), without its limit on large clients, and with every
    class held by a client; dominant and missing: the non-IID levels of Jiang et al., ICDE 2022
    (FedMP), figure 9, whose exact meaning is inferred.

    >>> how = Partition("shards", shards_per_client=1)
    >>> sorted(part.tolist() for part in partition(torch.tensor([0, 1, 0, 1]), 2, how, seed=0))
    [[0, 2], [1, 3]]
    """
    _check_how(how, kind)
    kept = _keep(labels, how, reserved, seed)
    _check_number(len(kept), num_clients, how, len(reserved))
    if how.kind == "file":
        parts = read_split(Path(how.file), data, labels, num_clients, reserved)
    else:
        parts = [kept[part] for part in _deal(labels, kept, num_clients, how, owners, data, seed)]
    _check_smallest(parts, how.min_size)
    return tuple(torch.from_numpy(np.sort(part)) for part in parts)


def _check_how(how: Partition, kind: str) -> None:
    if how.imbalance > 1 and how.kind == "file":
        raise DataError(
            "task.partition.imbalance does not go with a file, which names its samples itself",
            hint="leave one of them out",
        )
    if how.kind in _BY_CLASS:
        remedy = "take iid, quantity, natural or file"
        require_classes(kind, "task.partition.kind", f"is `{how.kind}`", remedy)
    if how.imbalance > 1:
        problem = f"is {how.imbalance:g}, a long tail"
        require_classes(kind, "task.partition.imbalance", problem, "leave it out")


def _keep(labels: Tensor, how: Partition, reserved: Tensor, seed: int) -> Indices:
    """Return the samples that clients get at all."""
    kept: Indices = np.delete(np.arange(len(labels)), reserved.numpy())
    if how.imbalance > 1:
        rng = np.random.default_rng(derive(seed, "long-tail"))
        kept = kept[size_skew.thin_out_classes(labels.numpy()[kept], how.imbalance, rng)]
    return kept


def _deal(
    labels: Tensor,
    kept: Indices,
    num_clients: int,
    how: Partition,
    owners: Tensor | None,
    data: str,
    seed: int,
) -> list[Indices]:
    """Return what each client gets, as positions in ``kept``."""
    if how.kind == "natural":
        if owners is None:
            raise DataError(
                f"data `{data}` does not say who owns which sample",
                hint="use another task.partition.kind",
            )
        return size_skew.group_owners(owners.numpy()[kept], num_clients)
    rng = np.random.default_rng(derive(seed, "partition"))
    return _draw(labels.numpy()[kept], num_clients, how, rng)


def _check_number(count: int, num_clients: int, how: Partition, num_reserved: int) -> None:
    smallest = max(how.min_size, how.shards_per_client if how.kind == "shards" else 1)
    if num_clients * smallest > count:
        raise DataError(
            f"{num_clients} clients with at least {smallest} samples each need "
            f"{num_clients * smallest} samples, there are {count}"
            + (f" beside the {num_reserved} of the server" if num_reserved else ""),
            hint="lower task.clients, or task.partition.shards_per_client for shards"
            + (", or task.server_share" if num_reserved else ""),
        )


def _check_smallest(parts: list[Indices], min_size: int) -> None:
    smallest = min(range(len(parts)), key=lambda client: len(parts[client]))
    if len(parts[smallest]) < min_size:
        raise DataError(
            f"client {smallest} would have {len(parts[smallest])} samples, fewer than {min_size}",
            hint="lower task.partition.min_size or task.clients",
        )


def _draw(
    labels: Indices, num_clients: int, how: Partition, rng: np.random.Generator
) -> list[Indices]:
    match how.kind:
        case "dirichlet":
            return label_skew.draw_dirichlet(labels, num_clients, how.alpha, how.min_size, rng)
        case "shards":
            return label_skew.deal_shards(labels, num_clients, how.shards_per_client, rng)
        case "dominant" if how.dominant_share != 0:
            return label_skew.deal_dominant(labels, num_clients, how.dominant_share, rng)
        case "classes":
            return label_skew.deal_some_classes(labels, num_clients, how.classes_per_client, rng)
        case "missing":
            held = len(np.unique(labels)) - how.missing_classes
            return label_skew.deal_some_classes(labels, num_clients, held, rng)
        case "quantity":
            return size_skew.draw_quantity(
                len(labels),
                num_clients,
                rng,
                law=how.size_law,
                alpha=how.alpha,
                exponent=how.exponent,
                sizes=how.sizes,
                min_size=how.min_size,
            )
    return np.array_split(rng.permutation(len(labels)), num_clients)


def count_labels(labels: Tensor, parts: tuple[Tensor, ...], num_classes: int) -> Tensor:
    """Return how many samples of each class each client has, int64 ``[clients, classes]``.

    >>> count_labels(torch.tensor([0, 1, 1]), (torch.tensor([0, 1]), torch.tensor([2])), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return torch.stack([torch.bincount(labels[part], minlength=num_classes) for part in parts])


def split_digest(parts: tuple[Tensor, ...]) -> str:
    """Return the hex SHA-256 of a split: equal exactly when every client has the same samples.

    It is taken over the number of clients, their numbers of samples and then all indices, as
    64-bit numbers, lowest byte first.
    """
    sizes = torch.tensor([len(parts), *map(len, parts)])
    return hashlib.sha256(torch.cat((sizes, *parts)).numpy().astype("<i8").tobytes()).hexdigest()
