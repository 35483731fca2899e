"""Read a table from a CSV file: a class or a number to predict per row, numbers and words, perhaps
clients and splits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpcli.data.cells import TextTable, is_number, read_cells
from fpcli.data.labels import have_fractions
from fpcli.data.missing import (
    MISSING_WORDS,
    REMEDIES,
    fill_missing,
    find_missing,
    refuse_missing,
    without_rows,
)
from fpcli.data.npz import MAX_BYTES
from fpcli.data.place import split_place
from fpcli.data.split import OWNERS, SPLIT_PARTS, cut_test
from fpcli.errors import DataError

MAX_CLASSES = 1000
MAX_WORDS = 256
"""Different words of one column; more are names or numbers with errors, not categories."""

FEW_CLASSES = 20
"""So many labels may be fractions, or stand in one row each, and be classes all the same."""

LABEL, CLIENT, SPLIT = "label", "client", "split"
_LARGEST = float(np.finfo(np.float32).max)
_EXACT = 2**53


def read_table(place: str, kind: str = "auto") -> dict[str, Any]:
    """Return the arrays of a CSV file with a header line.

    The class is in the column ``label``, or else in the last one; numbers there that are not all
    whole are to be predicted, and are no classes. ``client`` names the natural client of a row,
    ``split`` says ``train``, ``val`` or ``test``; without test rows a fixed fifth of each class, or
    of all, is taken. All other columns are features: numbers, or words that become one column of 0
    and 1 per word.

    Args:
        place: ``PATH``, or ``PATH,missing=mean`` or ``PATH,missing=drop``: see ``REMEDIES``.
        kind: a value of ``task.kind``: ``classify`` takes fractions for classes, ``regress`` whole
            numbers for numbers to be predicted.

    Raises:
        DataError: the file is missing, too large, not a table, a cell is empty or unsuitable, or
            the labels are neither classes nor numbers.
    """
    path, options = split_place(place, {"missing": REMEDIES})
    remedy = options.get("missing")
    table = read_cells(path)
    label, inputs = _roles(table)
    missing = find_missing(table, inputs)
    notes = []
    if missing and remedy == "drop":
        table, note = without_rows(table, missing)
        missing = {}
        notes.append(note)
    else:
        refuse_missing(table, missing, remedy)
    splits = _splits(table, table.columns.get(SPLIT))
    clients = table.columns.get(CLIENT)
    features, inputs = _features(table, inputs, missing)
    labels, class_names = _labels(table, label, kind)
    task = "classify" if class_names else "regress"
    arrays: dict[str, Any] = {}
    for part in SPLIT_PARTS:
        rows = np.flatnonzero(splits == SPLIT_PARTS.index(part))
        if len(rows) or part == "train":
            arrays[f"{part}_images"] = torch.from_numpy(features[rows])
            arrays[f"{part}_labels"] = torch.from_numpy(labels[rows])
    names: dict[str, Any] = {"class_names": class_names, "task": task}
    if clients is not None:
        rows = np.flatnonzero(splits == 0)
        owners, names["owner_names"] = _number([clients[row] for row in rows])
        arrays[OWNERS] = torch.from_numpy(owners)
    if "test_images" not in arrays:
        train = {key: value for key, value in arrays.items() if key.startswith("train_")}
        arrays |= cut_test(train, "csv", str(path), task)
    if missing:
        arrays, note = fill_missing(arrays, inputs, table, missing)
        notes.append(note)
    return arrays | names | {"notes": notes}


def _roles(table: TextTable) -> tuple[str, list[str]]:
    """Return the name of the column of labels, and those of the features.

    Raises:
        DataError: there are no features, or a cell of another column is empty.
    """
    rest = [name for name in table.columns if name not in (SPLIT, CLIENT)]
    label = LABEL if LABEL in rest else (rest or [""])[-1]
    inputs = [name for name in rest if name != label]
    if not inputs:
        raise DataError(
            f"{table.path}: no column with features beside the label",
            hint="columns are separated by commas, semicolons or tabs; the first line names them",
            where=str(table.path),
        )
    for name, cells in table.columns.items():
        if "" in cells and name not in inputs:
            hint = "fill it in, or leave the row or column out"
            raise table.wrong(cells.index(""), name, "is empty", hint)
    return label, inputs


def _splits(table: TextTable, cells: Sequence[str] | None) -> NDArray[np.int64]:
    """Return for each row its position in ``PARTS``."""
    if cells is None:
        return np.zeros(len(table.lines), np.int64)
    for row, cell in enumerate(cells):
        if cell not in SPLIT_PARTS:
            raise table.wrong(row, SPLIT, f"is `{cell}`", f"known: {', '.join(SPLIT_PARTS)}")
    if "train" not in cells:
        raise table.wrong(0, SPLIT, "never is `train`", "rows to learn from are needed too")
    return np.array([SPLIT_PARTS.index(cell) for cell in cells])


def _labels(table: TextTable, column: str, kind: str) -> tuple[NDArray[Any], list[str]]:
    """Return each row's class as a number and the names of the classes, or the numbers that are to
    be predicted and nothing.

    Raises:
        DataError: a label is missing or infinite, or they are not what ``kind`` says.
    """
    cells = table.columns[column]
    _check_present(table, column, cells)
    words = [row for row, cell in enumerate(cells) if not is_number(cell)]
    is_whole = words or not have_fractions(np.array([float(cell) for cell in cells]))
    if kind == "classify" or (kind != "regress" and is_whole):
        return _classes(table, column, cells)
    if words:
        hint = "only numbers can be predicted; leave `--task` out to tell classes apart"
        raise table.wrong(words[0], column, f"is `{cells[words[0]]}`, no number", hint)
    for row, cell in enumerate(cells):
        if abs(float(cell)) > _LARGEST:
            raise table.wrong(row, column, f"is `{cell}`", "only finite numbers of 32 bits")
    return np.array([float(cell) for cell in cells], np.float32), []


def _classes(
    table: TextTable, column: str, cells: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return each row's class as a number, and the names of the classes.

    Raises:
        DataError: all are the same, there are too many, or they are no classes but numbers to be
            predicted, or names of single rows.
    """
    labels, names = _number(cells)
    which = f"{table.path}: column `{column}`"
    other = f"call the column that holds classes `{LABEL}`, or the last one is taken"
    if column == LABEL:
        other = ""
    if len(names) < 2:
        raise DataError(
            f"{which} holds one class only, `{names[0]}`",
            hint=other or "there must be two or more to learn",
            where=str(table.path),
        )
    have_fractions = all(map(is_number, names)) and not all(float(x).is_integer() for x in names)
    is_single = np.bincount(labels)[labels] == 1
    are_many, are_single = len(names) > FEW_CLASSES, bool(2 * is_single.sum() > len(labels))
    if have_fractions and (are_many or are_single):
        raise DataError(
            f"{which} holds {len(names)} different numbers in {len(labels)} rows, from {names[0]} "
            f"to {names[-1]}: no classes",
            hint="without `--task classify` they are predicted as numbers; write words instead, if "
            "each is a class" + (other and f", or {other}"),
            where=str(table.path),
        )
    if is_single.all() and not are_many:
        raise DataError(
            f"{which}: too few rows: each of its {len(names)} labels stands in one row only",
            hint="a class needs a row to learn from and one for testing"
            + (other and f"; or {other}"),
            where=str(table.path),
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"{which} holds {len(names)} different labels in {len(labels)} rows, at most "
            f"{MAX_CLASSES} classes can be",
            hint=other or "join classes, or leave rows out",
            where=str(table.path),
        )
    if are_many and are_single:
        raise DataError(
            f"{which} holds no classes: {len(names)} different labels in {len(labels)} rows, such "
            f"as `{names[0]}` and `{names[-1]}`",
            hint="identifiers, dates and numbers to be predicted (`--task regress`) are none: "
            + (other or "a class is a label that many rows share"),
            where=str(table.path),
        )
    return labels, names


