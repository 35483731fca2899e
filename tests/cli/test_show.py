from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from terminals import Stream

from fpcli.cli import show


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_can_be_written_and_does_not_wrap(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(encoding=encoding))
    text = show.align(("name", "size"), [("a", "1"), ("b" * 300, "22")], right=[1])
    text.encode(encoding)
    lines = text.splitlines()
    assert lines[0].split() == ["name", "size"]
    assert lines[-1].split() == ["b" * 300, "22"]
    assert len(lines[-2]) == len(lines[-1])
    assert "\x1b" not in text


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_a_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(is_terminal=True))
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = show.align(("", ""), [("picture", "runs/" + "x" * 90 + "/curves.png")])
    assert max(map(len, text.splitlines())) <= int(width)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_display(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    stream = Stream(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    display = show.Display(is_moving=True, unit="epoch")
    assert display.is_moving == is_terminal
    display.begin(0, 3)
    display.update(1, "left 2 s", "loss 0.5")
    display.line("warning: odd [bold]")
    display.end()
    text = stream.getvalue()
    assert "warning: odd [bold]" in text
    assert ("\x1b" in text) == is_terminal
    assert ("loss 0.5" in text and "epoch 1/3" in text) == is_terminal


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(is_terminal=True))
    monkeypatch.setenv("TERM", "dumb")
    assert not show.Display(is_moving=True).is_moving


@pytest.mark.parametrize(("encoding", "dot"), [("utf-8", " · "), ("ascii", " | ")])
def test_the_dot(monkeypatch: pytest.MonkeyPatch, encoding: str, dot: str) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(encoding=encoding))
    assert show.dot() == dot


HEADERS = ("name", "what it is", "mass in kg", "legs")
ROWS = [("centipede", "an animal with many legs", "0.001", "100"), ("cow", "cattle", "700", "4")]


def lines(**more: Any) -> list[str]:
    text = show.align(HEADERS, ROWS, right=(2, 3), text=(1,), **more)
    return re.sub(r"\x1b\[[\d;]*m", "", text).replace("─", "-").splitlines()


def test_where_there_is_room_nothing_happens(terminal: Callable[[int], Stream]) -> None:
    terminal(80)
    assert lines(leave=(3,))[2] == "centipede   an animal with many legs        0.001    100"
    assert lines(leave=(3,))[3] == "cow         cattle                            700      4"


def test_text_and_headers_wrap_first(terminal: Callable[[int], Stream]) -> None:
    terminal(47)
    assert [line.rstrip() for line in lines(leave=(3,))] == [
        "                                    mass",
        "name        what it is             in kg   legs",
        "-" * 47,
        "centipede   an animal with many    0.001    100",
        "            legs",
        "cow         cattle                   700      4",
    ]


def test_then_columns_leave_and_a_line_says_which(terminal: Callable[[int], Stream]) -> None:
    terminal(40)
    assert [line.split() for line in lines(leave=(3, 2))] == [
        ["mass"],
        ["name", "what", "it", "is", "in", "kg"],
        ["-" * 40],
        ["centipede", "an", "animal", "with", "many", "0.001"],
        ["legs"],
        ["cow", "cattle", "700"],
        ["left", "out:", "`legs`;", "a", "wider", "terminal,", "a"],
        ["pipe", "or", "--json", "shows", "all"],
    ]


def test_and_where_none_may_each_row_is_a_block(terminal: Callable[[int], Stream]) -> None:
    terminal(40)
    expected = [
        "centipede",
        "  what it is  an animal with many legs",
        "  mass in kg  0.001",
        "  legs        100",
        "cow",
        "  what it is  cattle",
        "  mass in kg  700",
        "  legs        4",
    ]
    assert [line.rstrip() for line in lines()] == expected


def test_a_value_without_room_stands_below_its_name(terminal: Callable[[int], Stream]) -> None:
    terminal(40)
    path = "runs/fedavg-digits-dirichlet-s0/final"
    text = show.align(("", ""), [("test loss", "0.5"), ("run folder", path), ("rounds", "3")])
    assert [line.rstrip() for line in text.splitlines()] == [
        "test loss   0.5", "run folder", f"  {path}", "rounds      3",
    ]  # fmt: skip


def test_prose_wraps_between_words(terminal: Callable[[int], Stream]) -> None:
    terminal(20)
    assert show.prose("  one-two three 96.94% of\nall " + "x" * 25) == (
        "  one-two three\n96.94% of\nall\n" + "x" * 25
    )


def test_a_narrow_bar_keeps_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    display = show.Display(is_moving=True, unit="round")
    display.begin(0, 1000)
    display.update(123, "left 12 h 03 min", "loss 0.5")
    display.end()
    assert "round  123/1000" in stream.getvalue() and "left 12 h 03 min" in stream.getvalue()
    assert "…" not in stream.getvalue()
