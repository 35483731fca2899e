"""What smaller models are still worth: the results of `fp prune` over their sizes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fpcli.report.charts import ChartAxis, Line
from fpcli.report.compare import ComparedRow, list_primaries
from fpcli.report.curves import Chart, find_band_ends, find_quantity
from fpcli.report.runs import Event, Run

SIZE_AXES = {
    "macs": ChartAxis("multiply-adds", "amount", 0),
    "params": ChartAxis("parameters", "amount", 0),
}


def chart_sizes(rows: Sequence[ComparedRow]) -> Iterator[Chart]:
    """Yield the charts that need results of `fp prune`; of other rows they show the last model."""
    for primary in list_primaries(rows)[:1]:
        quantity = find_quantity(primary)
        for name, axis in SIZE_AXES.items():
            if quantity and (lines := trace_sizes(rows, name, primary)):
                title = f"{quantity.axis.title} by {axis.title}".removeprefix("test ")
                yield Chart(f"Test {title}", lines, axis, quantity.axis)


def trace_sizes(rows: Sequence[ComparedRow], x: str, y: str, band: str = "range") -> list[Line]:
    """Return a line for each way of pruning, from the model before it to the smallest, and a point
    for each other row; nothing where nothing was pruned.

    Args:
        x: one of ``SIZE_AXES``.
        y: a metric or `loss` on test data.
        band: one of ``curves.BANDS``.
    """
    ways: dict[str, list[ComparedRow]] = {}
    others = []
    for row in rows:
        if row.runs[0].command == "prune":
            way = json.dumps(_describe_way(row.runs[0]), sort_keys=True, default=str)
            ways.setdefault(way, []).append(row)
        else:
            others.append(row)
    if not ways:
        return []
    lines: list[Line] = []
    labels = _name_ways([_describe_way(members[0].runs[0]) for members in ways.values()])
    for label, members in zip(labels, ways.values(), strict=True):
        most = max(members, key=lambda row: len(row.runs)).runs
        before = [_locate([run.before for run in most if run.before], x, y, band)]
        after = [_locate([run.rounds[-1] for run in row.runs], x, y, band) for row in members]
        lines.append(_join(label, len(lines), [*before, *after]))
    for row in others:
        judged = [run.judged[-1] for run in row.runs if run.judged]
        lines.append(_join(row.label, len(lines), [_locate(judged, x, y, band)]))
    return [line for line in lines if line.points]


def _describe_way(run: Run) -> Mapping[str, Any]:
    """Return how a model was pruned, but not how much."""
    return {k: v for k, v in run.important.items() if not k.startswith("prune.")}


def _name_ways(ways: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the method of each, and of the settings that differ between ways its own."""
    keys = dict.fromkeys(key for way in ways for key in way)
    varied = [key for key in keys if any(way.get(key) != ways[0].get(key) for way in ways)]
    return [
        ", ".join([
            str(way["method.name"]),
            *(f"{key}={way[key]}" for key in varied if key in way and key != "method.name"),
        ])
        for way in ways
    ]  # fmt: skip


def _locate(
    events: Sequence[Event], x: str, y: str, band: str
) -> tuple[float, float, float, float] | None:
    """Return the place of models that differ in their seed only: x, mean, and both ends of the
    band; None where one was not judged."""
    values = [(event.get("test") or {}).get(y) for event in events]
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    at = statistics.fmean(event[x] for event in events)
    return (at, statistics.fmean(numbers), *find_band_ends(numbers, band))


def _join(
    label: str, number: int, places: Sequence[tuple[float, float, float, float] | None]
) -> Line:
    ordered = sorted(place for place in places if place)
    points = [(at, mean) for at, mean, _, _ in ordered]
    band = [(at, low, high) for at, _, low, high in ordered]
    has_band = any(low < high for _, low, high in band)
    return Line(label, number, points, band if has_band else ())
