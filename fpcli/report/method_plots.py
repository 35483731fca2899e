"""Pictures that only some runs have material for: densities, coverage, forgetting, own models."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fpcli.report.canvas import BLUE, GREY, INK, ORANGE, Events, count_axis, figure
from fpcli.report.forgetting_plots import forgetting_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BARS = 60


def method_figures(rounds: Events, title: str) -> Iterator[tuple[str, Figure]]:
    """Yield file stem and figure of every picture that the events have material for.

    ``density`` if rounds note the density per layer, ``coverage`` if some client held less than
    the whole model, ``clients`` if clients' own models were judged, ``forgetting`` if classes were
    withheld.
    """
    dense = [event for event in rounds if "density" in event.get("notes", {})]
    if dense:
        yield "density", _density(dense, title)
    if any(client["pruning_error"] > 0 for event in rounds for client in event["clients"]):
        yield "coverage", _coverage(rounds, title)
    personal = [event for event in rounds if event.get("personal")]
    if personal:
        yield "clients", _clients(rounds, personal, title)
    if any(event.get("withheld") for event in rounds):
        yield "forgetting", forgetting_figure({title: rounds}, title)


def _density(rounds: Events, title: str) -> Figure:
    """Draw the share of alive weights of every layer, and of all of them, over the rounds."""
    from matplotlib import colormaps

    picture = figure(9, 4.2)
    axes = picture.subplots()
    xs = [event["round"] for event in rounds]
    layers = list(rounds[-1]["notes"]["density"])
    for number, layer in enumerate(layers):
        ys = [event["notes"]["density"].get(layer) for event in rounds]
        colour = colormaps["viridis"](0.9 * number / max(len(layers) - 1, 1))
        axes.plot(
            xs, ys, color=colour, linewidth=1.3, marker="." if len(xs) < 3 else "", label=layer
        )
    alive = [event["params"] / rounds[0]["params"] for event in rounds]
    if rounds[0]["params"] != rounds[-1]["params"]:
        axes.plot(xs, alive, color=INK, linewidth=2.6, label="parameters (first round = 1)")
    axes.set_xlabel("round")
    axes.set_ylabel("density (share of weights alive)")
    axes.set_ylim(0, 1.05)
    count_axis(axes)
    axes.set_title(f"{title}: density of each layer", loc="left", fontweight="bold")
    picture.legend(loc="outside right upper", ncols=1 + len(layers) // 22, fontsize=8)
    return picture


def _coverage(rounds: Events, title: str) -> Figure:
    """Draw how many clients hold the least covered parameter, and how much each client held."""
    picture = figure(10, 3.8)
    left, right = picture.subplots(1, 2)
    xs = [event["round"] for event in rounds]
    left.step(
        xs,
        [len(event["clients"]) for event in rounds],
        color=GREY,
        where="mid",
        linestyle="--",
        label="clients used",
    )
    lowest = [event["coverage"] for event in rounds]
    left.step(xs, lowest, color=BLUE, where="mid", linewidth=2.2, label="coverage")
    left.set_ylim(bottom=0)
    left.set_xlabel("round")
    left.set_ylabel("clients")
    left.set_title("holders of the least covered parameter", loc="left", fontsize=9.5)
    left.legend(loc="best")
    whole = max(client["params"] for event in rounds for client in event["clients"])
    whole = max(whole, *(event["params"] for event in rounds))
    points = [(e["round"], c["params"] / whole) for e in rounds for c in e["clients"]]
    right.plot(*zip(*points, strict=True), ".", color=ORANGE, markersize=4, alpha=0.5)
    means = [statistics.fmean(c["params"] / whole for c in e["clients"]) for e in rounds]
    right.plot(xs, means, color=ORANGE, linewidth=2.2, label="mean of the clients")
    right.set_ylim(0, 1.05)
    right.set_xlabel("round")
    right.set_title("size of each client's model (whole model = 1)", loc="left", fontsize=9.5)
    right.legend(loc="best")
    for axes in (left, right):
        count_axis(axes)
    picture.suptitle(f"{title}: who holds what", x=0.01, ha="left", fontweight="bold")
    return picture


def _clients(rounds: Events, personal: Events, title: str) -> Figure:
    """Draw the clients' own accuracies over the rounds, at the end, and the masks' overlap."""
    overlap = [(e["round"], e["notes"]["overlap"]) for e in rounds if "overlap" in e["notes"]]
    picture = figure(12 if overlap else 9, 3.8)
    panels = picture.subplots(1, 3 if overlap else 2)
    _spread(panels[0], personal)
    last = sorted(personal[-1]["personal"].items(), key=lambda item: -item[1])
    shown = last if len(last) <= _MOST_BARS else last[:: len(last) // _MOST_BARS]
    panels[1].bar(range(len(shown)), [100 * value for _, value in shown], color=BLUE)
    if len(shown) <= 20:
        panels[1].set_xticks(range(len(shown)), [str(client) for client, _ in shown])
    else:
        panels[1].set_xticks([])
    panels[1].set_xlabel("client, best first")
    panels[1].set_ylim(0, 102)
    panels[1].set_title(f"after round {personal[-1]['round']}", loc="left", fontsize=9.5)
    if overlap:
        panels[2].plot(*zip(*overlap, strict=True), color=ORANGE, linewidth=2.2, marker=".")
        panels[2].set_ylim(0, 1.05)
        panels[2].set_xlabel("round")
        panels[2].set_title(
            "overlap of the clients' masks (mean of pairs)", loc="left", fontsize=9.5
        )
        count_axis(panels[2])
    mean = statistics.fmean(value for _, value in last)
    picture.suptitle(
        f"{title}: {mean:.1%} mean accuracy of the clients' own models",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return picture


def _spread(axes: Axes, personal: Events) -> None:
    xs = [event["round"] for event in personal]
    values = [sorted(100 * value for value in event["personal"].values()) for event in personal]
    axes.fill_between(
        xs, [v[0] for v in values], [v[-1] for v in values], color=BLUE, alpha=0.15, linewidth=0,
        label="lowest to highest",
    )  # fmt: skip
    means = [statistics.fmean(v) for v in values]
    axes.plot(xs, means, color=BLUE, marker="." if len(xs) < 3 else "", label="mean of the clients")
    axes.set_ylim(0, 102)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on own classes (%)")
    axes.legend(loc="lower right")
    count_axis(axes)
