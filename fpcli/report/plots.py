"""Pictures of a run, drawn from its events without a display."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpcli.report.canvas import (
    BLUE,
    ORANGE,
    count_axis,
    draw_in_style,
    make_figure,
    save_figure,
)
from fpcli.report.method_plots import draw_methods
from fpcli.settings.metrics import Metric, find_metric, list_metrics
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SAME_SPEED = 1.25
"""Devices whose speeds differ by less than this factor count as one kind."""

_COLUMN = (4.4, 7.4)
"""Inches of three panels above each other, whose text can be read in one column of a paper."""

_HEADLINE_WIDTH = 46


def draw_run(history: Events, folder: Path) -> list[Path]:
    """Draw a run's pictures into its folder, each as PNG and as SVG.

    Args:
        history: the run's events, as they stand in events.jsonl.
        folder: must exist; earlier pictures in it are replaced.

    Returns:
        ``curves`` always, ``ratios`` if any client's notes have a ``ratio``, and those of
        ``method_plots`` that the events have material for.

    Raises:
        NeedError: the folder cannot be written.
    """
    rounds = [event for event in history if event.get("event") == "round"]
    with draw_in_style():
        paths = save_figure(_curves(rounds, folder.name), folder / "curves")
        if ratios := collect_ratios(rounds):
            paths += save_figure(
                _ratio_figure(ratios, measure_speeds(rounds), folder.name), folder / "ratios"
            )
        for stem, picture in draw_methods(rounds, folder.name):
            paths += save_figure(picture, folder / stem)
    return paths


def _curves(rounds: Events, title: str) -> Figure:
    judged = [event for event in rounds if event.get("test")]
    picture = make_figure(*_COLUMN)
    panels = picture.subplots(3, 1, sharey=True)
    sent = [event["total_down_bytes"] + event["total_up_bytes"] for event in judged]
    seconds = [event["clock_s"] for event in judged]
    bytes_unit, bytes_factor = _unit(sent, (("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)))
    time_unit, time_factor = _unit(seconds, (("s", 1), ("min", 60), ("h", 3600)))
    _panel(panels[0], judged, [event["round"] for event in judged], "round")
    _panel(panels[1], judged, [x / bytes_factor for x in sent], f"traffic down + up ({bytes_unit})")
    _panel(panels[2], judged, [x / time_factor for x in seconds], f"simulated time ({time_unit})")
    count_axis(panels[0])
    if judged:
        panels[0].legend(loc="best", reverse=True)
    _write_headline(picture, judged, title, "round")
    return picture


def _write_headline(picture: Figure, judged: Events, title: str, unit: str) -> None:
    words = f"no {unit} was evaluated"
    if metric := _find_primary(judged):
        value = judged[-1]["test"][metric.name]
        text = "no number as" if value is None else metric.format(value)
        words = f"{text} test {metric.title} after {unit} {judged[-1]['round']}"
    text = "\n".join([*textwrap.wrap(title, _HEADLINE_WIDTH), words])
    picture.suptitle(text, x=0.01, ha="left", fontweight="bold")


def draw_fit(history: Events, folder: Path) -> list[Path]:
    """Draw the curves of plain training (arguments and errors as in :func:`draw_run`)."""
    epochs = [event for event in history if event.get("event") == "epoch"]
    xs = [event["round"] for event in epochs]
    marker = "o" if len(epochs) < 3 else ""
    with draw_in_style():
        picture = make_figure(*_COLUMN)
        scores, losses, rates = picture.subplots(3, 1)
        _panel(scores, epochs, xs, "epoch")
        validation = [event["validation"]["loss"] for event in epochs]
        losses.plot(xs, validation, "--", color=ORANGE, marker=marker, label="validation")
        training = [event["loss"] for event in epochs]
        losses.plot(xs, training, "-", color=BLUE, marker=marker, label="training")
        losses.set_ylabel("loss")
        rates.plot(xs, [event["lr"] for event in epochs], color=BLUE, marker=marker)
        rates.set_ylabel("learning rate")
        for axes in (scores, losses, rates):
            axes.set_xlabel("epoch")
            axes.set_xlim(left=0, right=None if epochs else 1)
            count_axis(axes)
        for axes in (losses, rates):
            axes.set_ylim(bottom=0)
        if epochs:
            scores.legend(loc="best", reverse=True)
            losses.legend(loc="upper right")
        _write_headline(picture, epochs, folder.name, "epoch")
        return save_figure(picture, folder / "curves")


def _find_primary(judged: Events) -> Metric | None:
    """Return the metric that is drawn; None where nothing was evaluated."""
    return find_metric(list_metrics(judged[0]["test"])[0]) if judged else None


def _panel(axes: Axes, judged: Events, xs: Sequence[float], label: str) -> None:
    """Draw the primary metric on validation and test data against one measure of effort, and mark
    the best validation."""
    axes.set_xlabel(label)
    metric = _find_primary(judged)
    if metric is None:
        axes.set_xlim(0, 1)
        return
    marker = "o" if len(judged) < 3 else ""
    scores = {
        split: [math.nan if x is None else x for x in (e[split][metric.name] for e in judged)]
        for split in ("validation", "test")
    }
    factor = 100 if metric.is_share else 1
    for split, colour, style in (("validation", ORANGE, "--"), ("test", BLUE, "-")):
        ys = [factor * score for score in scores[split]]
        axes.plot(xs, ys, style, color=colour, marker=marker, markersize=5, label=split)
    if finite := [score for score in scores["validation"] if math.isfinite(score)]:
        best = scores["validation"].index((max if metric.direction == "max" else min)(finite))
        axes.plot(
            xs[best], factor * scores["test"][best], "o", color=BLUE, markersize=7,
            markeredgecolor="white", label="test at best validation",
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_ylabel(metric.title + " (%)" * metric.is_share)
    if metric.is_share:
        axes.set_ylim(0, 102)


def _unit(values: Sequence[float], units: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Return the largest unit of which the largest value has at least one."""
    highest = max(values, default=0)
    return next((unit for unit in reversed(units) if highest >= unit[1]), units[0])


