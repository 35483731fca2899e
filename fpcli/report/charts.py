"""Line charts as SVG inside a page: text stays text, and colours are the page's own.

No text of a run is ever drawn here (names stand in the page's legends), so that whatever a run is
called cannot reach matplotlib's markup.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fpcli.report.canvas import INK, SERIES, count_axis, describe_series, draw_in_style, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VARIABLES = {
    INK: "--ink", "#888888": "--muted", "#666666": "--muted", "#e6e6e6": "--grid",
    **{colour: f"--s{number}" for number, colour in enumerate(SERIES)},
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "lines.solid_capstyle": "round",
}
_UNITS = {
    "bytes": (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)),
    "seconds": (("s", 1.0), ("min", 60.0), ("h", 3600.0)),
    "amount": (("", 1.0), ("thousands", 1e3), ("millions", 1e6), ("billions", 1e9)),
}
_MOST_POINTS = 150
_CUTS = tuple(
    (re.compile(pattern, re.DOTALL), instead)
    for pattern, instead in (
        (r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", ""),
        (r'(?<=<svg)([^>]*?) width="[^"]*" height="[^"]*"', r"\1"),
        (r'<g id="[^"]*"', "<g"),
        (r"font: (?:[a-z]+ )*([\d.]+px) [^;\"]*", r"font-size: \1"),
        (r"font-family: [^;\"]*; ", ""),
        (r' transform="rotate\(-0 [^"]*"', ""),
        (r"(\d\.\d\d)\d+", r"\1"),
        (r"\s*\n\s*", "\n"),
    )
)
"""What is left out of a chart's text, since the page says it once or nobody needs it."""


class Line(NamedTuple):
    """One curve.

    Attributes:
        label: what a legend says.
        number: of the series; decides its style, see ``canvas.style_series``.
        points: (x, y) in order.
        band: (x, lowest, highest), or nothing.
    """

    label: str
    number: int
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


class ChartAxis(NamedTuple):
    """What an axis shows.

    Attributes:
        kind: ``count``, ``percent`` (of fractions), ``bytes``, ``seconds``, ``amount`` (of things)
            or ``number``.
        low, high: its ends; None fits them to the lines.
    """

    title: str
    kind: str = "number"
    low: float | None = None
    high: float | None = None


def draw_chart(lines: Sequence[Line], x: ChartAxis, y: ChartAxis, *, name: str, about: str) -> str:
    """Return an SVG element.

    Args:
        name: unique in the page; starts every id.
        about: what the chart shows, for those who cannot see it.
    """
    import matplotlib as mpl

    with draw_in_style(), mpl.rc_context(_STYLE):
        picture = make_figure(5.2, 3.1)
        draw_lines(picture.subplots(), lines, x, y)
        buffer = io.StringIO()
        picture.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, about)


def draw_lines(axes: Axes, lines: Sequence[Line], x: ChartAxis, y: ChartAxis) -> None:
    """Draw lines with their bands, labels for a legend, and both axes in fitting units."""
    (x_unit, x_factor), (y_unit, y_factor) = _unit(x, lines, 0), _unit(y, lines, 1)
    for line in lines:
        style = describe_series(line.number, len(_thin(line.points)))
        if line.band:
            band = [(a / x_factor, b / y_factor, c / y_factor) for a, b, c in _thin(line.band)]
            xs, low, high = zip(*band, strict=True)
            if len(band) == 1:
                axes.vlines(xs, low, high, color=style["color"], linewidth=1)
            axes.fill_between(xs, low, high, color=style["color"], alpha=0.16, linewidth=0)
        points = [(a / x_factor, b / y_factor) for a, b in _thin(line.points)]
        if points:
            if len(points) == 1:
                style["linestyle"] = ""
            axes.plot(*zip(*points, strict=True), label=line.label, **style)
    axes.set_xlabel(x.title + x_unit)
    axes.set_ylabel(y.title + y_unit)
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low and y.low / y_factor, y.high and y.high / y_factor)
    if y.low == 0:
        axes.set_ylim(bottom=0)
    if x.kind == "count":
        count_axis(axes)


def _unit(axis: ChartAxis, lines: Sequence[Line], position: int) -> tuple[str, float]:
    """Return how the unit is written, and how much of it is one on the axis."""
    if axis.kind == "percent":
        return " (%)", 0.01
    if axis.kind not in _UNITS:
        return "", 1.0
    highest = max((point[position] for line in lines for point in line.points), default=0.0)
    units = _UNITS[axis.kind]
    unit, factor = next((item for item in reversed(units) if highest >= item[1]), units[0])
    return f" ({unit})" * bool(unit), factor


def _thin(points: Sequence[Any]) -> Sequence[Any]:
    """Return at most ``_MOST_POINTS`` of many points, the first and the last among them."""
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    if step <= 1:
        return points
    return [points[round(number * step)] for number in range(_MOST_POINTS)]


def _inline(svg: str, name: str, about: str) -> str:
    """Make a document into an element: no head, ids of its own, the page's fonts and colours."""
    svg = svg[svg.index("<svg") :]
    for pattern, instead in _CUTS:
        svg = pattern.sub(instead, svg)
    svg = re.sub(r'id="|(?<=url\()#|(?<=href=")#', lambda match: f"{match[0]}{name}-", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", _variable, svg)
    head = f'<svg role="img" aria-label="{html.escape(about)}"'
    return head + svg.removeprefix("<svg").rstrip()


def _variable(match: re.Match[str]) -> str:
    return f"var({_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0]
