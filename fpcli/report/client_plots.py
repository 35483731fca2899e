"""The picture of the clients' models on their own classes, and of how much their masks overlap."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fpcli.report.canvas import BLUE, GREY, ORANGE, count_axis, make_figure
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

_NAMES = {"personal": "mean accuracy of the clients", "local": "local (other logits 0)"}
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


def draw_clients(rounds: Events, personal: Events, title: str) -> Figure:
    """Draw the clients' accuracies over the rounds and at the end, and the masks' overlap.

    Args:
        personal: the rounds in which the clients' models were judged.
    """
    overlaps = collect_overlaps(rounds)
    picture = make_figure(12 if overlaps else 9, 3.8)
    panels = picture.subplots(1, 3 if overlaps else 2)
    _spread(panels[0], personal)
    _bars(panels[1], personal[-1])
    if overlaps:
        _overlap(panels[2], overlaps)
    means = [f"{value:.1%} {name}" for name, value in _means(personal[-1]).items()]
    picture.suptitle(
        f"{title}: {', '.join(means)}",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return picture


def _means(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean over the clients of each accuracy that a round has."""
    there = {name: event[key] for key, name in _NAMES.items() if event.get(key)}
    return {name: statistics.fmean(of.values()) for name, of in there.items()}


def _spread(axes: Axes, personal: Events) -> None:
    xs = [event["round"] for event in personal]
    values = [sorted(100 * value for value in event["personal"].values()) for event in personal]
    axes.fill_between(
        xs, [v[0] for v in values], [v[-1] for v in values], color=BLUE, alpha=0.15, linewidth=0,
        label="lowest to highest",
    )  # fmt: skip
    marker = "." if len(xs) < 3 else ""
    for name, style in zip(_NAMES.values(), (_BLUE_LINE, _ORANGE_LINE), strict=True):
        means = [(e["round"], 100 * _means(e)[name]) for e in personal if name in _means(e)]
        if means:
            axes.plot(*zip(*means, strict=True), marker=marker, label=name, **style)
    axes.set_ylim(0, 102)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on own classes (%)")
    axes.legend(loc="lower right")
    count_axis(axes)


def _bars(axes: Axes, event: Mapping[str, Any]) -> None:
    """Draw a bar per client, best first, with a stroke at its local accuracy; of many a part."""
    last = sorted(event["personal"].items(), key=lambda item: -item[1])
    shown = last if len(last) <= _MOST_BARS else last[:: len(last) // _MOST_BARS]
    places = range(len(shown))
    axes.bar(places, [100 * value for _, value in shown], color=BLUE)
    local = event.get("local") or {}
    strokes = [100 * local.get(client, math.nan) for client, _ in shown]
    axes.plot(places, strokes, "_", color=ORANGE, markeredgewidth=2.2)
    if len(shown) <= _MOST_NAMES:
        axes.set_xticks(places, [str(client) for client, _ in shown])
    else:
        axes.set_xticks([])
    axes.set_xlabel("client, best first")
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