def collect_ratios(rounds: Events) -> dict[int, list[tuple[int, float]]]:
    """Return for each client its rounds and pruning ratios."""
    ratios: dict[int, list[tuple[int, float]]] = {}
    for event in rounds:
        for client in event["clients"]:
            ratio = client["notes"].get("ratio")
            if isinstance(ratio, int | float):
                ratios.setdefault(client["client"], []).append((event["round"], ratio))
    return ratios


def measure_speeds(rounds: Events) -> dict[int, float]:
    """Return each client's computing speed relative to the fastest one, by the simulated clock."""
    seen: dict[int, list[float]] = {}
    for event in rounds:
        for client in event["clients"]:
            work = client["macs"] * client["num_examples"]
            if client["compute_s"] > 0 and work > 0:
                seen.setdefault(client["client"], []).append(work / client["compute_s"])
    speeds = {client: statistics.median(values) for client, values in seen.items()}
    highest = max(speeds.values(), default=1.0)
    return {client: speed / highest for client, speed in speeds.items()}


def group_by_speed(clients: Sequence[int], speeds: Mapping[int, float]) -> list[list[int]]:
    """Return the clients in groups of about equal speed, the fastest first."""
    ordered = sorted(clients, key=lambda client: (-speeds.get(client, 1.0), client))
    groups: list[list[int]] = []
    for client in ordered:
        speed = speeds.get(client, 1.0)
        if groups and speeds.get(groups[-1][0], 1.0) < speed * _SAME_SPEED:
            groups[-1].append(client)
        else:
            groups.append([client])
    return [sorted(group) for group in groups]


def _ratio_figure(
    ratios: Mapping[int, list[tuple[int, float]]], speeds: Mapping[int, float], title: str
) -> Figure:
    from matplotlib import colormaps

    picture = make_figure(9, 4.2)
    axes = picture.subplots()
    kinds = group_by_speed(list(ratios), speeds)
    typical = [statistics.median(speeds.get(client, 1.0) for client in kind) for kind in kinds]
    for number, clients in enumerate(kinds):
        colour = colormaps["viridis"](0.85 * number / max(len(kinds) - 1, 1))
        lines = [ratios[client] for client in clients]
        _draw_kind(axes, lines, colour)
        mean = statistics.fmean(ratio for line in lines for _, ratio in line)
        speed = typical[number] / typical[0]
        name = f"{name_clients(clients)}\nspeed {speed:.2g}, mean ratio {mean:.2f}"
        axes.plot([], [], color=colour, linewidth=2.6, label=name)
    axes.set_xlabel("round")
    axes.set_xlim(left=0)
    count_axis(axes)
    axes.set_ylabel("pruning ratio (share of channels left out)")
    axes.set_ylim(0, 1)
    axes.set_title(f"{title}: pruning ratio of each client", loc="left", fontweight="bold")
    picture.legend(
        loc="outside right upper",
        title="device speed (fastest = 1)\nthick: mean, thin: each client",
        alignment="left",
        labelspacing=0.8,
    )
    return picture


def _draw_kind(axes: Axes, lines: Sequence[Sequence[tuple[int, float]]], colour: Any) -> None:
    """Draw every client's ratios, and over them the mean of the clients in each round."""
    for line in lines:
        rounds, values = zip(*line, strict=True)
        axes.plot(rounds, values, color=colour, alpha=0.25, linewidth=0.9, marker=".", markersize=2)
    points = sorted(point for line in lines for point in line)
    means = [
        (number, statistics.fmean(ratio for _, ratio in group))
        for number, group in groupby(points, key=lambda point: point[0])
    ]
    rounds, values = zip(*means, strict=True)
    axes.plot(rounds, values, color=colour, linewidth=2.6, marker="o" if len(means) == 1 else "")


def name_clients(clients: Sequence[int]) -> str:
    """Return a short list of clients.

    >>> name_clients([3]), name_clients([1, 3, 5]), name_clients(list(range(20)))
    ('client 3', 'clients 1, 3, 5', '20 clients')
    """
    if len(clients) > 8:
        return f"{len(clients)} clients"
    return f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients))}"
