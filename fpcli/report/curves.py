"""What a page's charts show: accuracy and loss of rows, and what single runs noted by the way."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fpcli.report.charts import ChartAxis, Line
from fpcli.report.client_plots import collect_overlaps
from fpcli.report.compare import ComparedRow
from fpcli.report.measures import average_seeds, measure_effort
from fpcli.report.plots import collect_ratios, group_by_speed, measure_speeds, name_clients
from fpcli.report.runs import Event, Run

ACCURACY = ChartAxis("test accuracy", "percent", 0, 1.02)


class Quantity(NamedTuple):
    """What an axis can show of the rounds of runs: its axis, and a number of a run's round."""

    axis: ChartAxis
    read: Callable[[Run, Event], float | None]


def _read_effort(name: str, run: Run, event: Event) -> float | None:
    return measure_effort(run, event)[name]


def _read_score(split: str, key: str, run: Run, event: Event) -> float | None:
    return (event.get(split) or {}).get(key)


def _read_loss(run: Run, event: Event) -> float | None:
    return event.get("loss")


EFFORT_AXES = {
    "rounds": ChartAxis("round", "count", 0),
    "bytes": ChartAxis("traffic", "bytes", 0),
    "clock_s": ChartAxis("simulated time", "seconds", 0),
    "real_s": ChartAxis("real time", "seconds", 0),
}
_ON_CLASSES = ChartAxis("mean accuracy", "percent", 0, 1.02)
QUANTITIES: Mapping[str, Quantity] = {
    "accuracy": Quantity(ACCURACY, partial(_read_score, "test", "accuracy")),
    "validation_accuracy": Quantity(
        ACCURACY._replace(title="validation accuracy"),
        partial(_read_score, "validation", "accuracy"),
    ),
    "loss": Quantity(ChartAxis("test loss"), partial(_read_score, "test", "loss")),
    "training_loss": Quantity(ChartAxis("training loss"), _read_loss),
    "clients_accuracy": Quantity(_ON_CLASSES, partial(_read_score, "clients_accuracy", "mean")),
    "local_accuracy": Quantity(
        _ON_CLASSES._replace(title="mean local accuracy"),
        partial(_read_score, "local_accuracy", "mean"),
    ),
    "withheld_accuracy": Quantity(
        ACCURACY._replace(title="accuracy on withheld classes"),
        partial(_read_score, "withheld", "accuracy"),
    ),
    **{name: Quantity(axis, partial(_read_effort, name)) for name, axis in EFFORT_AXES.items()},
}
"""Measure of a round -> how it is read and drawn."""

BANDS = {"range": "lowest to highest", "interval": "95 % interval of the mean"}
_MOST_LAYERS = 24


class Chart(NamedTuple):
    """Lines with their axes, and a line of text below."""

    title: str
    lines: Sequence[Line]
    x: ChartAxis
    y: ChartAxis
    note: str = ""


def group_by_data(rows: Sequence[ComparedRow]) -> dict[str, list[ComparedRow]]:
    """Return data set -> its rows: accuracies on different data have no axis in common."""
    groups: dict[str, list[ComparedRow]] = {}
    for row in rows:
        groups.setdefault(row.runs[0].data, []).append(row)
    return groups


