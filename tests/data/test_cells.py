from __future__ import annotations

from pathlib import Path

import pytest

from fpcli.data.cells import read_cells
from fpcli.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b\n1;2,x\n", {"a": ("1;2",), "b": ("x",)}),
        ("a;b\n1;x,y\n", {"a": ("1",), "b": ("x,y",)}),
        ("a\tb\n1\tx\n", {"a": ("1",), "b": ("x",)}),
        ('\ufeff\n"size, in cm;";b;c\n1;2;"3;4"\n', {"size, in cm;": ("1",), "b": ("2",),
         "c": ("3;4",)}),
        ("a;b,c\n1;2,3\n", {"a;b": ("1;2",), "c": ("3",)}),
        ("a\n1\n", {"a": ("1",)}),
    ],
)  # fmt: skip
def test_the_first_line_tells_what_separates(
    tmp_path: Path, text: str, columns: dict[str, tuple[str, ...]]
) -> None:
    assert read_cells(write(tmp_path / "t.csv", text)).columns == columns


def test_a_row_of_another_length_is_told_by_its_separator(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: 3 cells, the header has 2") as caught:
        read_cells(write(tmp_path / "t.csv", "a;b\n1;2\n1;2;3\n"))
    assert "cells with a semicolon" in caught.value.hint


@pytest.mark.parametrize("text", ["a;y\n1.5;0\n1,25;1\n", 'a,y\n1.5,0\n"1,25",1\n'])
def test_decimal_commas_are_no_words(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: column `a` is `1,25`, a number with") as caught:
        read_cells(write(tmp_path / "t.csv", text))
    assert "as `1.25`" in caught.value.hint


def test_among_words_a_comma_is_one_of_theirs(tmp_path: Path) -> None:
    table = read_cells(write(tmp_path / "t.csv", "a;y\n1,2;0\ndichlor;1\n"))
    assert table.columns["a"] == ("1,2", "dichlor")
