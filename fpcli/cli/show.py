"""Tables and progress on a terminal, and their plain form everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import StringIO
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10_000
"""Columns of an output that is no terminal, where nothing must wrap."""


def is_terminal(stream: TextIO) -> bool:
    """Tell whether cursor movements and colours make sense on a stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def can_show(stream: TextIO, text: str) -> bool:
    """Tell whether a stream's encoding has all characters of a text."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def dot() -> str:
    """Return what stands between the parts of a line on stderr."""
    return " · " if can_show(sys.stderr, "·") else " | "


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Return an aligned table for stdout, as wide as it needs to be unless a terminal is narrower.

    Args:
        headers: one per column; all empty for a table without a head.
        right: columns that are aligned to the right.
    """
    has_head = any(headers)
    grid = Table(
        box=SIMPLE_HEAD if has_head and can_show(sys.stdout, "─") else None,
        show_header=has_head,
        header_style="bold",
        show_edge=False,
        pad_edge=False,
    )
    for position, header in enumerate(headers):
        column: dict[str, Any] = {"justify": "right" if position in right else "left"}
        if position + 1 < len(headers):
            column["no_wrap"] = True
        else:
            column["overflow"] = "fold"
        grid.add_column(Text(header), **column)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    is_live = is_terminal(sys.stdout)
    console = Console(
        file=StringIO(), force_terminal=is_live, width=None if is_live else _UNLIMITED
    )
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


class Display:
    """What happens during a run, on stderr: one moving bar on a terminal, else plain lines.

    Args:
        is_moving: draw the bar where stderr is a terminal.
        unit: what is counted.
    """

    def __init__(self, *, is_moving: bool, unit: str = "round") -> None:
        is_live = is_terminal(sys.stderr)
        self._console = Console(
            file=sys.stderr, force_terminal=is_live, width=None if is_live else _UNLIMITED
        )
        self.is_moving = is_moving and is_live
        self._details = Text("", overflow="ellipsis")
        self._progress = Progress(
            TextColumn(unit + " {task.completed:>{task.fields[width]}.0f}/{task.total:.0f}"),
            BarColumn(bar_width=32),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._live: Live | None = None

    def begin(self, done: int, total: int) -> None:
        """Show the bar."""
        if self.is_moving:
            self._progress.add_task("", total=total, completed=done, left="", width=len(str(total)))
            group = Group(self._progress, self._details)
            self._live = Live(
                group, console=self._console, refresh_per_second=4, redirect_stdout=False
            )
            self._live.start()

    def update(self, done: int, left: str, details: str) -> None:
        """Move the bar."""
        for task in self._progress.task_ids:
            self._progress.update(task, completed=done, left=left)
        self._details.plain = details

    def line(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        style = "yellow" if text.startswith("warning:") else "dim" if text[:1] == " " else ""
        self._console.print(Text(text, style), soft_wrap=not self.is_moving)

    def end(self) -> None:
        """Leave the bar as it is and stop redrawing it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
