"""The picture of the clients' models on their own data, and of how much their masks overlap."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fpcli.report.canvas import BLUE, GREY, ORANGE, count_axis, make_figure
from fpcli.settings.metrics import LOCAL, Metric, find_metric, list_metrics, name_of_clients
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERLAPS = {
    "overlap": "all pairs",
    "overlap_shared_labels": "a label in common",
    "overlap_other_labels": "no label in common",
}
"""Note of a round -> which pairs of clients it is the mean overlap of."""

_BLUE_LINE: dict[str, Any] = {"color": BLUE, "linestyle": "-"}
_ORANGE_LINE: dict[str, Any] = {"color": ORANGE, "linestyle": "--"}
_GREY_LINE: dict[str, Any] = {"color": GREY, "linestyle": ":"}
_MOST_BARS = 60
_MOST_NAMES = 12


def collect_overlaps(rounds: Events) -> dict[str, list[tuple[int, float]]]:
    """Return for each kind of pairs that rounds note the rounds and the mean overlaps."""
    series = {
        label: [
            (event["round"], event["notes"][key])
            for event in rounds
            if isinstance(event["notes"].get(key), int | float)
        ]
        for key, label in OVERLAPS.items()
    }
    return {label: points for label, points in series.items() if points}


def average_clients(event: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the means over clients of the metrics of their own models that a round has, such as
    ``clients_accuracy`` and ``local_accuracy``; None where some client has no such number.

    >>> average_clients({"personal": {"mae": {"0": 2.0, "3": 4.0}, "r2": {"0": 0.5, "3": None}}})
    {'clients_mae': 3.0, 'clients_r2': None}
    """
    return {
        name_of_clients(name): None if None in of.values() else statistics.fmean(of.values())
        for name, of in (event.get("personal") or {}).items()
    }


def draw_clients(rounds: Events, personal: Events, title: str) -> Figure:
    """Draw the primary metric of the clients over the rounds and at the end, and the masks'
    overlap.

    Args:
        personal: the rounds in which the clients' models were judged.
    """
    overlaps = collect_overlaps(rounds)
    picture = make_figure(12 if overlaps else 9, 3.8)
    panels = picture.subplots(1, 3 if overlaps else 2)
    metric = find_metric(list_metrics(personal[-1]["test"])[0])
    _spread(panels[0], personal, metric)
    _bars(panels[1], personal[-1], metric)
    if overlaps:
        _overlap(panels[2], overlaps)
    last = average_clients(personal[-1])
    means = [
        f"{metric.format(value)} {name}"
        for key, name in _name_means(metric).items()
        if (value := last.get(key)) is not None
    ]
    picture.suptitle(
        f"{title}: {', '.join(means)}",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return picture


def _name_means(metric: Metric) -> dict[str, str]:
    """Return the means of ``average_clients`` that are drawn, and what they are called."""
    return {
        name_of_clients(metric.name): f"mean {metric.title} of the clients",
        LOCAL + metric.name: "local (other logits 0)",
    }


def _read_clients(event: Mapping[str, Any], name: str, factor: float) -> dict[str, float]:
    """Return the values of clients for an axis; not a number where one has none."""
    values = event["personal"].get(name) or {}
    return {key: math.nan if x is None else factor * x for key, x in values.items()}


def _spread(axes: Axes, personal: Events, metric: Metric) -> None:
    factor = 100 if metric.is_share else 1
    xs = [event["round"] for event in personal]
    values = [_read_clients(event, metric.name, factor).values() for event in personal]
    axes.fill_between(
        xs, [min(v, default=math.nan) for v in values], [max(v, default=math.nan) for v in values],
        color=BLUE, alpha=0.15, linewidth=0, label="lowest to highest",
    )  # fmt: skip
    marker = "." if len(xs) < 3 else ""
    all_means = [(event["round"], average_clients(event)) for event in personal]
    names = _name_means(metric).items()
    for (key, name), style in zip(names, (_BLUE_LINE, _ORANGE_LINE), strict=True):
        means = [(at, factor * y) for at, of in all_means if (y := of.get(key)) is not None]
        if means:
            axes.plot(*zip(*means, strict=True), marker=marker, label=name, **style)
    axes.set_xlabel("round")
    if metric.is_share:
        axes.set_ylim(0, 102)
    axes.set_ylabel(f"{metric.title} on own samples" + " (%)" * metric.is_share)
    axes.legend(loc="lower right" if metric.direction == "max" else "upper right")
    count_axis(axes)


def _bars(axes: Axes, event: Mapping[str, Any], metric: Metric) -> None:
    """Draw a bar per client, best first, with a stroke at its local value; of many a part."""
    factor = 100 if metric.is_share else 1
    own = _read_clients(event, metric.name, factor)
    sign = -1 if metric.direction == "max" else 1
    last = sorted(own.items(), key=lambda item: sign * item[1])
    shown = last if len(last) <= _MOST_BARS else last[:: len(last) // _MOST_BARS]
    places = range(len(shown))
    axes.bar(places, [value for _, value in shown], color=BLUE)
    local = _read_clients(event, LOCAL + metric.name, factor)
    strokes = [local.get(client, math.nan) for client, _ in shown]
    axes.plot(places, strokes, "_", color=ORANGE, markeredgewidth=2.2)
    if len(shown) <= _MOST_NAMES:
        axes.set_xticks(places, [str(client) for client, _ in shown])
    else:
        axes.set_xticks([])
    axes.set_xlabel("client, best first")
    if metric.is_share:
        axes.set_ylim(0, 102)
    axes.set_title(f"after round {event['round']}", loc="left", fontsize=9.5)


def _overlap(axes: Axes, overlaps: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    styles = dict(zip(OVERLAPS.values(), (_GREY_LINE, _ORANGE_LINE, _BLUE_LINE), strict=True))
    for label, points in overlaps.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=label, **styles[label])
    axes.set_ylim(top=1.01)
    axes.set_xlabel("round")
    axes.set_title("overlap of the clients' masks (mean of pairs)", loc="left", fontsize=9.5)
    axes.legend(loc="lower left")
    count_axis(axes)
