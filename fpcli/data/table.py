"""Read a table from a CSV file: a class per row, numbers and words, perhaps clients and splits."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fpcli.data.npz import MAX_BYTES
from fpcli.data.split import OWNERS, PARTS, with_test
from fpcli.errors import DataError
from fpcli.files import cannot_read

MAX_FILE_BYTES = 2**28
MAX_CLASSES = 1000
MAX_WORDS = 256
"""Different words of one column; more are names or numbers with errors, not categories."""

FEW_CLASSES = 20
"""So many labels may be fractions, or stand in one row each, and be classes all the same."""

LABEL, CLIENT, SPLIT = "label", "client", "split"
_LARGEST = float(np.finfo(np.float32).max)
_MISSING = {"null", "none", "na", "n/a", "<na>", "#n/a", "?"}
"""What stands for a missing label, in whatever case, among numbers; among words they are names."""

_EXACT = 2**53


class Table(NamedTuple):
    """Cells as text: columns by name, and the line that each row ends on."""

    path: Path
    columns: dict[str, tuple[str, ...]]
    lines: list[int]

    def wrong(self, row: int, column: str, problem: str, hint: str) -> DataError:
        """Return an error that names file, line and column."""
        place = f"{self.path}:{self.lines[row]}"
        return DataError(f"{place}: column `{column}` {problem}", hint=hint, where=place)


def read_table(path: Path) -> dict[str, Any]:
    """Return the arrays of a CSV file with a header line, separated by commas.

    The class is in the column ``label``, or else in the last one. ``client`` names the natural
    client of a row, ``split`` says ``train``, ``val`` or ``test``; without test rows a fixed fifth
    of each class is taken. All other columns are features: numbers, or words that become one
    column of 0 and 1 per word.

    Raises:
        DataError: the file is missing, too large, not a table, a cell is empty or unsuitable, or
            the labels are no classes.
    """
    table = _cells(path)
    columns = dict(table.columns)
    splits = _splits(table, columns.pop(SPLIT, None))
    clients = columns.pop(CLIENT, None)
    label = LABEL if LABEL in columns else next(reversed(columns), "")
    cells = columns.pop(label, ())
    if not columns:
        raise DataError(
            f"{path}: no column with features beside the label",
            hint="columns are separated by commas; the first line names them",
            where=str(path),
        )
    features = _features(table, columns)
    labels, class_names = _classes(table, label, cells)
    arrays: dict[str, Any] = {}
    for part in PARTS:
        rows = np.flatnonzero(splits == PARTS.index(part))
        if len(rows) or part == "train":
            arrays[f"{part}_images"] = torch.from_numpy(features[rows])
            arrays[f"{part}_labels"] = torch.from_numpy(labels[rows])
    names: dict[str, Any] = {"class_names": class_names}
    if clients is not None:
        rows = np.flatnonzero(splits == 0)
        owners, names["owner_names"] = _numbered([clients[row] for row in rows])
        arrays[OWNERS] = torch.from_numpy(owners)
    if "test_images" not in arrays:
        train = {key: value for key, value in arrays.items() if key.startswith("train_")}
        arrays |= with_test(train, "csv", str(path))
    return arrays | names


def _cells(path: Path) -> Table:
    """Return the cells of a file, each row as long as the header and no cell empty."""
    if not path.is_file():
        raise DataError(f"no file {path}", hint="give it as csv:PATH", where=str(path))
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(
            f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB",
            hint="use fewer rows, or an npz file",
            where=str(path),
        )
    rows, lines = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except csv.Error as error:
        place = f"{path}:{reader.line_num}"
        raise DataError(f"{place}: {error}", hint="mend that line", where=place) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} cannot be read: {error}", hint="write it as UTF-8", where=str(path)
        ) from error
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(rows) < 2:
        raise DataError(
            f"{path}: no rows below a header",
            hint="the first line names the columns",
            where=str(path),
        )
    header = _header(path, rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            place = f"{path}:{line}"
            raise DataError(
                f"{place}: {len(row)} cells, the header has {len(header)}",
                hint="put quotes around cells with a comma",
                where=place,
            )
    columns = dict(zip(header, zip(*rows[1:], strict=True), strict=True))
    table = Table(path, columns, lines[1:])
    for name, cells in columns.items():
        if "" in cells:
            raise table.wrong(
                cells.index(""), name, "is empty", "fill it in, or leave the row or column out"
            )
    return table


def _header(path: Path, header: Sequence[str]) -> Sequence[str]:
    if "" in header or len(set(header)) < len(header) or all(map(_is_number, header)):
        raise DataError(
            f"{path}:1: the first line must name all columns, each differently",
            hint="for example `age,height,label`",
            where=f"{path}:1",
        )
    return header


def _splits(table: Table, cells: Sequence[str] | None) -> NDArray[np.int64]:
    """Return for each row its position in ``PARTS``."""
    if cells is None:
        return np.zeros(len(table.lines), np.int64)
    for row, cell in enumerate(cells):
        if cell not in PARTS:
            raise table.wrong(row, SPLIT, f"is `{cell}`", f"known: {', '.join(PARTS)}")
    if "train" not in cells:
        raise table.wrong(0, SPLIT, "never is `train`", "rows to learn from are needed too")
    return np.array([PARTS.index(cell) for cell in cells])


def _classes(
    table: Table, column: str, cells: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return each row's class as a number, and the names of the classes.

    Raises:
        DataError: a label is missing or infinite, all are the same, there are too many, or they are
            no classes but numbers to be predicted, or names of single rows.
    """
    _check_present(table, column, cells)
    labels, names = _numbered(cells)
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
    have_fractions = all(map(_is_number, names)) and not all(float(x).is_integer() for x in names)
    is_single = np.bincount(labels)[labels] == 1
    are_many, are_single = len(names) > FEW_CLASSES, bool(2 * is_single.sum() > len(labels))
    if have_fractions and (are_many or are_single):
        raise DataError(
            f"{which} looks like regression: {len(names)} different numbers in {len(labels)} rows, "
            f"from {names[0]} to {names[-1]}",
            hint="what is learnt are classes: write ranges such as `low` and `high` instead of the "
            "numbers (or words, if each is a class)" + (other and f", or {other}"),
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
            hint="identifiers, dates and numbers to be predicted are none: "
            + (other or "a class is a label that many rows share"),
            where=str(table.path),
        )
    return labels, names


