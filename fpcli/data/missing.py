"""Missing numbers of a table: named, left out with their rows, or put at the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fpcli.data.cells import TextTable, is_number
from fpcli.data.split import SPLIT_PARTS
from fpcli.errors import DataError

REMEDIES = ("mean", "drop")
"""What may be done: the mean of the column's training rows instead, or without such rows."""

MISSING_WORDS = frozenset({"null", "none", "na", "n/a", "<na>", "#n/a", "?"})
"""What stands for something missing among numbers, in whatever case; among words they are names."""


def find_missing(table: TextTable, columns: Sequence[str]) -> dict[str, list[int]]:
    """Return column -> rows whose cell is missing, of those columns that lack some.

    Among numbers these are empty cells, `nan` and ``WORDS``; among words empty cells alone.
    """
    rows = {name: _missing_rows(table.columns[name]) for name in columns}
    return {name: missing for name, missing in rows.items() if missing}


def _missing_rows(cells: Sequence[str]) -> list[int]:
    present = [cell for cell in cells if not (_is_empty(cell) or cell.lower() in MISSING_WORDS)]
    are_numbers = bool(present) and all(map(is_number, present))
    return [
        row
        for row, cell in enumerate(cells)
        if cell == ""
        or (are_numbers and cell.lower() in MISSING_WORDS)
        or (_is_empty(cell) and (are_numbers or not present))
    ]


def _is_empty(cell: str) -> bool:
    return cell == "" or (is_number(cell) and math.isnan(float(cell)))


def refuse_missing(
    table: TextTable, missing: Mapping[str, Sequence[int]], remedy: str | None
) -> None:
    """Refuse missing cells that there is no remedy for.

    Args:
        missing: column -> rows.
        remedy: one of ``REMEDIES``, or None.

    Raises:
        DataError: there are missing cells and no remedy, or missing words and no mean of them.
    """
    for name, rows in missing.items():
        cell = table.columns[name][rows[0]]
        problem = f"is `{cell}`, a missing number" if cell else "is empty"
        ways = "`csv:PATH,missing=drop` leaves such rows out"
        if remedy == "mean":
            others = set(rows)
            cells = enumerate(table.columns[name])
            if all(is_number(other) for row, other in cells if row not in others):
                continue
            problem += ", and words have no mean"
        else:
            ways = "`csv:PATH,missing=mean` puts the mean of the training rows there, " + ways
        raise table.wrong(rows[0], name, problem, f"fill it in, or leave the row out; {ways}")


def without_rows(table: TextTable, missing: Mapping[str, Sequence[int]]) -> tuple[TextTable, str]:
    """Return a table without the rows that miss something, and a note of how many these were.

    Raises:
        DataError: no row is left.
    """
    lacking = {row for rows in missing.values() for row in rows}
    total = len(table.lines)
    if len(lacking) == total:
        raise DataError(
            f"{table.path}: every row misses a value",
            hint="leave out the columns that miss most, or take missing=mean",
            where=str(table.path),
        )
    note = f"missing=drop: {len(lacking):,} of {total:,} rows left out, {_count(missing)} missing"
    return table.take([row for row in range(total) if row not in lacking]), note


def fill_missing(
    arrays: Mapping[str, Any], columns: Sequence[str], table: TextTable, missing: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return arrays with means of the training rows where nan was, and a note of how many.

    Args:
        arrays: of a data set, tensors.
        columns: name of each feature.

    Raises:
        DataError: no training row has a number of some column.
    """
    train = arrays["train_images"].double()
    means = train.nanmean(0)
    for column, mean in zip(columns, means.tolist(), strict=True):
        if math.isnan(mean):
            raise DataError(
                f"{table.path}: column `{column}` has no number in any training row",
                hint="leave the column out",
                where=str(table.path),
            )
    filled = {
        key: torch.where(arrays[key].isnan(), means.float(), arrays[key])
        for key in (f"{part}_images" for part in SPLIT_PARTS)
        if key in arrays
    }
    rows = {row for rows in missing.values() for row in rows}
    return {**arrays, **filled}, (
        f"missing=mean: {_count(missing)} missing in {len(rows):,} of {len(table.lines):,} rows, "
        "put at the mean of their column's training rows"
    )


def _count(missing: Mapping[str, Sequence[int]]) -> str:
    count = sum(map(len, missing.values()))
    return f"{count:,} number{'s' * (count != 1)}"
