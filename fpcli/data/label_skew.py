"""Splits in which clients differ in their labels."""

from __future__ import annotations

import bisect
import math

import numpy as np

from fpcli.data.arrays import ArrayTable, Indices, apportion, deal, fill_table, group_by_label
from fpcli.errors import DataError

MAX_DRAWS = 100
"""Dirichlet shares are drawn at most this often until every client has enough samples."""


def check_alpha(alpha: float) -> None:
    """Refuse what is no concentration of a Dirichlet distribution.

    Raises:
        DataError: ``alpha`` is not above 0 and finite.
    """
    if not (alpha > 0 and math.isfinite(alpha)):
        raise DataError(f"task.partition.alpha must be above 0, got {alpha}", hint="0.5 is usual")


def deal_shards(
    labels: Indices, num_clients: int, per_client: int, rng: np.random.Generator
) -> list[Indices]:
    """Return for each client ``per_client`` of the equal pieces of the label-sorted samples."""
    pieces = np.array_split(np.argsort(labels, kind="stable"), num_clients * per_client)
    dealt = rng.permutation(len(pieces)).reshape(num_clients, per_client)
    return [np.concatenate([pieces[piece] for piece in hand]) for hand in dealt]


def draw_dirichlet(
    labels: Indices,
    num_clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[Indices]:
    """Return clients that have of every class a share drawn from Dir(alpha).

    Raises:
        DataError: ``alpha`` is not above 0, or in each of ``MAX_DRAWS`` draws a client has fewer
            than ``min_size`` samples.
    """
    check_alpha(alpha)
    classes = group_by_label(labels)
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


def deal_dominant(
    labels: Indices, num_clients: int, share: float, rng: np.random.Generator
) -> list[Indices]:
    """Return clients of equal size, each with ``share`` of its samples from one label.

    Labels are handed to the clients as main labels in proportion to their numbers of samples, so
    that large labels serve more clients; which client gets which is drawn.

    Args:
        share: in (0, 1]; where the label has a larger share of all samples, that one counts.

    Raises:
        DataError: ``share`` is not such a number, or the samples do not suffice.
    """
    if not 0 < share <= 1:
        raise DataError(
            f"task.partition.dominant_share must be from 0 to 1, got {share}",
            hint="it is a fraction: 0.4 for 40 %",
        )
    classes = group_by_label(labels)
    counts = np.array([len(members) for members in classes])
    times = apportion(counts.astype(np.float64), num_clients, rng)
    mains = rng.permutation(np.repeat(np.arange(len(counts)), times))
    table = _dominant_table(counts, mains, share)
    if table is None:
        most = bisect.bisect_left(
            range(100), True, key=lambda p: _dominant_table(counts, mains, p / 100) is None
        )
        is_multiple = num_clients % len(classes) == 0
        raise DataError(
            f"a dominant share of {share:g} is impossible for {num_clients} clients of equal size: "
            f"{len(classes)} labels have from {counts.min()} to {counts.max()} samples, a client "
            f"has {len(labels) // num_clients}",
            hint=f"lower task.partition.dominant_share to {max(most - 1, 0) / 100:g}"
            + ("" if is_multiple else ", or make task.clients a multiple of the number of labels"),
        )
    return deal(classes, table, rng)


def deal_some_classes(
    labels: Indices, num_clients: int, held: int, rng: np.random.Generator
) -> list[Indices]:
    """Return clients that hold ``held`` classes each; a class is dealt evenly to its holders.

    The classes are drawn so that each has equally many holders, up to one.

    Args:
        held: 1 or more.

    Raises:
        DataError: there are not as many classes, a class would have no holder, or a class has
            fewer samples than holders.
    """
    classes = group_by_label(labels)
    slots = num_clients * held
    if not 1 <= held <= len(classes) <= slots:
        raise DataError(
            f"{num_clients} clients cannot share {len(classes)} classes with {held} classes each",
            hint=f"a client holds from {-(-len(classes) // num_clients)} to {len(classes)} classes",
        )
    table = np.zeros((num_clients, len(classes)), dtype=np.int64)
    for row in table:
        order = rng.permutation(len(classes))
        # Those with the fewest holders so far: only so do the numbers of holders stay equal.
        row[order[np.argsort(table.sum(0)[order], kind="stable")[:held]]] = 1
    for column, members in zip(table.T, classes, strict=True):
        if len(members) < column.sum():
            raise DataError(
                f"label {labels[members[0]]} has {len(members)} samples for {column.sum()} clients",
                hint="lower task.clients, or the number of classes that each of them holds",
            )
        column[:] = apportion(column.astype(np.float64), len(members), rng)
    return deal(classes, table, rng)


def _dominant_table(counts: Indices, mains: Indices, share: float) -> ArrayTable | None:
    num_clients = len(mains)
    sizes = np.full(num_clients, counts.sum() // num_clients)
    # A sample more is for the clients whose main label has the most to give.
    wealth = counts[mains] / np.bincount(mains, minlength=len(counts))[mains]
    sizes[np.argsort(-wealth, kind="stable")[: counts.sum() % num_clients]] += 1
    shares = np.maximum(share, counts[mains] / counts.sum())
    # Where a share uses its label up, rounding to the nearest may ask for a sample too many.
    for rounded in (np.rint, np.floor):
        dominants = rounded(shares * sizes).astype(np.int64)
        taken = np.bincount(mains, weights=dominants, minlength=len(counts)).astype(np.int64)
        is_allowed = np.arange(len(counts)) != mains[:, None]
        table = (
            fill_table(sizes - dominants, counts - taken, is_allowed)
            if (taken <= counts).all()
            else None
        )
        if table is not None:
            table[np.arange(num_clients), mains] = dominants
            return table
    return None
