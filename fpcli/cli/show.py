"""Tables and progress on a terminal, and their plain form everywhere else."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from itertools import groupby
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from fpcli.settings.metrics import find_metric

_UNLIMITED = 10_000
"""Columns of an output that is no terminal, where nothing must wrap."""
_LEAST_TEXT = 20
"""Columns that text gets at least: narrower, it is easier read below its name."""
_GAP = 2
"""Columns between a name and its value, and before what stands below a name."""


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


def align(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    text: Sequence[int] | None = None,
    leave: Sequence[int] = (),
) -> str:
    """Return an aligned table for stdout, as wide as it needs to be unless a terminal is narrower.

    There, headers and columns of text wrap between words; then columns leave, and a line says
    which; and where that is not enough, each row becomes a block. Nothing else is ever cut.

    Args:
        headers: one per column; all empty for a table without a head.
        right: columns that are aligned to the right.
        text: columns that may wrap, by default the last one unless it is aligned to the right.
        leave: columns that may be left out, the first of them first.
    """
    console = _console(sys.stdout, StringIO())
    if text is None:
        text = [] if len(headers) - 1 in right else [len(headers) - 1]
    columns = [
        _Column(position, Text(header), [Text(row[position]) for row in rows],
                is_right=position in right, is_text=position in text)
        for position, header in enumerate(headers)
    ]  # fmt: skip
    if any(headers):
        parts = _with_head(columns, leave, console.width)
    else:
        parts = _without_head(columns, console.width)
    with console.capture() as captured:
        console.print(*parts, sep="")
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def prose(text: str) -> str:
    """Return lines for stdout, wrapped between words where a terminal is narrower."""
    width = _console(sys.stdout, StringIO()).width
    wrap = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap(line) for line in text.splitlines())


def format_briefly(name: str, value: float) -> str:
    """Return a metric for a line of many numbers.

    >>> format_briefly("accuracy", 0.9694), format_briefly("mae", 44.0173)
    ('acc 96.9%', 'mae 44.02')
    """
    short = name.replace("accuracy", "acc")
    return f"{short} {value:.1%}" if find_metric(name).is_share else f"{short} {value:.4g}"


def thin_out(columns: Sequence[int]) -> tuple[int, ...]:
    """Return in which order columns of a scale leave: first every other, so that its span stays.

    >>> thin_out([2, 3, 4, 5, 6])
    (5, 3, 6, 4, 2)
    """
    return (*columns[1::2][::-1], *columns[::2][::-1])


def _console(stream: TextIO, file: TextIO) -> Console:
    """Return what writes to a file as to a stream, with the stream's width and colours."""
    is_live = is_terminal(stream)
    return Console(file=file, force_terminal=is_live, width=None if is_live else _UNLIMITED)


@dataclass(frozen=True)
class _Column:
    position: int
    header: Text
    cells: list[Text]
    is_right: bool
    is_text: bool

    def widest(self) -> int:
        return max(text.cell_len for text in (self.header, *self.cells))

    def narrowest(self) -> int:
        """Return the width of what may not be cut."""
        words = [_longest_word(self.header)]
        words += [_longest_word(cell) if self.is_text else cell.cell_len for cell in self.cells]
        return max(min(self.widest(), _LEAST_TEXT) if self.is_text else 0, *words)


def _longest_word(text: Text) -> int:
    return max(map(cell_len, text.plain.split()), default=0)


def _with_head(columns: Sequence[_Column], leave: Sequence[int], room: int) -> list[RenderableType]:
    """Return the table, without the fewest columns that it takes, or its rows as blocks."""
    for count in range(len(leave) + 1):
        shown = [column for column in columns if column.position not in leave[:count]]
        for gap in (3, 2):
            if widths := _widths(shown, room, gap):
                grid = _grid(shown, widths, gap, range(len(columns[0].cells)))
                names = [f"`{columns[n].header.plain}`" for n in sorted(leave[:count])]
                note = f"left out: {', '.join(names)}; a wider terminal, a pipe or --json shows all"
                return [grid, Text(note, "dim")] if count else [grid]
    return [_block(columns, number, room) for number in range(len(columns[0].cells))]


def _without_head(columns: Sequence[_Column], room: int) -> list[RenderableType]:
    """Return names and values side by side, but a value below its name where it has no room."""
    *names, values = columns
    widths = [column.widest() for column in names]
    left = room - sum(widths) - _GAP * len(names)
    parts: list[RenderableType] = []

    def has_room(number: int) -> bool:
        value = values.cells[number]
        return left >= max(_longest_word(value), min(value.cell_len, _LEAST_TEXT))

    for fits, numbers in groupby(range(len(values.cells)), has_room):
        if fits:
            parts.append(_grid(columns, [*widths, min(left, values.widest())], _GAP, [*numbers]))
        else:
            parts += [_block(columns, number, room) for number in numbers]
    return parts


def _widths(columns: Sequence[_Column], room: int, gap: int) -> list[int] | None:
    """Return widths that fit, where every column gets an equal share of what is not needed."""
    widths = [column.narrowest() for column in columns]
    spare = room - gap * (len(columns) - 1) - sum(widths)
    if spare < 0:
        return None
    wishes = sorted((columns[number].widest() - width, number)
                    for number, width in enumerate(widths))  # fmt: skip
    for served, (wish, number) in enumerate(wishes):
        more = min(wish, spare // (len(wishes) - served))
        widths[number] += more
        spare -= more
    return widths


def _grid(
    columns: Sequence[_Column], widths: Sequence[int], gap: int, numbers: Sequence[int]
) -> Table:
    """Return some of the rows, in columns of given widths."""
    has_head = any(column.header for column in columns)
    box = SIMPLE_HEAD if has_head and can_show(sys.stdout, "─") else None
    grid = Table(
        box=box, show_header=has_head, header_style="bold", show_edge=False, pad_edge=False,
        padding=(0, gap - (box is not None), 0, 0),
    )  # fmt: skip
    for column, width in zip(columns, widths, strict=True):
        side: JustifyMethod = "right" if column.is_right else "left"
        grid.add_column(column.header, justify=side, vertical="top", width=width)
    for number in numbers:
        grid.add_row(*(column.cells[number] for column in columns))
    return grid


def _block(columns: Sequence[_Column], number: int, room: int) -> RenderableType:
    """Return one row as a block: its first cell, and below it the others with their headers."""
    first, *others = (replace(column, cells=[column.cells[number]]) for column in columns)
    others = [column for column in others if column.cells[0]]
    if any(column.header for column in others):
        names = [column.header for column in others]
        values = [column.cells[0] for column in others]
        pair = [_Column(0, Text(), names, False, False), _Column(1, Text(), values, False, True)]
        below = _without_head(pair, room - _GAP)
        first.cells[0].stylize("bold")
    else:
        below = [column.cells[0] for column in others]
    return Group(first.cells[0], *(Padding(part, (0, 0, 0, _GAP)) for part in below))


class Display:
    """What happens during a run, on stderr: one moving bar on a terminal, else plain lines.

    Args:
        is_moving: draw the bar where stderr is a terminal.
        unit: what it counts.
    """

    def __init__(self, *, is_moving: bool, unit: str = "round") -> None:
        self._console = _console(sys.stderr, sys.stderr)
        self.is_moving = is_moving and is_terminal(sys.stderr)
        self._details = Text("", overflow="ellipsis")
        self._progress = Progress(
            TextColumn(unit + " {task.completed:>{task.fields[width]}.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None, table_column=Column(max_width=32)),
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
