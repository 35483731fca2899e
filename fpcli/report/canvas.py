"""What every picture needs: a style, a figure without a display, and files that do not change."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fpcli.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INK = "#333333"
BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#888888"

SERIES = (
    BLUE, "#d55e00", "#009e73", "#b5588f", "#a67c00", "#2a9bd4", "#7a5195", "#6b6b6b",
)  # fmt: skip
"""Colours of series 0 to 7, which colour-blind people can tell apart."""

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NUM_STYLES = len(SERIES) * len(DASHES)
"""So many series can be told apart, on grey paper too."""

_MARKERS_OF_LINE = 7


class SeriesStyle(NamedTuple):
    """How a series is drawn: the number of its colour, and dashes and marker, of which no other of
    ``NUM_STYLES`` series has the same two."""

    colour: int
    dashes: str
    marker: str


def style_series(number: int) -> SeriesStyle:
    """Return the style of a series.

    >>> style_series(0), style_series(9)
    (SeriesStyle(colour=0, dashes='-', marker='o'), SeriesStyle(colour=1, dashes='--', marker='^'))
    """
    colour = number % len(SERIES)
    marker = MARKERS[(number + number // len(SERIES)) % len(MARKERS)]
    return SeriesStyle(colour, DASHES[number % len(DASHES)], marker)


def describe_series(number: int, num_points: int) -> dict[str, Any]:
    """Return a series' style as words of ``Axes.plot``: of many points a few have markers."""
    style = style_series(number)
    every = max(1, num_points // _MARKERS_OF_LINE)
    # Lines that lie on each other have their markers at different points.
    start = number % every if num_points > every else 0
    return {
        "color": SERIES[style.colour], "linestyle": style.dashes, "marker": style.marker,
        "markersize": 4, "markevery": (start, every),
    }  # fmt: skip


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
    "pdf.fonttype": 42,  # whole fonts, which journals ask for
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


FIGURE_METADATA: Mapping[str, Mapping[str, Any]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
"""Kind of file -> metadata that would make every drawing another file."""


def save_figure(figure: Figure, stem: Path, kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a figure as PNG and as SVG; equal figures give equal files.

    Raises:
        NeedError: the folder cannot be written.
    """
    paths = []
    for kind in kinds:
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomic(path, render_figure(figure, kind))
        paths.append(path)
    return paths


def render_figure(figure: Figure, kind: str, dpi: int = 150) -> bytes:
    """Return a figure as a file of one of ``FIGURE_METADATA``; ``dpi`` counts for PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=dict(FIGURE_METADATA[kind]))
    return buffer.getvalue()


def count_axis(axes: Axes) -> None:
    """Put whole numbers on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
