"""The picture of a model that gets sparser: how sparse it is, and what the clients voted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpcli.report.canvas import GREY, INK, count_axis, make_figure
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_sparsity(rounds: Events, title: str) -> Figure:
    """Draw target, whole model and layers over the rounds, and beside them the votes if there were
    any.

    Args:
        rounds: those that note ``target_sparsity``, ``sparsity`` and ``density``, and ``votes``
            where clients chose.
    """
    voted = [event for event in rounds if "votes" in event["notes"]]
    picture = make_figure(13 if voted else 8.5, 4.4)
    left, *others = picture.subplots(1, 1 + bool(voted), squeeze=False)[0]
    _draw_layers(left, rounds)
    if voted:
        _draw_votes(picture, others[0], voted)
    picture.suptitle(f"{title}: sparsity", x=0.01, ha="left", fontweight="bold")
    return picture


def _draw_layers(axes: Axes, rounds: Events) -> None:
    from matplotlib import colormaps

    xs, notes = [event["round"] for event in rounds], [event["notes"] for event in rounds]
    layers = list(notes[-1]["density"])
    for number, layer in enumerate(layers):
        colour = colormaps["viridis"](0.9 * number / max(len(layers) - 1, 1))
        ys = [1 - note["density"][layer] for note in notes]
        axes.plot(xs, ys, color=colour, linewidth=1.1, label=layer)
    reached = [note["sparsity"] for note in notes]
    axes.plot(xs, reached, color=INK, linewidth=2.6, label=f"all, {reached[-1]:.4g} at last")
    targets = [note["target_sparsity"] for note in notes]
    axes.plot(xs, targets, "o:", color=GREY, markersize=4, label="target")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("round")
    axes.set_ylabel("sparsity (share of scalars dead)")
    count_axis(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, ncols=1 + len(layers) // 20)


def _draw_votes(picture: Figure, axes: Axes, voted: Events) -> None:
    """Stack for every round the shares of the weights that few to all of the clients kept."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    for event in voted:
        bottom, votes = 0.0, event["notes"]["votes"]
        for number, share in enumerate(votes):
            colour = colormaps["viridis"](number / (len(votes) - 1))
            axes.bar(event["round"], share, 1.0, bottom, color=colour, linewidth=0)
            bottom += share
    axes.set_ylim(0, 1)
    axes.grid(visible=False)
    axes.set_xlabel("round")
    axes.set_ylabel("share of the weights that clients received")
    count_axis(axes)
    bar = picture.colorbar(ScalarMappable(cmap="viridis"), ax=axes)
    bar.set_label("share of the round's clients that kept a weight")
