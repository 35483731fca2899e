"""What a page's charts show: metrics and loss of rows, and what single runs noted by the way."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fpcli.report.charts import ChartAxis, Line
from fpcli.report.client_plots import average_clients, collect_overlaps
from fpcli.report.compare import ComparedRow, list_primaries, list_shown
from fpcli.report.measures import average_seeds, measure_effort
from fpcli.report.plots import collect_ratios, group_by_speed, measure_speeds, name_clients
from fpcli.report.runs import Event, Run
from fpcli.settings.metrics import CLIENTS, LOCAL, VALIDATION, WITHHELD, find_measured, find_metric


class Quantity(NamedTuple):
    """What an axis can show of the rounds of runs: its axis, and a number of a run's round."""

    axis: ChartAxis
    read: Callable[[Run, Event], float | None]


def _read_effort(name: str, run: Run, event: Event) -> float | None:
    return measure_effort(run, event)[name]


def _read_score(split: str, key: str, run: Run, event: Event) -> float | None:
    return (event.get(split) or {}).get(key)


def _read_mean(key: str, run: Run, event: Event) -> float | None:
    return average_clients(event).get(key)


def _read_loss(run: Run, event: Event) -> float | None:
    return event.get("loss")


EFFORT_AXES = {
    "rounds": ChartAxis("round", "count", 0),
    "bytes": ChartAxis("traffic", "bytes", 0),
    "clock_s": ChartAxis("simulated time", "seconds", 0),
    "real_s": ChartAxis("real time", "seconds", 0),
}
_PLAIN: Mapping[str, Quantity] = {
    "loss": Quantity(ChartAxis("test loss"), partial(_read_score, "test", "loss")),
    "training_loss": Quantity(ChartAxis("training loss"), _read_loss),
    **{name: Quantity(axis, partial(_read_effort, name)) for name, axis in EFFORT_AXES.items()},
}
_TITLES = {
    "": "test {}", VALIDATION: "validation {}", CLIENTS: "mean {}", LOCAL: "mean local {}",
    WITHHELD: "{} on withheld classes",
}  # fmt: skip
"""What stands before the name of a metric -> how an axis is called."""


def find_quantity(name: str) -> Quantity | None:
    """Return how a measure of a round is read and drawn, or None if there is no such measure: a
    metric on test data, with ``validation_``, ``clients_``, ``local_`` or ``withheld_`` before it
    that on other data, or ``loss``, ``training_loss`` or an effort.

    >>> find_quantity("validation_accuracy").axis
    ChartAxis(title='validation accuracy', kind='percent', low=0, high=1.02)
    >>> find_quantity("mae").axis.kind, find_quantity("best_mae")
    ('number', None)
    """
    metric = find_measured(name)
    if metric is None:
        return _PLAIN.get(name)
    prefix = name.removesuffix(metric.name)
    if prefix not in _TITLES:
        return None
    title = _TITLES[prefix].format(metric.title)
    axis = ChartAxis(title, "percent", 0, 1.02) if metric.is_share else ChartAxis(title)
    if prefix in (CLIENTS, LOCAL):
        return Quantity(axis, partial(_read_mean, name))
    split = prefix.removesuffix("_") or "test"
    return Quantity(axis, partial(_read_score, split, metric.name))


def list_quantities(metrics: Sequence[str]) -> list[str]:
    """Return what ``find_quantity`` knows of runs that some metrics judge."""
    prefixed = [prefix + name for prefix in _TITLES for name in metrics if prefix]
    return [*metrics, *_PLAIN, *prefixed]


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
    """Return data set -> its rows, and where these have different tasks data set and metric:
    values on different data, or of different metrics, have no axis in common."""
    by_data: dict[str, list[ComparedRow]] = {}
    for row in rows:
        by_data.setdefault(row.runs[0].data, []).append(row)
    groups: dict[str, list[ComparedRow]] = {}
    for data, members in by_data.items():
        primaries = list_primaries(members)
        for row in members:
            of = f", {row.primary or primaries[0]}" if len(primaries) > 1 else ""
            groups.setdefault(data + of, []).append(row)
    return groups


