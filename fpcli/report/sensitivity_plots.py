"""Pictures of a sensitivity sweep: norms, and the task's metric against the share removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpcli.report.canvas import INK, draw_in_style, make_figure, save_figure
from fpcli.settings.metrics import Metric, find_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEGEND_ROWS = 18
_MOST_COLUMNS = 3


def draw_sensitivity(result: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw a sweep, each picture as PNG and as SVG, as figure 2 of Li et al. (ICLR 2017) does.

    Args:
        result: of ``pruning.sensitivity.result``.
        stem: folder and beginning of the files' names: ``STEM-norms``, ``STEM-accuracy``, or
            another metric in its place, and, where cut models were retrained, ``STEM-retrained``.

    Raises:
        NeedError: the folder cannot be written.
    """
    metric = find_metric(result["metric"])
    with draw_in_style():
        paths = save_figure(_norms(result), stem.with_name(f"{stem.name}-norms"))
        paths += save_figure(
            _curves(result, metric, "", ""), stem.with_name(f"{stem.name}-{metric.name}")
        )
        if f"retrained_{metric.name}" in result["groups"][0]:
            retrained = _curves(result, metric, "retrained_", ", retrained")
            paths += save_figure(retrained, stem.with_name(f"{stem.name}-retrained"))
    return paths


def _norms(result: Mapping[str, Any]) -> Figure:
    groups = result["groups"]
    picture = make_figure(8.5, 4.4)
    axes = picture.subplots()
    for group, colour in zip(groups, _colours(len(groups)), strict=True):
        sizes = group["norms"]
        xs = [100 * (rank + 1) / len(sizes) for rank in range(len(sizes))]
        axes.plot(xs, sizes, color=colour, marker=_marker(len(sizes)), label=group["name"])
    axes.set_xlabel("rank of the filter (% of its group)")
    axes.set_ylabel("l1 norm (largest = 1)")
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 1.05)
    axes.set_title(f"{result['model']}: sorted filter norms", loc="left", fontweight="bold")
    _legend(picture, axes)
    return picture


def _curves(result: Mapping[str, Any], metric: Metric, start: str, remark: str) -> Figure:
    """Draw one panel per score, one line per group, and the whole model's value.

    Args:
        start: of the metric's key, which tells what was done to the cut models.
    """
    scores = list(result["groups"][0]["curves"])
    columns = min(len(scores), _MOST_COLUMNS)
    rows = -(-len(scores) // columns)
    picture = make_figure(3.0 + 5.5 * columns, 0.4 + 4.0 * rows)
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False)
    for score, axes in zip(scores, panels.flat, strict=False):
        curves = [group["curves"][score][start + metric.name] for group in result["groups"]]
        _panel(axes, result, metric, curves)
        axes.set_title(f"ranked by {score}", loc="left", fontsize=9.5)
    for axes in panels.flat[len(scores) :]:
        axes.remove()
    for axes in panels[:, 0]:
        images = f"{metric.name} on {result['images']:,}"
        axes.set_ylabel(f"{images} images (%)" if metric.is_share else f"{images} samples")
    picture.suptitle(
        f"{result['model']}: one group cut at a time{remark}", x=0.01, ha="left", fontweight="bold"
    )
    _legend(picture, panels[0, 0])
    return picture


def _panel(
    axes: Axes, result: Mapping[str, Any], metric: Metric, curves: Sequence[Sequence[float]]
) -> None:
    scale = 100 if metric.is_share else 1
    baseline = scale * result[f"baseline_{metric.name}"]
    xs = [100 * ratio for ratio in result["ratios"]]
    has_zero = xs[0] == 0
    groups = result["groups"]
    for group, curve, colour in zip(groups, curves, _colours(len(groups)), strict=True):
        ys = [scale * value for value in curve]
        axes.plot(
            xs if has_zero else [0, *xs],
            ys if has_zero else [baseline, *ys],
            color=colour,
            marker=".",
            label=group["name"],
        )
    axes.axhline(baseline, color=INK, linestyle=":", linewidth=1)
    axes.set_xlabel("share of the group's channels removed (%)")
    axes.set_xlim(0, max(xs[-1], 1) * 1.02)
    axes.set_ylim(0, 102 if metric.is_share else None)


def _colours(count: int) -> Sequence[Any]:
    from matplotlib import colormaps

    # Unlike those of a rainbow these colours are in order on grey paper too.
    return [colormaps["viridis"](0.92 * number / max(count - 1, 1)) for number in range(count)]


def _marker(num_points: int) -> str:
    return "." if num_points <= 32 else ""


def _legend(picture: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = -(-len(labels) // _LEGEND_ROWS)
    picture.legend(handles, labels, loc="outside right upper", ncols=columns, fontsize=8)
