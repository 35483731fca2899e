"""The picture of rounded messages: what rounding takes from the model, and what clients owe."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from fpcli.report.canvas import BLUE, ORANGE, count_axis, make_figure
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_rounding(rounds: Events, title: str) -> Figure:
    """Draw the error of the model that is sent, and what each client remembers of its change.

    A memory above 1 is that of more than one round: changes have few bits, and arrive late.

    Args:
        rounds: those that note ``rounding``, and of clients ``residual`` where these remember.
    """
    picture = make_figure(8.5, 4)
    axes = picture.subplots()
    xs = [event["round"] for event in rounds]
    ys = [event["notes"]["rounding"] for event in rounds]
    axes.plot(xs, ys, color=BLUE, label=f"model sent, {ys[-1]:.3g} at last")
    owed = {
        event["round"]: shares
        for event in rounds
        if (
            shares := [c["notes"]["residual"] for c in event["clients"] if "residual" in c["notes"]]
        )
    }
    if owed:
        points = [(at, share) for at, shares in owed.items() for share in shares]
        axes.plot(*zip(*points, strict=True), ".", color=ORANGE, markersize=4, alpha=0.4)
        means = [statistics.fmean(shares) for shares in owed.values()]
        label = f"clients' memory, {means[-1]:.3g} at last"
        axes.plot([*owed], means, color=ORANGE, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("round")
    axes.set_ylabel("norm of the error (model, or change, = 1)")
    count_axis(axes)
    axes.legend(loc="best")
    picture.suptitle(f"{title}: rounding", x=0.01, ha="left", fontweight="bold")
    return picture
