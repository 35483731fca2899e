"""Pictures of one pruning: widths before and after, and the task's metric on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpcli.report.canvas import (
    BLUE,
    GREY,
    ORANGE,
    count_axis,
    draw_in_style,
    make_figure,
    save_figure,
)
from fpcli.settings.metrics import Metric, find_metric
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_TICKS = 30


def draw_pruning(
    widths: Mapping[str, tuple[int, int]], history: Events, folder: Path
) -> list[Path]:
    """Draw what a pruning did into its folder, each picture as PNG and as SVG.

    There is ``widths`` always, and ``accuracy``, or another metric that the task has in its place,
    if the model was retrained.

    Args:
        widths: group -> channels before and after.
        history: its events, as they stand in history.jsonl.

    Raises:
        NeedError: the folder cannot be written.
    """
    with draw_in_style():
        paths = save_figure(_widths(widths), folder / "widths")
        if any(event["event"] == "epoch" for event in history):
            metric = find_metric(history[0].get("metric", "accuracy"))
            paths += save_figure(_metric(history, metric), folder / metric.name)
    return paths


def _widths(widths: Mapping[str, tuple[int, int]]) -> Figure:
    picture = make_figure(max(5.0, min(14.0, 1.5 + 0.4 * len(widths))), 4)
    axes = picture.subplots()
    places = range(len(widths))
    before, after = zip(*widths.values(), strict=True)
    axes.bar(places, before, color=GREY, alpha=0.35, width=0.8, label="before")
    axes.bar(places, after, color=BLUE, width=0.8, label="after")
    every = -(-len(widths) // _MAX_TICKS)
    axes.set_xticks(places[::every], list(widths)[::every], rotation=60, ha="right")
    axes.set_ylabel("channels")
    axes.legend(loc="best")
    share_pruned = 1 - sum(after) / sum(before)
    axes.set_title(f"{share_pruned:.1%} of all channels removed", loc="left", fontweight="bold")
    return picture


def _metric(history: Events, metric: Metric) -> Figure:
    """Draw a validation metric over the epochs of retraining; a cut is a jump between two."""
    scale = 100 if metric.is_share else 1

    def read(event: Mapping[str, Any], split: str = "validation") -> float:
        return scale * float(event[split][metric.name])

    xs, ys, cuts, epochs = [0], [read(history[0])], [], 0
    for event in history:
        if event["event"] in ("cut", "recalibrated"):
            cuts += [epochs] * (event["event"] == "cut")
            xs.append(epochs)
            ys.append(read(event))
        elif event["event"] == "epoch" and event.get("validation"):
            epochs += 1
            xs.append(epochs)
            ys.append(read(event))
    picture = make_figure(6, 4)
    axes = picture.subplots()
    axes.plot(xs, ys, "-", color=BLUE, marker="o", markersize=4, label="validation")
    for number, at in enumerate(cuts):
        label = "cut" if number == 0 else None
        axes.axvline(at, color=ORANGE, linestyle="--", linewidth=1, label=label)
    tests = [event for event in history if event["event"] in ("before", "after")]
    axes.plot(
        [0, epochs], [read(event, "test") for event in (tests[0], tests[-1])],
        "s", color=GREY, markersize=6, label="test, before and after",
    )  # fmt: skip
    axes.set_xlabel("epochs of retraining")
    axes.set_ylabel(f"{metric.name} (%)" if metric.is_share else metric.name)
    count_axis(axes)
    axes.legend(loc="best")
    test = tests[-1]["test"][metric.name]
    value = f"{test:.1%}" if metric.is_share else metric.format(test)
    axes.set_title(f"{value} test {metric.name} after pruning", loc="left", fontweight="bold")
    return picture
