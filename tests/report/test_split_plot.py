from __future__ import annotations

from pathlib import Path

import pytest
from histories import names, texts

from fpcli.errors import NeedError
from fpcli.report.split_plot import draw_split


def test_a_small_split_shows_its_numbers(tmp_path: Path) -> None:
    paths = draw_split([[31, 0, 7], [0, 12, 5]], "toys: iid", tmp_path / "split")
    assert names(paths) == ["split.png", "split.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    shown = texts(paths[1])
    for text in ("31", " 7 ", "12", " 5 ", "client", " class ", "samples", "toys: iid"):
        assert text in shown
    assert "samples of a class" not in shown


def test_a_large_split_shows_colours(tmp_path: Path) -> None:
    table = [[(7 * client + label) % 311 for label in range(25)] for client in range(40)]
    _, svg = draw_split(table, "many", tmp_path / "split")
    shown = texts(svg)
    assert "samples of a class" in shown
    assert "297" not in shown


def test_of_one_class_there_are_bars_alone(tmp_path: Path) -> None:
    shown = texts(draw_split([[31], [12]], "a", tmp_path / "split", [9])[1])
    assert "server" in shown and " samples " in shown
    assert "class" not in shown and " 31 " not in shown


def test_the_server_is_the_last_column(tmp_path: Path) -> None:
    shown = texts(draw_split([[31, 0], [0, 12]], "a", tmp_path / "split", [640, 9])[1])
    assert "server" in shown and "640" in shown
    table = [[client % 5, 2] for client in range(62)]
    shown = texts(draw_split(table, "many", tmp_path / "many", [900, 900])[1])
    assert "server" in shown and " 50 " in shown
    assert " 60 " not in shown, "it would touch the server's name"


def test_the_same_split_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in draw_split([[1, 2]], "a", tmp_path / "split")]
    assert first == [path.read_bytes() for path in draw_split([[1, 2]], "a", tmp_path / "split")]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="cannot write"):
        draw_split([[1]], "a", tmp_path / "none" / "split")
