"""The picture of filters of frequencies before the first round and after the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpcli.report.canvas import BLUE, GREY, make_figure
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_filters(rounds: Events, title: str) -> Figure:
    """Draw the mean modulus of every frequency of each filter, before training and at the end.

    Args:
        rounds: from the first on; it notes ``spectra_before`` and all of them ``spectra``, each a
            list of means for every filter.
    """
    before, after = rounds[0]["notes"]["spectra_before"], rounds[-1]["notes"]["spectra"]
    picture = make_figure(9, 1 + 2.2 * len(before))
    panels = picture.subplots(len(before), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, means) in zip(panels, before.items(), strict=True):
        axes.plot(means, color=GREY, linestyle="--", label="before round 1")
        label = f"after round {rounds[-1]['round']}"
        axes.plot(after[name], color=BLUE, marker="o", markersize=4, label=label)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("mean |W|")
        axes.set_title(name, loc="left", fontsize=9.5)
    panels[-1].set_xlabel("frequency (0: the mean over all positions)")
    panels[0].legend(loc="best")
    picture.suptitle(f"{title}: filters, dead weights as 0", x=0.01, ha="left", fontweight="bold")
    return picture
