"""Picture of a split: how many samples of each class each client has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fpcli.report.canvas import BLUE, INK, draw_in_style, make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW = 20
"""Of more clients or classes the numbers would not be readable; there colours must do."""


def draw_split(
    table: Sequence[Sequence[int]], title: str, stem: Path, server: Sequence[int] | None = None
) -> list[Path]:
    """Draw a table of clients by classes as PNG and as SVG; of one class, as bars alone.

    Args:
        table: number of samples, ``[clients][classes]``.
        stem: path without ending.
        server: number of samples that the server has, ``[classes]``; they stand last, and more than
            any client has of a class looks like as many.

    Raises:
        NeedError: the folder cannot be written.
    """
    with draw_in_style():
        rows = [*table, server] if server is not None else table
        return save_figure(_split_figure(np.array(rows).T, len(table), title), stem)


def _split_figure(counts: NDArray[np.int64], num_clients: int, title: str) -> Figure:
    """Draw ``[classes, clients]``, or with a column more for the server."""
    num_classes, num_columns = counts.shape
    width, height = min(2.5 + 0.45 * num_columns, 14), min(1 + 0.3 * num_classes, 8)
    picture = make_figure(max(width, 6), height + 1.6)
    if num_classes == 1:
        bars = lowest = picture.subplots()
    else:
        bars, lowest = picture.subplots(2, 1, sharex=True, height_ratios=(1.2, height))
        _draw_cells(lowest, counts, num_clients)
    bars.bar(np.arange(num_columns), counts.sum(0), width=0.8, color=BLUE)
    bars.set_ylabel("samples")
    bars.grid(axis="x", visible=False)
    if num_columns <= _FEW:
        lowest.set_xticks(range(num_columns))
    if num_columns > num_clients:
        # The ticks beside it give way where they would touch its name.
        nearest = num_clients - num_columns / 25
        ticks = [tick for tick in lowest.get_xticks() if 0 <= tick <= nearest]
        lowest.set_xticks([*ticks, num_clients], [*(f"{tick:g}" for tick in ticks), "server"])
    lowest.set_xlabel("client")
    picture.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return picture


def _draw_cells(cells: Axes, counts: NDArray[np.int64], num_clients: int) -> None:
    num_classes, num_columns = counts.shape
    most = counts[:, :num_clients].max()
    image = cells.imshow(
        np.ma.masked_equal(counts, 0),
        cmap="Blues",
        vmin=0,
        vmax=most,
        aspect="auto",
        interpolation="nearest",
    )
    cells.grid(visible=False)
    if num_columns <= _FEW and num_classes <= _FEW:
        _write_numbers(cells, counts, most)
    else:
        extend = "max" if counts.max() > most else "neither"
        label = "samples of a class"
        cells.figure.colorbar(image, ax=cells, label=label, pad=0.01, extend=extend)
    if num_classes <= _FEW:
        cells.set_yticks(range(num_classes))
    cells.set_ylabel("class")


def _write_numbers(axes: Axes, counts: NDArray[np.int64], most: int) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if count > 0.6 * most else INK
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7.5)
