"""Pictures of forgetting: which channels speak of a class, and what a model still knows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpcli.report.canvas import (
    BLUE,
    INK,
    ORANGE,
    count_axis,
    describe_series,
    draw_in_style,
    make_figure,
    save_figure,
)
from fpcli.store.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpcli.methods.unlearn import Scored

_MOST_LAYERS, _MOST_CHANNELS, _MOST_CLASSES = 24, 40, 20
"""Of more of them a cell of the map, or the name of its row, could not be seen."""

_QUANTILES = {"90th percentile": 0.9, "75th": 0.75, "median": 0.5, "10th": 0.1}
_TOP = 3.0
"""Where the colours of the map end, in means over the classes."""

_MOST_NAMED, _MOST_LEVEL = 30, 10
"""Layers that all have a name under their bar, and that have it written level."""


def draw_forgetting(
    classes: Sequence[Scored],
    curves: Mapping[str, Events],
    folder: Path,
    *,
    starts: Mapping[str, tuple[float, float]],
    class_names: Sequence[str],
    search: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw what was pruned for each class, and what came of it, as PNG and as SVG.

    Args:
        classes: from the state of method `unlearn`; ``channels-LABEL`` is drawn for each.
        curves: label -> events of a run that withholds the classes, for ``forgetting``, the
            accuracies on withheld and other classes over the rounds.
        folder: must exist; earlier pictures in it are replaced.
        starts: label -> accuracies on these and on the other classes before the first
            round, in [0, 1], for those of ``curves`` where they are known.
        class_names: one per class.
        search: what `unlearn.ratio_search` found, for ``search``, accuracies over the shares of
            channels that were tried; drawn if there are two or more.

    Raises:
        NeedError: the folder cannot be written.
    """
    paths = []
    with draw_in_style():
        for scored in classes:
            paths += save_figure(
                _channels(scored, class_names), folder / f"channels-{scored.target}"
            )
        paths += save_figure(
            make_forgetting_figure(curves, folder.name, starts), folder / "forgetting"
        )
        if search and len(search["trials"]) > 1:
            paths += save_figure(_search_figure(search, folder.name), folder / "search")
    return paths


class _Map(NamedTuple):
    """One layer: activations ``[rows, channels shown]``, names of the rows, which row is that of
    the class, which columns are pruned, and of the whole layer how many are pruned of how many."""

    layer: str
    cells: NDArray[Any]
    names: Sequence[str]
    target: int
    is_pruned: NDArray[Any]
    num_pruned: int
    width: int