def _check_present(table: Table, column: str, cells: Sequence[str]) -> None:
    """Refuse missing and infinite labels, but not classes among words that are called so."""
    others = [cell for cell in cells if cell.lower() not in _MISSING]
    are_numbers = bool(others) and all(map(_is_number, others))
    for row, cell in enumerate(cells):
        number = float(cell) if _is_number(cell) else 0.0
        if math.isnan(number) or (are_numbers and cell.lower() in _MISSING):
            hint = "fill it in, or leave the row out; a class of that name needs another one"
            raise table.wrong(row, column, f"is `{cell}`, a missing label", hint)
        # A name of more than 300 digits is infinite as a number.
        if are_numbers and math.isinf(number) and not cell.isdigit():
            hint = "correct it, or leave the row out"
            raise table.wrong(row, column, f"is `{cell}`, an infinite label", hint)


def _features(table: Table, columns: dict[str, tuple[str, ...]]) -> NDArray[np.float32]:
    """Return ``[rows, features]``: a column of numbers as it is, of words one per word."""
    words = {name: _words(table, name, cells) for name, cells in columns.items()}
    width = sum(len(known) or 1 for known in words.values())
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
        known = words[name]
        if known:
            found = np.searchsorted(known, cells)
            features[:, start : start + len(known)] = np.eye(len(known), dtype=np.float32)[found]
        else:
            features[:, start] = [float(cell) for cell in cells]
        start += len(known) or 1
    return features


def _words(table: Table, name: str, cells: Sequence[str]) -> list[str]:
    """Return the different words of a column in order, or nothing if it holds numbers."""
    are_numbers = [_is_number(cell) for cell in cells]
    if all(are_numbers):
        for row, cell in enumerate(cells):
            if not abs(float(cell)) <= _LARGEST:
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
    known = sorted(set(cells))
    if len(known) > MAX_WORDS:
        raise table.wrong(
            0, name, f"has more than {MAX_WORDS} different words", "leave the column out"
        )
    return known


def _numbered(cells: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Return numbers 0..k-1 in the order of the names, and the names; numbers sort as such."""
    plain = list(cells)
    # Larger numbers, most likely names, could not be told apart as such.
    if all(_is_number(cell) and abs(float(cell)) < _EXACT for cell in plain):
        plain = [str(float(cell)).removesuffix(".0") for cell in plain]
        names = sorted(set(plain), key=float)
    else:
        names = sorted(set(plain))
    number = {name: position for position, name in enumerate(names)}
    return np.array([number[cell] for cell in plain], np.int64), names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
