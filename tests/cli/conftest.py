from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from terminals import Stream

from fpcli.cli.app import run_line

CODE = "from fpcli.cli.app import main; main()"


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FP_DATA_DIR", "FP_NO_PROGRESS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fp(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        status = run_line([str(argument) for argument in arguments])
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def spawn() -> Callable[..., subprocess.Popen[str]]:
    """Start a command line in a process of its own."""

    def start(*arguments: str | Path, **more: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CODE, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **(pipes | more))  # type: ignore[call-overload]

    return start


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Stream]:
    """Make stdout a terminal of some width."""
    monkeypatch.setenv("TERM", "xterm")

    def of(width: int) -> Stream:
        monkeypatch.setenv("COLUMNS", str(width))
        stream = Stream(is_terminal=True)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return of