def _channels(scored: Scored, class_names: Sequence[str]) -> Figure:
    """Draw a bar per layer, and a map of the channels of those that lost most."""
    maps = list(_maps(scored, class_names))
    columns = 1 + (len(maps) > 4) + (len(maps) > 12)
    rows = -(-len(maps) // columns)
    height = 0.6 + 0.16 * len(maps[0].names)
    top = 1.8 + (len(scored.scores) > _MOST_LEVEL)
    picture = make_figure(2.8 + 4.2 * columns, 0.6 + top + height * rows)
    grid = picture.add_gridspec(2, 1, height_ratios=(top, height * rows))
    _bars(picture.add_subfigure(grid[0]).subplots(), scored)
    below = picture.add_subfigure(grid[1])
    panels = below.subplots(rows, columns, squeeze=False)
    for channel_map, axes in zip(maps, panels.T.flat, strict=False):
        image = _panel(axes, channel_map, most=max(len(x.is_pruned) for x in maps))
    for axes in panels.T.flat[len(maps) :]:
        axes.remove()
    bar = below.colorbar(
        image,
        ax=list(panels.T.flat[: len(maps)]),
        extend="max",
        shrink=min(1, 2.2 / (height * rows)),
        aspect=14,
        pad=0.015,
    )
    bar.set_label("activation\n(mean of the channel over the classes = 1)", fontsize=8)
    left_out = len(scored.scores) - len(maps)
    more = f", the {len(maps)} layers that lost most" if left_out else ""
    below.suptitle(
        f"channels by score, highest first{more}; orange: pruned", x=0.01, ha="left", fontsize=9.5
    )
    num_pruned, total = (sum(map(len, x.values())) for x in (scored.pruned, scored.scores))
    picture.suptitle(
        f"class {class_names[scored.target]}: {num_pruned:,} of {total:,} channels pruned",
        x=0.01, ha="left", fontweight="bold",
    )  # fmt: skip
    return picture


def _maps(scored: Scored, class_names: Sequence[str]) -> Iterator[_Map]:
    """Yield layers in the order of the network; of many those that lost most channels."""
    lost = {layer: len(channels) for layer, channels in scored.pruned.items()}
    shown = sorted(lost, key=lambda layer: -lost[layer])[:_MOST_LAYERS]
    for layer in scored.scores:
        if layer in shown:
            yield _map(layer, scored, class_names)


def _map(layer: str, scored: Scored, class_names: Sequence[str]) -> _Map:
    scores, pruned = scored.scores[layer].numpy(), scored.pruned[layer].numpy()
    is_pruned = np.isin(np.arange(len(scores)), pruned)
    order = np.argsort(-scores, kind="stable")
    # Those that went come first, so that they are seen however low they score.
    first = np.concatenate([order[is_pruned[order]], order[~is_pruned[order]]])[:_MOST_CHANNELS]
    columns = order[np.isin(order, first)]
    values = scored.activations[layer].numpy().astype(np.float64)[:, columns]
    means = values.mean(0)
    cells = np.divide(values, means, out=np.zeros_like(values), where=means > 0)
    names, target = list(class_names), scored.target
    if len(names) > _MOST_CLASSES:
        others = np.delete(cells, target, axis=0)
        quantiles = np.quantile(others, list(_QUANTILES.values()), axis=0)
        cells = np.concatenate([cells[target, None], quantiles])
        names = [names[target], *(f"others, {word}" for word in _QUANTILES)]
        target = 0
    return _Map(layer, cells, names, target, is_pruned[columns], len(pruned), len(scores))


def _panel(axes: Axes, channel_map: _Map, most: int) -> Any:
    """Draw one map: a frame around the class's row, orange over what is pruned; ``most`` columns
    are as wide as the panel."""
    from matplotlib.patches import Rectangle

    rows, columns = channel_map.cells.shape
    image = axes.imshow(
        channel_map.cells, cmap="Blues", vmin=0, vmax=_TOP, aspect="auto", interpolation="nearest"
    )
    axes.grid(visible=False)
    axes.set_xlim(-0.6, most - 0.4)
    axes.set_ylim(rows - 0.4, -1.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.add_patch(
        Rectangle(
            (-0.5, channel_map.target - 0.5), columns, 1, fill=False, edgecolor=INK, linewidth=1.1
        )
    )
    for column in np.flatnonzero(channel_map.is_pruned):
        axes.add_patch(Rectangle((column - 0.42, -1.4), 0.84, 0.6, color=ORANGE, linewidth=0))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_yticks(range(rows), channel_map.names, fontsize=7)
    axes.get_yticklabels()[channel_map.target].set(color=INK, fontweight="bold")
    shown = f", {columns} shown" if columns < channel_map.width else ""
    axes.set_title(
        f"{channel_map.layer}: {channel_map.num_pruned} of {channel_map.width} pruned{shown}",
        loc="left",
        fontsize=8.5,
    )
    return image


def _bars(axes: Axes, scored: Scored) -> None:
    """Draw the share of its channels that every layer lost."""
    layers = list(scored.scores)
    shares = [100 * len(scored.pruned[x]) / len(scored.scores[x]) for x in layers]
    places = range(len(layers))
    axes.bar(places, shares, color=ORANGE, width=0.8)
    every = -(-len(layers) // _MOST_NAMED)
    rotation, side = (60, "right") if len(layers) > _MOST_LEVEL else (0, "center")
    axes.set_xticks(places[::every], layers[::every], fontsize=8, rotation=rotation, ha=side)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(-0.7, max(len(layers), 8) - 0.3)
    axes.set_ylabel("pruned (% of layer)")


def make_forgetting_figure(
    curves: Mapping[str, Events],
    title: str,
    starts: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Return two panels, accuracy on the withheld and on the other classes over the rounds, with
    a line for each run (arguments as in :func:`draw_forgetting`; a run without rounds judged on
    withheld classes has none)."""
    picture = make_figure(9, 3.8)
    panels = picture.subplots(1, 2, sharey=True)
    for number, (label, history) in enumerate(curves.items()):
        judged = [event for event in history if event.get("withheld") and event.get("test")]
        start = (starts or {}).get(label)
        xs = [0] * bool(start) + [event["round"] for event in judged]
        for axes, split, first in zip(panels, ("withheld", "test"), start or (0, 0), strict=True):
            ys = [first] * bool(start) + [event[split]["accuracy"] for event in judged]
            axes.plot(
                xs, [100 * y for y in ys], label=label, clip_on=False,
                **describe_series(number, len(xs)),
            )  # fmt: skip
    for axes, what in zip(panels, ("withheld", "other"), strict=True):
        axes.set_title(f"{what} classes", loc="left", fontsize=9.5)
        axes.set_xlabel("round")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 102)
        count_axis(axes)
    panels[0].set_ylabel("test accuracy (%)")
    if len(curves) > 1:
        picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    picture.suptitle(f"{title}: withheld and other classes", x=0.01, ha="left", fontweight="bold")
    return picture


def _search_figure(search: Mapping[str, Any], title: str) -> Figure:
    """Draw what every share that was tried left of the class, and of the other classes."""
    trials = sorted(search["trials"], key=lambda trial: float(trial["ratio"]))
    shares = [100 * trial["ratio"] for trial in trials]
    picture = make_figure(8, 3.8)
    axes = picture.subplots()
    for key, what, colour, marker in (
        ("forget_accuracy", "forgotten class", ORANGE, "s"),
        ("retain_accuracy", "other classes", BLUE, "o"),
    ):
        before = 100 * trials[0][key]["original"]
        axes.axhline(before, color=colour, linewidth=0.8, linestyle=":", label=f"{what}, before")
        for stage, words, style in (("pruned", "pruned", "--"), ("finetuned", "fine-tuned", "-")):
            ys = [100 * trial[key][stage] for trial in trials]
            axes.plot(
                shares, ys, style, color=colour, marker=marker, markersize=4, clip_on=False,
                label=f"{what}, {words}",
            )  # fmt: skip
    if search["ratio"] is not None:
        axes.axvline(100 * search["ratio"], color=INK, linewidth=0.8, label="smallest that forgets")
    axes.set_xlim(0, 100 * search["max_ratio"])
    axes.set_ylim(0, 102)
    axes.set_xlabel("share of the channels pruned (%)")
    axes.set_ylabel("accuracy on clients' samples (%)")
    picture.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    picture.suptitle(f"{title}: shares tried", x=0.01, ha="left", fontweight="bold")
    return picture
