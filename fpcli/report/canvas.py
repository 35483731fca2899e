"""What every picture needs: a style, a figure without a display, and files that do not change."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpcli.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INK = "#333333"
BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#888888"
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "text.color": INK,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    # Without a fixed salt and date every drawing of the same run would be another file.
    "svg.hashsalt": "fpcli",
}


@contextmanager
def draw_in_style() -> Iterator[None]:
    """Draw in our style while the context lasts."""
    # Importing matplotlib takes longer than most commands; nothing but drawing needs it.
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


_KINDS: Mapping[str, Mapping[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
"""Kind of file -> metadata that would make every drawing another file."""


def save_figure(figure: Figure, stem: Path, kinds: Sequence[str] = tuple(_KINDS)) -> list[Path]:
    """Write a figure as PNG and as SVG; equal figures give equal files.

    Raises:
        NeedError: the folder cannot be written.
    """
    paths = []
    for kind in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=dict(_KINDS[kind]))
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomic(path, buffer.getvalue())
        paths.append(path)
    return paths


def count_axis(axes: Axes) -> None:
    """Put whole numbers on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
