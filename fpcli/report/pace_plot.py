"""The picture of who trains and who is left out for being slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpcli.report.canvas import BLUE, INK, ORANGE, count_axis, make_figure
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_pace(rounds: Events, title: str) -> Figure:
    """Draw over the rounds the seconds of every client that trained, the past seconds of those that
    were left out, and the limit above which they are.

    Args:
        rounds: those that note ``left_out`` and ``limit_s``.
    """
    picture = make_figure(8.5, 4.4)
    axes = picture.subplots()
    parts = ("compute_s", "down_s", "up_s")
    trained = [
        (event["round"], sum(client[part] for part in parts))
        for event in rounds
        for client in event["clients"]
    ]
    left = [(event["round"], s) for event in rounds for s in event["notes"]["left_out"].values()]
    limits = [(e["round"], e["notes"]["limit_s"]) for e in rounds if e["notes"]["limit_s"]]
    for points, colour, marker, label in (
        (trained, BLUE, "o", "trained: seconds of the round"),
        (left, ORANGE, "x", "left out: seconds of its past rounds"),
        (limits, INK, "_", "limit"),
    ):
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, s=26, c=colour, marker=marker, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("round")
    axes.set_ylabel("simulated seconds of a client")
    count_axis(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    picture.suptitle(f"{title}: who trains", x=0.01, ha="left", fontweight="bold")
    return picture
