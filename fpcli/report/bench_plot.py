"""Picture of a bench: a bar per model and size of batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fpcli.report.canvas import SERIES, draw_in_style, make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_bench(
    labels: Sequence[str], panels: Mapping[str, Sequence[tuple[float, float]]], stem: Path
) -> list[Path]:
    """Draw milliseconds of models as PNG and as SVG.

    Args:
        labels: one per model.
        panels: title -> median and 90th percentile of every model.
        stem: path without ending.

    Raises:
        NeedError: the folder cannot be written.
    """
    with draw_in_style():
        return save_figure(_figure(labels, panels), stem)


def _figure(labels: Sequence[str], panels: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    picture = make_figure(9, 0.9 + len(panels) * (0.75 + 0.28 * len(labels)))
    plots = picture.subplots(len(panels), 1, squeeze=False)[:, 0]
    colours = [SERIES[number % len(SERIES)] for number in range(len(labels))]
    for axes, (title, numbers) in zip(plots, panels.items(), strict=True):
        medians = [median for median, _ in numbers]
        beyond = [max(0.0, p90 - median) for median, p90 in numbers]
        places = range(len(labels))
        axes.barh(places, medians, color=colours, height=0.7)
        axes.errorbar(
            medians, places, xerr=[[0.0] * len(labels), beyond], fmt="none", ecolor="#333333",
            elinewidth=1, capsize=2,
        )  # fmt: skip
        for place, (median, p90) in zip(places, numbers, strict=True):
            axes.text(max(median, p90), place, f"  {median:.3g}", va="center", fontsize=8)
        axes.set_yticks(places, labels, parse_math=False)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=9.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.12 * max(p90 for _, p90 in numbers))
    plots[-1].set_xlabel("milliseconds: median, and 90th percentile as a line")
    return picture
