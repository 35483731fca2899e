"""Pictures of one pruning: widths before and after, and accuracy on the way."""

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
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_TICKS = 30


def draw_pruning(
    widths: Mapping[str, tuple[int, int]], history: Events, folder: Path
) -> list[Path]:
    """Draw what a pruning did into its folder, each picture as PNG and as SVG.

    There is ``widths`` always, and ``accuracy`` if the model was retrained.

    Args:
        widths: group -> channels before and after.
        history: its events, as they stand in history.jsonl.

    Raises:
        NeedError: the folder cannot be written.
    """
    with draw_in_style():
        paths = save_figure(_widths(widths), folder / "widths")
        if any(event["event"] == "epoch" for event in history):
            paths += save_figure(_accuracy(history), folder / "accuracy")
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


def _accuracy(history: Events) -> Figure:
    """Draw validation accuracy over the epochs of retraining; a cut is a drop between two."""
    xs, ys, cuts, epochs = [0], [_validation(history[0])], [], 0
    for event in history:
        if event["event"] in ("cut", "recalibrated"):
            cuts += [epochs] * (event["event"] == "cut")
            xs.append(epochs)
            ys.append(_validation(event))
        elif event["event"] == "epoch" and event.get("validation"):
            epochs += 1
            xs.append(epochs)
            ys.append(_validation(event))
    picture = make_figure(6, 4)
    axes = picture.subplots()
    axes.plot(xs, ys, "-", color=BLUE, marker="o", markersize=4, label="validation")
    for number, at in enumerate(cuts):
        label = "cut" if number == 0 else None
        axes.axvline(at, color=ORANGE, linestyle="--", linewidth=1, label=label)
    tests = [event for event in history if event["event"] in ("before", "after")]
    axes.plot(
        [0, epochs], [100 * event["test"]["accuracy"] for event in (tests[0], tests[-1])],
        "s", color=GREY, markersize=6, label="test, before and after",
    )  # fmt: skip
    axes.set_xlabel("epochs of retraining")
    axes.set_ylabel("accuracy (%)")
    count_axis(axes)
    axes.legend(loc="best")
    test = tests[-1]["test"]["accuracy"]
    axes.set_title(f"{test:.1%} test accuracy after pruning", loc="left", fontweight="bold")
    return picture


def _validation(event: Mapping[str, Any]) -> float:
    return 100 * float(event["validation"]["accuracy"])