def _check_present(table: TextTable, column: str, cells: Sequence[str]) -> None:
    """Refuse missing and infinite labels, but not classes among words that are called so."""
    others = [cell for cell in cells if cell.lower() not in MISSING_WORDS]
    are_numbers = bool(others) and all(map(is_number, others))
    for row, cell in enumerate(cells):
        number = float(cell) if is_number(cell) else 0.0
        if math.isnan(number) or (are_numbers and cell.lower() in MISSING_WORDS):
            hint = "fill it in, or leave the row out; a class of that name needs another one"
            raise table.wrong(row, column, f"is `{cell}`, a missing label", hint)
        # A name of more than 300 digits is infinite as a number.
        if are_numbers and math.isinf(number) and not cell.isdigit():
            hint = "correct it, or leave the row out"
            raise table.wrong(row, column, f"is `{cell}`, an infinite label", hint)


def _features(
    table: TextTable, inputs: Sequence[str], missing: Mapping[str, Sequence[int]]
) -> tuple[NDArray[np.float32], list[str]]:
    """Return ``[rows, features]``, and the column that each feature is from.

    A column of numbers stays as it is, nan where one is missing; one of words becomes one per word.

    Args:
        inputs: columns.
        missing: column -> rows that lack a number.
    """
    columns = {name: [*table.columns[name]] for name in inputs}
    for name, rows in missing.items():
        for row in rows:
            columns[name][row] = "nan"
    words = {name: _words(table, name, cells) for name, cells in columns.items()}
    width = sum(len(categories) or 1 for categories in words.values())
    if 4 * width * len(table.lines) > MAX_BYTES:
        raise DataError(
            f"{table.path}: {len(table.lines)} rows of {width} features need more than "
            f"{MAX_BYTES // 2**30} GiB",
            hint="leave columns with many different words out",
            where=str(table.path),
        )
    features = np.empty((len(table.lines), width), np.float32)
    start = 0
    for name, cells in columns.items():
        categories = words[name]
        if categories:
            positions = np.searchsorted(categories, cells)
            features[:, start : start + len(categories)] = np.eye(
                len(categories), dtype=np.float32
            )[positions]
        else:
            features[:, start] = [float(cell) for cell in cells]
        start += len(categories) or 1
    return features, [name for name in columns for _ in words[name] or [name]]


