"""Figures for papers: a small picture of runs, with bands over seeds that the legend explains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fpcli.errors import DataError
from fpcli.report.canvas import NUM_STYLES, draw_in_style, make_figure, render_figure
from fpcli.report.charts import ChartAxis, Line, draw_lines
from fpcli.report.compare import ComparedRow
from fpcli.report.curves import BANDS, find_quantity, find_x_axis, group_by_data, trace_row
from fpcli.report.size_curves import SIZE_AXES, trace_sizes
from fpcli.settings.options import PlotChoice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_INCHES = (3.3, 2.4)
"""Size of a panel that fits one column of most journals."""

_DPI = 300
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 6.5,
    "lines.linewidth": 1.3,
    "axes.linewidth": 0.6,
    # A run may be called anything.
    "text.parse_math": False,
}


def plot_rows(
    rows: Sequence[ComparedRow], choice: PlotChoice, kind: str, inches: tuple[float, float] | None
) -> tuple[bytes, list[str]]:
    """Draw runs as a file of one of ``canvas.FIGURE_METADATA``, with a panel for each data set.

    Args:
        choice: with the names of measures as ``curves.find_quantity`` and ``SIZE_AXES`` have them.
        inches: width and height of all panels together; None for the usual size of each.

    Returns:
        The file, and what of the rows is not in it.

    Raises:
        DataError: no run has what is to be drawn.
    """
    import matplotlib as mpl

    quantity = find_quantity(choice.y)
    panels = {data: _trace(of_data, choice) for data, of_data in group_by_data(rows).items()}
    drawn = {data: lines[:NUM_STYLES] for data, lines in panels.items() if lines}
    if not drawn or quantity is None:
        raise DataError(
            f"nothing to draw: no run has {choice.y} over {choice.x}",
            hint="`fp compare RUN...` shows what they have",
            where="--y",
        )
    width, height = inches or (PAPER_INCHES[0] * len(drawn), PAPER_INCHES[1])
    with draw_in_style(), mpl.rc_context(_STYLE):
        picture = make_figure(width, height)
        places = picture.subplots(1, len(drawn), squeeze=False)[0]
        for axes, (data, lines) in zip(places, drawn.items(), strict=True):
            of_data = group_by_data(rows)[data]
            draw_lines(axes, lines, _find_axis(of_data, choice), quantity.axis)
            title = _describe_band(of_data, lines, choice.band)
            if title or len(lines) > 1 or len(drawn) > 1:
                _write_legend(axes, title)
            if len(panels) > 1:
                axes.set_title(data, loc="left", fontsize=8, fontweight="bold")
        file = render_figure(picture, kind, _DPI)
    return file, [*_list_missing(rows, drawn, choice)]


def _trace(rows: Sequence[ComparedRow], choice: PlotChoice) -> list[Line]:
    band = choice.band
    if choice.x in SIZE_AXES:
        return trace_sizes(_rename(rows), choice.x, choice.y, band)
    lines = [trace_row(row, n, choice.x, choice.y, band) for n, row in enumerate(_rename(rows))]
    return [line for line in lines if line.points]


def _rename(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Return rows by the names of their methods, where no two have the same."""
    methods = Counter(row.runs[0].method for row in rows)
    return [
        replace(row, label=method) if methods[method := row.runs[0].method] == 1 else row
        for row in rows
    ]


def _find_axis(rows: Sequence[ComparedRow], choice: PlotChoice) -> ChartAxis:
    if choice.x in SIZE_AXES:
        return SIZE_AXES[choice.x]
    return find_x_axis(rows, choice.x)


def _describe_band(rows: Sequence[ComparedRow], lines: Sequence[Line], band: str) -> str:
    """Return what a legend says of means and bands, "" where every line is one run's."""
    if not any(line.band for line in lines):
        return ""
    counts = sorted({len(row.runs) for row in rows})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"mean of {seeds} seeds; band: {BANDS[band]}"


def _write_legend(axes: Axes, title: str) -> None:
    axes.legend(
        loc="best", title=title, alignment="left", handlelength=2.6, borderaxespad=0.2,
        labelspacing=0.3,
    )  # fmt: skip


def _list_missing(
    rows: Sequence[ComparedRow], drawn: dict[str, list[Line]], choice: PlotChoice
) -> Iterator[str]:
    for data, of_data in group_by_data(rows).items():
        labels = {line.label for line in drawn.get(data, ())}
        for row, renamed in zip(of_data, _rename(of_data), strict=True):
            is_point = choice.x in SIZE_AXES and row.runs[0].command == "prune"
            if renamed.label not in labels and not is_point:
                yield f"{row.label} is not drawn: it has no {choice.y} over {choice.x}"
