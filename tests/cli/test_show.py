from __future__ import annotations

import io
import sys

import pytest

from fpcli.cli import show


class Stream(io.StringIO):
    def __init__(self, *, is_terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._is_terminal, self._encoding = is_terminal, encoding

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def encoding(self) -> str:
        return self._encoding


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_can_be_written_and_does_not_wrap(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(sys, "stdout", Stream(encoding=encoding))
    text = show.table(("name", "size"), [("a", "1"), ("b" * 300, "22")], right=[1])
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
    text = show.table(("", ""), [("picture", "runs/" + "x" * 90 + "/curves.png")])
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
