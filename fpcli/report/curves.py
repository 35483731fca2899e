"""What a page's charts show: accuracy and loss of rows, and what single runs noted by the way."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fpcli.report.charts import ChartAxis, Line
from fpcli.report.client_plots import collect_overlaps
from fpcli.report.compare import ComparedRow
from fpcli.report.measures import measure_effort
from fpcli.report.plots import collect_ratios, group_by_speed, measure_speeds, name_clients
from fpcli.report.runs import Event, Run

ACCURACY = ChartAxis("test accuracy", "percent", 0, 1.02)
_EFFORTS = {
    "rounds": ChartAxis("round", "count", 0),
    "bytes": ChartAxis("traffic", "bytes", 0),
    "clock_s": ChartAxis("simulated time", "seconds", 0),
    "real_s": ChartAxis("real time", "seconds", 0),
}
_MOST_LAYERS = 24


class Chart(NamedTuple):
    """Lines with their axes, and a line of text below."""

    title: str
    lines: Sequence[Line]
    x: ChartAxis
    y: ChartAxis
    note: str = ""


def draw_rows(rows: Sequence[ComparedRow]) -> Iterator[Chart]:
    """Yield the charts that set all rows side by side; a single row shows more of itself."""
    is_single = len(rows) == 1
    for name, axis in _EFFORTS.items():
        lines = [_draw_judged(row, number, name, _test) for number, row in enumerate(rows)]
        title, y = f"Test accuracy by {axis.title}", ACCURACY
        if is_single:
            second = _draw_judged(rows[0], 1, name, _validation)
            lines = [lines[0]._replace(label="test"), second._replace(label="validation")]
            title, y = f"Accuracy by {axis.title}", ACCURACY._replace(title="accuracy")
        yield Chart(title, lines, axis, y)
    training = [_over_seeds(row, number, _training) for number, row in enumerate(rows)]
    testing = [_over_seeds(row, number, _test_loss) for number, row in enumerate(rows)]
    if is_single:
        lines = [
            testing[0]._replace(label="test"),
            training[0]._replace(label="training", number=2),
        ]
        yield Chart("Loss", lines, _EFFORTS["rounds"], ChartAxis("loss"))
    else:
        yield Chart(
            "Training loss", training, _EFFORTS["rounds"], ChartAxis("mean loss of the clients")
        )
        yield Chart("Test loss", testing, _EFFORTS["rounds"], ChartAxis("test loss"))
    yield from _of_clients(rows)
    withheld = [_over_seeds(row, number, _withheld) for number, row in enumerate(rows)]
    if any(line.points for line in withheld):
        note = "test samples of the classes that nobody trains on"
        yield Chart("Accuracy on withheld classes", withheld, _EFFORTS["rounds"], ACCURACY, note)


def _of_clients(rows: Sequence[ComparedRow]) -> Iterator[Chart]:
    """Yield what clients reach on their own classes, with all logits and with their own ones."""
    personal, local = (
        [_over_seeds(row, number, partial(_clients_mean, key)) for number, row in enumerate(rows)]
        for key in ("clients_accuracy", "local_accuracy")
    )
    axis = ChartAxis("mean accuracy", "percent", 0, 1.02)
    note = "each client's model on the test samples of its own classes"
    masked = "the logits of its other classes set to 0"
    if len(rows) == 1:
        personal = [
            personal[0]._replace(label="mean of the clients", number=3),
            local[0]._replace(label="local", number=4),
        ]
        local, note = [], f"{note}; local: with {masked}"
    if any(line.points for line in personal):
        yield Chart("Accuracy of the clients", personal, _EFFORTS["rounds"], axis, note)
    if any(line.points for line in local):
        yield Chart("Local accuracy", local, _EFFORTS["rounds"], axis, f"{note}, with {masked}")


def _draw_judged(row: ComparedRow, number: int, name: str, score: Callable[[Event], float]) -> Line:
    def points(run: Run) -> dict[int, tuple[float, float]]:
        return {e["round"]: (measure_effort(run, e)[name], score(e)) for e in run.judged}

    return _over_seeds(row, number, points)


def _test(event: Event) -> float:
    return float(event["test"]["accuracy"])


def _validation(event: Event) -> float:
    return float(event["validation"]["accuracy"])


def _training(run: Run) -> dict[int, tuple[float, float]]:
    losses = ((e["round"], e.get("loss")) for e in run.rounds)
    return {number: (number, loss) for number, loss in losses if loss is not None}


def _test_loss(run: Run) -> dict[int, tuple[float, float]]:
    losses = ((e["round"], e["test"].get("loss")) for e in run.judged)
    return {number: (number, loss) for number, loss in losses if loss is not None}


def _clients_mean(key: str, run: Run) -> dict[int, tuple[float, float]]:
    values = ((e["round"], e.get(key)) for e in run.judged)
    return {number: (number, score["mean"]) for number, score in values if score}


def _withheld(run: Run) -> dict[int, tuple[float, float]]:
    scores = ((e["round"], e.get("withheld")) for e in run.judged)
    return {number: (number, score["accuracy"]) for number, score in scores if score}


def _over_seeds(
    row: ComparedRow, number: int, points: Callable[[Run], Mapping[int, tuple[float, float]]]
) -> Line:
    """Return the means over a row's runs, and where there are several their lowest and highest.

    Rounds that some run lacks are left out, since a mean of fewer runs would jump.
    """
    curves = [points(run) for run in row.runs]
    shared = [key for key in curves[0] if all(key in curve for curve in curves)]
    mean, band = [], []
    for key in shared:
        x = statistics.fmean(curve[key][0] for curve in curves)
        ys = [curve[key][1] for curve in curves]
        mean.append((x, statistics.fmean(ys)))
        band.append((x, min(ys), max(ys)))
    return Line(row.label, number, mean, band if len(curves) > 1 else ())


def draw_run_charts(run: Run) -> Iterator[Chart]:
    """Yield the charts that only some methods have material for."""
    if ratios := _ratios(run):
        note = "mean and range of clients whose devices are about equally fast"
        yield Chart(
            "Pruning ratio per client", ratios, _EFFORTS["rounds"],
            ChartAxis("share of channels left out", "percent", 0, 1), note,
        )  # fmt: skip
    if densities := _densities(run):
        yield Chart(
            "Density per layer", densities, _EFFORTS["rounds"],
            ChartAxis("weights alive", "percent", 0, 1.02),
        )  # fmt: skip
    if any(c["pruning_error"] > 0 for e in run.rounds for c in e["clients"]):
        yield from _coverage(run)
    if overlaps := collect_overlaps(run.rounds):
        named = enumerate(overlaps.items())
        lines = [Line(label, number, points) for number, (label, points) in named]
        yield Chart(
            "Overlap of the clients' masks", lines, _EFFORTS["rounds"],
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
        [Line("coverage", 0, lowest), Line("clients used", 15, used)],
        _EFFORTS["rounds"], ChartAxis("clients", "number", 0),
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
        _EFFORTS["rounds"], ChartAxis("parameters kept", "percent", 0, 1.02),
    )  # fmt: skip
