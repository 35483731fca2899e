"""Pictures that only some runs have material for: densities, coverage, and those of other files."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fpcli.report.canvas import BLUE, GREY, INK, MARKERS, ORANGE, SERIES, count_axis, make_figure
from fpcli.report.client_plots import draw_clients
from fpcli.report.filter_plot import draw_filters
from fpcli.report.forgetting_plots import make_forgetting_figure
from fpcli.report.mask_plot import draw_masks
from fpcli.report.pace_plot import draw_pace
from fpcli.report.rounding_plot import draw_rounding
from fpcli.report.server_plots import draw_steps, has_steps
from fpcli.report.sparsity_plot import draw_sparsity
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_methods(rounds: Events, title: str) -> Iterator[tuple[str, Figure]]:
    """Yield file stem and figure of every picture that the events have material for.

    ``density`` if rounds note the density per layer, or ``sparsity`` in its place if they note a
    target too, ``coverage`` if some client held less than the whole model, ``levels`` if clients
    have a level each, ``clients`` if clients' own models were judged, ``forgetting`` if classes
    were withheld, ``filters`` if rounds note spectra of filters, ``importance`` if some note the
    scores of neurons that are kept and removed, ``steps`` if rounds note what the server trained or
    pruned by layers, ``masks`` if rounds note which units of layers stay, ``pace`` if some note
    clients that were left out for being slow, ``rounding`` if they note what rounding takes from
    the model.
    """
    dense = [event for event in rounds if "density" in event.get("notes", {})]
    if dense and "target_sparsity" in dense[0]["notes"]:
        yield "sparsity", draw_sparsity(dense, title)
    elif dense:
        yield "density", _density(dense, title)
    if any(client["pruning_error"] > 0 for event in rounds for client in event["clients"]):
        yield "coverage", _coverage(rounds, title)
    if any("level" in client["notes"] for event in rounds for client in event["clients"]):
        yield "levels", _levels(rounds, title)
    personal = [event for event in rounds if event.get("personal")]
    if personal:
        yield "clients", draw_clients(rounds, personal, title)
    if any(event.get("withheld") for event in rounds):
        yield "forgetting", make_forgetting_figure({title: rounds}, title)
    if rounds and "spectra_before" in rounds[0].get("notes", {}):
        yield "filters", draw_filters(rounds, title)
    scored = [event for event in rounds if "importance" in event.get("notes", {})]
    if scored:
        yield "importance", _importance(scored, title)
    if has_steps(rounds):
        yield "steps", draw_steps(rounds, title)
    ranked = [
        event for event in rounds if event.get("notes", {}).get("kept_units", {}).get("layers")
    ]
    if ranked:
        yield "masks", draw_masks(ranked, title)
    paced = [event for event in rounds if "left_out" in event.get("notes", {})]
    if any(event["notes"]["left_out"] for event in paced):
        yield "pace", draw_pace(paced, title)
    rounded = [event for event in rounds if event.get("notes", {}).get("rounding")]
    if rounded:
        yield "rounding", draw_rounding(rounded, title)


def _density(rounds: Events, title: str) -> Figure:
    """Draw the share of alive weights of every layer, and of all of them, over the rounds."""
    from matplotlib import colormaps

    picture = make_figure(9, 4.2)
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
    picture = make_figure(10, 3.8)
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


def _importance(scored: Events, title: str) -> Figure:
    """Draw the scores of every layer's neurons, sorted, as the last mask had them, and a line for
    the first mask where there were several."""
    layers = scored[-1]["notes"]["importance"]
    columns = min(len(layers), 3)
    rows = -(-len(layers) // columns)
    picture = make_figure(1.5 + 3.4 * columns, 1.2 + 2.3 * rows)
    panels = picture.subplots(rows, columns, squeeze=False)
    colours = {"kept": BLUE, "removed": ORANGE}
    for axes, (name, parts) in zip(panels.flat, layers.items(), strict=False):
        marked = [(score, part) for part in colours for score in parts[part]]
        marked.sort(key=lambda pair: -pair[0])
        for part, colour in colours.items():
            ranks = [rank for rank, (_, other) in enumerate(marked, 1) if other == part]
            heights = [score for score, other in marked if other == part]
            axes.bar(ranks, heights, width=1.0, color=colour, label=part)
        if len(scored) > 1:
            before = scored[0]["notes"]["importance"][name]
            ys = sorted([*before["kept"], *before["removed"]], reverse=True)
            label = f"first mask, round {scored[0]['round']}"
            axes.plot(range(1, len(ys) + 1), ys, color=INK, linewidth=1.2, label=label)
        axes.set_ylim(bottom=0)
        axes.set_title(
            f"{name} ({len(parts['kept'])} of {len(marked)} kept)", loc="left", fontsize=9
        )
        count_axis(axes)
    for axes in panels.flat[len(layers) :]:
        axes.remove()
    for axes in panels[-1]:
        axes.set_xlabel("neuron, by rank")
    for axes in panels[:, 0]:
        axes.set_ylabel("score")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right upper", fontsize=8)
    text = f"{title}: importance of neurons after round {scored[-1]['round']}"
    picture.suptitle(text, x=0.01, ha="left", fontweight="bold")
    return picture


def _levels(rounds: Events, title: str) -> Figure:
    """Draw how many clients of a round have each level, and by level the seconds that they took,
    beside the deadline that the levels are meant for, if rounds note one."""
    deadlines = [
        (event["round"], event["notes"]["level_deadline_s"])
        for event in rounds
        if "level_deadline_s" in event["notes"]
    ]
    picture = make_figure(10, 3.8)
    left, right = picture.subplots(1, 2)
    pairs = [
        (event["round"], client)
        for event in rounds
        for client in event["clients"]
        if "level" in client["notes"]
    ]
    xs, below = [event["round"] for event in rounds], [0] * len(rounds)
    for number, level in enumerate(sorted({client["notes"]["level"] for _, client in pairs})):
        members = [(at, client) for at, client in pairs if client["notes"]["level"] == level]
        counts = [sum(at == x for at, _ in members) for x in xs]
        colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
        left.bar(xs, counts, bottom=below, width=0.9, color=colour, label=f"level {level}")
        below = [a + b for a, b in zip(below, counts, strict=True)]
        took = [(at, c["compute_s"] + c["down_s"] + c["up_s"]) for at, c in members]
        right.plot(*zip(*took, strict=True), marker, color=colour, markersize=4, alpha=0.6)
    if deadlines:
        right.plot(*zip(*deadlines, strict=True), color=INK, linestyle="--", label="deadline")
        right.legend(loc="best")
    left.set_ylabel("clients")
    left.set_title("clients at each level", loc="left", fontsize=9.5)
    right.set_yscale("log")
    right.set_ylabel("simulated seconds")
    right.set_title("seconds of each client's round", loc="left", fontsize=9.5)
    for axes in (left, right):
        axes.set_xlabel("round")
        count_axis(axes)
    picture.legend(*left.get_legend_handles_labels(), loc="outside right upper")
    picture.suptitle(f"{title}: levels", x=0.01, ha="left", fontweight="bold")
    return picture