def draw_rows(rows: Sequence[ComparedRow]) -> Iterator[Chart]:
    """Yield the charts that set all rows of one data set side by side; a single row shows more of
    itself."""
    shown = list_shown(rows)
    for name in shown:
        for effort in EFFORT_AXES if name == shown[0] else ("rounds",):
            yield _by_effort(rows, name, effort)
    if len(rows) == 1:
        testing = trace_row(rows[0], 0, "rounds", "loss")._replace(label="test")
        training = trace_row(rows[0], 2, "rounds", "training_loss")._replace(label="training")
        yield Chart("Loss", [testing, training], find_x_axis(rows, "rounds"), ChartAxis("loss"))
    else:
        yield _side_by_side(rows, "Training loss", "rounds", "training_loss")
        yield _side_by_side(rows, "Test loss", "rounds", "loss")
    for name in shown[:1]:
        yield from _of_clients(rows, name)
        title = f"{_start_title(name)} on withheld classes"
        withheld = _side_by_side(rows, title, "rounds", WITHHELD + name)
        if any(line.points for line in withheld.lines):
            yield withheld._replace(note="test samples of the classes that nobody trains on")


def _start_title(metric: str) -> str:
    """Return a metric as the first word of a title."""
    title = find_metric(metric).title
    return title[0].upper() + title[1:]


def _by_effort(rows: Sequence[ComparedRow], metric: str, effort: str) -> Chart:
    """Return a chart of one metric on test data, of a single row beside that on validation data."""
    x = find_x_axis(rows, effort)
    title = find_metric(metric).title
    if len(rows) > 1:
        return _side_by_side(rows, f"Test {title} by {x.title}", effort, metric)
    chart = _side_by_side(rows, f"{_start_title(metric)} by {x.title}", effort, metric)
    lines = [
        chart.lines[0]._replace(label="test"),
        trace_row(rows[0], 1, effort, VALIDATION + metric)._replace(label="validation"),
    ]
    return chart._replace(lines=lines, y=chart.y._replace(title=title))


def find_x_axis(rows: Sequence[ComparedRow], name: str) -> ChartAxis:
    """Return the axis of an effort; plain training has epochs."""
    commands = {run.command for row in rows for run in row.runs}
    axis = EFFORT_AXES[name]
    if name != "rounds" or "fit" not in commands:
        return axis
    return axis._replace(title="round or epoch" if "train" in commands else "epoch")


def _side_by_side(rows: Sequence[ComparedRow], title: str, x: str, y: str) -> Chart:
    lines = [trace_row(row, number, x, y) for number, row in enumerate(rows)]
    return Chart(title, lines, find_x_axis(rows, x), _quantity(y).axis)


def _quantity(name: str) -> Quantity:
    quantity = find_quantity(name)
    assert quantity is not None, name
    return quantity


def _of_clients(rows: Sequence[ComparedRow], metric: str) -> Iterator[Chart]:
    """Yield what clients reach on their own data, with all logits and with their own ones."""
    title = f"{_start_title(metric)} of the clients"
    personal = _side_by_side(rows, title, "rounds", CLIENTS + metric)
    local = _side_by_side(rows, f"Local {find_metric(metric).title}", "rounds", LOCAL + metric)
    note = "each client's model on the test samples of its own classes"
    masked = "the logits of its other classes set to 0"
    if len(rows) == 1:
        lines = [
            personal.lines[0]._replace(label="mean of the clients", number=3),
            local.lines[0]._replace(label="local", number=4),
        ]
        more = f"; local: with {masked}" if lines[1].points else ""
        personal = personal._replace(lines=lines, note=f"{note}{more}")
        local = local._replace(lines=[])
    else:
        personal = personal._replace(note=note)
        local = local._replace(note=f"{note}, with {masked}")
    yield from (chart for chart in (personal, local) if any(x.points for x in chart.lines))


def trace_row(row: ComparedRow, number: int, x: str, y: str, band: str = "range") -> Line:
    """Return the means over a row's runs of two measures of ``find_quantity``, round by round.

    Rounds that some run lacks are left out, since a mean of fewer runs would jump; and a pruning,
    which has its end only, has no line.

    Args:
        number: of the series.
        band: one of ``BANDS``, drawn where there are several runs.
    """
    find_x, find_y = _quantity(x).read, _quantity(y).read
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