def draw_rows(rows: Sequence[ComparedRow]) -> Iterator[Chart]:
    """Yield the charts that set all rows side by side; a single row shows more of itself."""
    is_single = len(rows) == 1
    for name in EFFORT_AXES:
        axis = find_x_axis(rows, name)
        if is_single:
            lines = [
                trace_row(rows[0], 0, name, "accuracy")._replace(label="test"),
                trace_row(rows[0], 1, name, "validation_accuracy")._replace(label="validation"),
            ]
            y = ACCURACY._replace(title="accuracy")
            yield Chart(f"Accuracy by {axis.title}", lines, axis, y)
        else:
            yield _side_by_side(rows, f"Test accuracy by {axis.title}", name, "accuracy")
    if is_single:
        testing = trace_row(rows[0], 0, "rounds", "loss")._replace(label="test")
        training = trace_row(rows[0], 2, "rounds", "training_loss")._replace(label="training")
        yield Chart("Loss", [testing, training], find_x_axis(rows, "rounds"), ChartAxis("loss"))
    else:
        yield _side_by_side(rows, "Training loss", "rounds", "training_loss")
        yield _side_by_side(rows, "Test loss", "rounds", "loss")
    yield from _of_clients(rows)
    withheld = _side_by_side(rows, "Accuracy on withheld classes", "rounds", "withheld_accuracy")
    if any(line.points for line in withheld.lines):
        yield withheld._replace(note="test samples of the classes that nobody trains on")


def find_x_axis(rows: Sequence[ComparedRow], name: str) -> ChartAxis:
    """Return the axis of an effort; plain training has epochs."""
    commands = {run.command for row in rows for run in row.runs}
    axis = EFFORT_AXES[name]
    if name != "rounds" or "fit" not in commands:
        return axis
    return axis._replace(title="round or epoch" if "train" in commands else "epoch")


def _side_by_side(rows: Sequence[ComparedRow], title: str, x: str, y: str) -> Chart:
    lines = [trace_row(row, number, x, y) for number, row in enumerate(rows)]
    return Chart(title, lines, find_x_axis(rows, x), QUANTITIES[y].axis)


def _of_clients(rows: Sequence[ComparedRow]) -> Iterator[Chart]:
    """Yield what clients reach on their own classes, with all logits and with their own ones."""
    personal = _side_by_side(rows, "Accuracy of the clients", "rounds", "clients_accuracy")
    local = _side_by_side(rows, "Local accuracy", "rounds", "local_accuracy")
    note = "each client's model on the test samples of its own classes"
    masked = "the logits of its other classes set to 0"
    if len(rows) == 1:
        lines = [
            personal.lines[0]._replace(label="mean of the clients", number=3),
            local.lines[0]._replace(label="local", number=4),
        ]
        personal = personal._replace(lines=lines, note=f"{note}; local: with {masked}")
        local = local._replace(lines=[])
    else:
        personal = personal._replace(note=note)
        local = local._replace(note=f"{note}, with {masked}")
    yield from (chart for chart in (personal, local) if any(x.points for x in chart.lines))


def trace_row(row: ComparedRow, number: int, x: str, y: str, band: str = "range") -> Line:
    """Return the means over a row's runs of two of ``QUANTITIES``, round by round.

    Rounds that some run lacks are left out, since a mean of fewer runs would jump; and a pruning,
    which has its end only, has no line.

    Args:
        number: of the series.
        band: one of ``BANDS``, drawn where there are several runs.
    """
    find_x, find_y = QUANTITIES[x].read, QUANTITIES[y].read
    traces: list[dict[int, tuple[float, float]]] = []
    for run in row.runs:
        pairs = {e["round"]: (find_x(run, e), find_y(run, e)) for e in run.rounds}
        finite = {key: (a, b) for key, (a, b) in pairs.items() if a is not None and b is not None}
        traces.append(finite if run.command != "prune" else {})
    shared = [key for key in traces[0] if all(key in points for points in traces)]
    means, bands = [], []
    for key in shared:
        at = statistics.fmean(points[key][0] for points in traces)
        values = [points[key][1] for points in traces]
        means.append((at, statistics.fmean(values)))
        bands.append((at, *find_band_ends(values, band)))
    return Line(row.label, number, means, bands if len(traces) > 1 else ())


