"""Tables of whole numbers, clients by labels: made to given sums, and dealt by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
ArrayTable = NDArray[np.int64]
"""Number of samples by client and label, ``[clients, labels]``."""


def group_by_label(labels: Indices) -> list[Indices]:
    """Return the indices of each label's samples, by ascending label."""
    order = np.argsort(labels, kind="stable")
    starts = np.unique(labels[order], return_index=True)[1]
    return np.split(order, starts)[1:]


def deal(classes: Sequence[Indices], table: ArrayTable, rng: np.random.Generator) -> list[Indices]:
    """Return each client's indices: of every class at random as many as ``table`` says.

    Args:
        classes: per label the indices of its samples.
        table: a column sums to the size of its class.
    """
    dealt = [
        np.split(rng.permutation(members), np.cumsum(column)[:-1])
        for members, column in zip(classes, table.T, strict=True)
    ]
    return [np.concatenate(hands) for hands in zip(*dealt, strict=True)]


def apportion(weights: NDArray[np.float64], total: int, rng: np.random.Generator) -> Indices:
    """Return whole numbers that sum to ``total``, each within 1 of its proportional share.

    The largest remainders are rounded up; a draw decides between equal ones.

    Args:
        weights: 0 or more, not all 0.
    """
    exact = weights * (total / weights.sum())
    numbers = np.floor(exact + 1e-9).astype(np.int64)
    order = rng.permutation(len(weights))
    largest = order[np.argsort((numbers - exact)[order], kind="stable")]
    numbers[largest[: total - numbers.sum()]] += 1
    return numbers


def fill_table(rows: Indices, columns: Indices, is_allowed: NDArray[np.bool_]) -> ArrayTable | None:
    """Return whole numbers with the given sums, near to proportional; None if there are none.

    Args:
        rows: sums of the rows, 0 or more.
        columns: sums of the columns, 0 or more, of the same total.
        is_allowed: ``[rows, columns]``; the numbers are 0 where it is False.
    """
    exact = _proportional(rows, columns, is_allowed)
    floor = np.floor(exact + 1e-6).astype(np.int64)
    ceiling = np.ceil(exact - 1e-6).astype(np.int64)
    anything = np.where(is_allowed, rows[:, None], 0)
    table = floor.copy()
    # A table between floor and ceiling exists if the scaling came to its end; it may not have.
    for lowest, highest in ((floor, ceiling), (np.zeros_like(floor), anything)):
        row_gaps, column_gaps = rows - table.sum(1), columns - table.sum(0)
        while path := _augmenting_path(table - lowest, highest - table, row_gaps, column_gaps):
            table[tuple(zip(*path[::2], strict=True))] += 1
            if lowered := path[1::2]:
                table[tuple(zip(*lowered, strict=True))] -= 1
            row_gaps[path[0][0]] -= 1
            column_gaps[path[-1][1]] -= 1
        if not row_gaps.any():
            return table
    return None


def _proportional(
    rows: Indices, columns: Indices, is_allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Scale a table of ones to the sums in turn; in the end no sum is exceeded."""
    exact = is_allowed.astype(np.float64)
    for _ in range(100):
        exact *= columns / np.maximum(exact.sum(0), 1e-12)
        exact *= (rows / np.maximum(exact.sum(1), 1e-12))[:, None]
    return exact * np.minimum(1, columns / np.maximum(exact.sum(0), 1e-12))


def _augmenting_path(
    may_fall: ArrayTable, may_rise: ArrayTable, row_gaps: Indices, column_gaps: Indices
) -> list[tuple[int, int]] | None:
    """Return cells to raise and lower in turn, from a row that lacks to a column that lacks."""
    starts = np.flatnonzero(row_gaps)
    if not len(starts):
        return None
    start = int(starts[0])
    came_by: dict[int, int] = {}  # column -> row that reaches it
    left_by: dict[int, int] = {}  # row -> column that it was reached from
    queue = [start]
    for row in queue:
        # Columns that lack the most come first, so that what is left over spreads evenly.
        columns = np.flatnonzero(may_rise[row])
        for column in map(int, columns[np.argsort(-column_gaps[columns], kind="stable")]):
            if column in came_by:
                continue
            came_by[column] = row
            if column_gaps[column]:
                return _walk_back(column, start, came_by, left_by)
            for other in map(int, np.flatnonzero(may_fall[:, column])):
                if other != start and other not in left_by:
                    left_by[other] = column
                    queue.append(other)
    return None


def _walk_back(
    column: int, start: int, came_by: dict[int, int], left_by: dict[int, int]
) -> list[tuple[int, int]]:
    path = [(came_by[column], column)]
    while path[-1][0] != start:
        row = path[-1][0]
        path += [(row, left_by[row]), (came_by[left_by[row]], left_by[row])]
    return path[::-1]
