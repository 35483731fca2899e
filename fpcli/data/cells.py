"""The cells of a CSV file: separated by commas, semicolons or tabs, below a header line."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fpcli.errors import DataError
from fpcli.files import cannot_read

MAX_FILE_BYTES = 2**28
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


class TextTable(NamedTuple):
    """Cells as text: columns by name, and the line that each row ends on."""

    path: Path
    columns: dict[str, tuple[str, ...]]
    lines: list[int]

    def wrong(self, row: int, column: str, problem: str, hint: str) -> DataError:
        """Return an error that names file, line and column."""
        place = f"{self.path}:{self.lines[row]}"
        return DataError(f"{place}: column `{column}` {problem}", hint=hint, where=place)

    def take(self, rows: Sequence[int]) -> TextTable:
        """Return some of the rows."""
        columns = {name: tuple(cells[row] for row in rows) for name, cells in self.columns.items()}
        return TextTable(self.path, columns, [self.lines[row] for row in rows])


def read_cells(path: Path) -> TextTable:
    """Return the cells of a file, without blanks around them, each row as long as the header.

    What separates cells is whatever of comma, semicolon and tab stands most often in the first
    line, outside quotes.

    Raises:
        DataError: the file is missing, too large, or not a table.
    """
    if not path.is_file():
        hint = "give it as csv:PATH, or as csv:PATH,missing=mean or csv:PATH,missing=drop"
        raise DataError(f"no file {path}", hint=hint, where=str(path))
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(
            f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB",
            hint="use fewer rows, or an npz file",
            where=str(path),
        )
    rows, lines, separator = _rows(path)
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
                hint=f"put quotes around cells with a {SEPARATORS[separator]}",
                where=place,
            )
    table = TextTable(path, dict(zip(header, zip(*rows[1:], strict=True), strict=True)), lines[1:])
    for column, cells in table.columns.items():
        _refuse_decimal_commas(table, column, cells)
    return table


def _rows(path: Path) -> tuple[list[list[str]], list[int], str]:
    """Return rows, the line that each ends on, and what separates their cells."""
    rows, lines = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            plain = re.sub('"[^"]*"', "", first)
            separator = max(SEPARATORS, key=plain.count)
            file.seek(0)
            reader = csv.reader(file, strict=True, delimiter=separator)
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
    return rows, lines, separator


def _refuse_decimal_commas(table: TextTable, column: str, cells: Sequence[str]) -> None:
    """Refuse numbers that would be taken for words; among words they may be some."""
    with_comma = [row for row, cell in enumerate(cells) if _WITH_COMMA.fullmatch(cell)]
    others = set(cells) - {cells[row] for row in with_comma}
    if with_comma and all(map(is_number, others)):
        row = with_comma[0]
        raise table.wrong(
            row,
            column,
            f"is `{cells[row]}`, a number with a comma in it",
            f"write a decimal point, as `{cells[row].replace(',', '.')}`, and nothing between "
            "thousands",
        )


def _header(path: Path, header: Sequence[str]) -> Sequence[str]:
    if "" in header or len(set(header)) < len(header) or all(map(is_number, header)):
        raise DataError(
            f"{path}:1: the first line must name all columns, each differently",
            hint="for example `age,height,label`",
            where=f"{path}:1",
        )
    return header


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number in Python's sense, `nan` and `inf` included."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