def _words(table: TextTable, name: str, cells: Sequence[str]) -> list[str]:
    """Return the different words of a column in order, or nothing if it holds numbers."""
    are_numbers = [is_number(cell) for cell in cells]
    if all(are_numbers):
        for row, cell in enumerate(cells):
            if abs(float(cell)) > _LARGEST:
                raise table.wrong(row, name, f"is `{cell}`", "only finite numbers of 32 bits")
        return []
    if any(are_numbers):
        row = are_numbers.index(2 * sum(are_numbers) <= len(cells))
        raise table.wrong(
            row,
            name,
            f"is `{cells[row]}`, but other rows hold {'words' if are_numbers[row] else 'numbers'}",
            "correct it; if numbers are categories here, write them as words",
        )
    categories = sorted(set(cells))
    if len(categories) > MAX_WORDS:
        raise table.wrong(
            0, name, f"has more than {MAX_WORDS} different words", "leave the column out"
        )
    return categories


def _number(cells: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Return numbers 0..k-1 in the order of the names, and the names; numbers sort as such."""
    plain = list(cells)
    # Larger numbers, most likely names, could not be told apart as such.
    if all(is_number(cell) and abs(float(cell)) < _EXACT for cell in plain):
        plain = [str(float(cell)).removesuffix(".0") for cell in plain]
        names = sorted(set(plain), key=float)
    else:
        names = sorted(set(plain))
    number = {name: position for position, name in enumerate(names)}
    return np.array([number[cell] for cell in plain], np.int64), names