def find_band_ends(values: Sequence[float], band: str) -> tuple[float, float]:
    """Return the ends of one of ``BANDS``.

    >>> find_band_ends([0.9, 0.8], "range")
    (0.8, 0.9)
    >>> low, high = find_band_ends([0.90, 0.92, 0.94], "interval")
    >>> round(low, 4), round(high, 4)  # 4.3027 * 0.02 / sqrt(3) = 0.0497
    (0.8703, 0.9697)
    """
    mean, half_width, _ = average_seeds(values)
    if band == "range" or mean is None or half_width is None:
        return min(values), max(values)
    return mean - half_width, mean + half_width


def draw_run_charts(run: Run) -> Iterator[Chart]:
    """Yield the charts that only some methods have material for."""
    if ratios := _ratios(run):
        note = "mean and range of clients whose devices are about equally fast"
        yield Chart(
            "Pruning ratio per client", ratios, EFFORT_AXES["rounds"],
            ChartAxis("share of channels left out", "percent", 0, 1), note,
        )  # fmt: skip
    if densities := _densities(run):
        yield Chart(
            "Density per layer", densities, EFFORT_AXES["rounds"],
            ChartAxis("weights alive", "percent", 0, 1.02),
        )  # fmt: skip
    if any(c["pruning_error"] > 0 for e in run.rounds for c in e["clients"]):
        yield from _coverage(run)
    if overlaps := collect_overlaps(run.rounds):
        named = enumerate(overlaps.items())
        lines = [Line(label, number, points) for number, (label, points) in named]
        yield Chart(
            "Overlap of the clients' masks", lines, EFFORT_AXES["rounds"],
            ChartAxis("shared weights, mean of pairs", "percent", 0, 1.02),
        )  # fmt: skip


def _ratios(run: Run) -> list[Line]:
    ratios, speeds = collect_ratios(run.rounds), measure_speeds(run.rounds)
    lines = []
    for number, kind in enumerate(group_by_speed(list(ratios), speeds)):
        rounds: dict[int, list[float]] = {}
        for client in kind:
            for round, ratio in ratios[client]:
                rounds.setdefault(round, []).append(ratio)
        ordered = sorted(rounds.items())
        speed = statistics.median(speeds.get(client, 1.0) for client in kind)
        lines.append(
            Line(
                f"{name_clients(kind)}, speed {speed:.2g}",
                number,
                [(round, statistics.fmean(values)) for round, values in ordered],
                [(round, min(values), max(values)) for round, values in ordered],
            )
        )
    return lines


def _densities(run: Run) -> list[Line]:
    dense = [e for e in run.rounds if isinstance(e["notes"].get("density"), Mapping)]
    layers = list(dense[-1]["notes"]["density"])[:_MOST_LAYERS] if dense else []
    return [
        Line(
            layer,
            number,
            [(e["round"], e["notes"]["density"][layer]) for e in dense
             if layer in e["notes"]["density"]],
        )
        for number, layer in enumerate(layers)
    ]  # fmt: skip


def _coverage(run: Run) -> Iterator[Chart]:
    used = [(e["round"], len(e["clients"])) for e in run.rounds]
    lowest = [(e["round"], e["coverage"]) for e in run.rounds]
    yield Chart(
        "Clients that hold the least covered parameter",
        [Line("coverage", 0, lowest), Line("clients used", 7, used)],
        EFFORT_AXES["rounds"], ChartAxis("clients", "number", 0),
    )  # fmt: skip
    sizes = [[c["params"] for c in e["clients"]] for e in run.rounds]
    whole = max([e["params"] for e in run.rounds] + [size for group in sizes for size in group])
    pairs = [(e["round"], group) for e, group in zip(run.rounds, sizes, strict=True) if group]
    yield Chart(
        "Size of the clients' models",
        [Line(
            "mean, and smallest to largest", 0,
            [(number, statistics.fmean(group) / whole) for number, group in pairs],
            [(number, min(group) / whole, max(group) / whole) for number, group in pairs],
        )],
        EFFORT_AXES["rounds"], ChartAxis("parameters kept", "percent", 0, 1.02),
    )  # fmt: skip
