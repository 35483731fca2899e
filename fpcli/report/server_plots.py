"""The picture of a server that trains and prunes: its steps, and the rates of the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fpcli.report.canvas import BLUE, GREY, INK, ORANGE, count_axis, make_figure
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def has_steps(rounds: Events) -> bool:
    """Tell whether a round notes a step of the server, or that it pruned layers at rates."""
    return any({"server_step", "pruned"} & event.get("notes", {}).keys() for event in rounds)


def draw_steps(rounds: Events, title: str) -> Figure:
    """Draw how far the server's training moved the model, and what the layers lost.

    Args:
        rounds: of which some note ``server_step`` or ``pruned``, see `fpcli.methods.fedduap`.
    """
    steps = [event for event in rounds if "server_step" in event.get("notes", {})]
    cuts = [event for event in rounds if "pruned" in event.get("notes", {})]
    picture = make_figure(10 if steps and cuts else 7, 4)
    panels = list(picture.subplots(1, bool(steps) + bool(cuts), squeeze=False)[0])
    if steps:
        _draw_shares(panels[0], steps, [event["round"] for event in cuts])
    if cuts:
        _draw_rates(panels[-1], cuts[0])
    picture.suptitle(f"{title}: what the server did", x=0.01, ha="left", fontweight="bold")
    return picture


def _draw_shares(axes: Axes, steps: Events, cuts: list[int]) -> None:
    xs = [event["round"] for event in steps]
    notes = [event["notes"]["server_step"] for event in steps]
    shares = [0.0 if note["is_undone"] else note["share"] for note in notes]
    axes.plot(xs, [note["accuracy"] for note in notes], color=GREY, linestyle="--",
              label="accuracy on the server's samples")  # fmt: skip
    axes.plot(xs, [note["weight"] for note in notes], color=ORANGE, linestyle=":",
              label="weight by labels (rho)")  # fmt: skip
    axes.plot(xs, shares, color=BLUE, marker="o", markersize=3.5, label="share of the step (alpha)")
    axes.set_ylim(0, max(1.05, 1.05 * max(shares)))
    largest = max(notes, key=lambda note: note["share"])
    if largest["share"]:
        unit = largest["num_steps"] / largest["share"]
        other = axes.secondary_yaxis("right", functions=(lambda y: y * unit, lambda y: y / unit))
        other.set_ylabel("effective steps (alpha tau)", color=BLUE)
    for number, at in enumerate(cuts):
        label = "pruned" if number == 0 else None
        axes.axvline(at - 0.5, color=INK, linewidth=1, label=label)
    axes.set_xlabel("round")
    axes.set_ylabel("share")
    count_axis(axes)
    axes.set_title("how far the server's training moved the model", loc="left", fontsize=9.5)
    axes.legend(loc="best", fontsize=8)


def _draw_rates(axes: Axes, cut: Mapping[str, Any]) -> None:
    note = cut["notes"]["pruned"]
    layers = note["layers"]
    ys = range(len(layers))
    axes.barh(ys, [layer["rate"] for layer in layers.values()], color=BLUE, height=0.6)
    for y, layer in zip(ys, layers.values(), strict=True):
        axes.text(layer["rate"], y, f" {layer['kept']} of {layer['width']} stay", va="center",
                  fontsize=8)  # fmt: skip
    axes.axvline(note["rate"], color=ORANGE)
    told = list(note.get("clients", {}).values())
    names = [*layers, *(["clients (p_k)"] if told else [])]
    axes.plot(told, [len(layers)] * len(told), "|", color=INK, markersize=14)
    axes.set_yticks(range(len(names)), names, fontsize=8 if len(names) < 16 else 6)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max(1.0, 1.3 * max(layer["rate"] for layer in layers.values())))
    axes.set_xlabel(f"share pruned (orange line: of all weights, {note['rate']:.2f})")
    axes.set_title(f"rates of the layers, pruned in round {cut['round']}", loc="left", fontsize=9.5)
