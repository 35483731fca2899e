"""What `fp sensitivity` prints: metrics by group and ratio, and which groups are robust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.cli import show
from fpcli.pruning.sensitivity import find_largest_ratio, order_by_steepness
from fpcli.settings.metrics import Metric, find_metric
from fpcli.units import format_seconds

_MAX_COLUMNS = 10


def sweep_text(content: Mapping[str, Any], out: Path, pictures: Sequence[Path]) -> str:
    """Return the tables of a result, one per score and one more for it after retraining."""
    parts = []
    metric = find_metric(content["metric"])
    scores = list(content["groups"][0]["curves"])
    for score in scores:
        for start in ("", "retrained_"):
            if start + metric.name in content["groups"][0]["curves"][score]:
                title = f"{score}, retrained" if start else score
                is_only = len(scores) == 1 and not start
                table = _table(content, score, metric, start)
                parts.append(("" if is_only else f"{title}\n") + table)
    areas = {group["name"]: group["norm_area"] for group in content["groups"]}
    ranking = [f"{name} {areas[name]:.2f}" for name in order_by_steepness(content["groups"])]
    closing = (
        f"whole model {_describe_baseline(content, metric)}; "
        "a group is cut alone, its channels leave together "
        f"({format_seconds(content['seconds'])})\n"
        f"steep (robust) to flat (sensitive), area below sorted norms: {', '.join(ranking)}"
    )
    files = [str(path) for path in [out, *pictures] if path.suffix != ".svg"]
    parts += map(show.prose, (closing, f"saved {', '.join(files)} (pictures also as SVG)"))
    return "\n\n".join(parts)


def _describe_baseline(content: Mapping[str, Any], metric: Metric) -> str:
    value = metric.format(content[f"baseline_{metric.name}"])
    if metric.is_share:
        return f"{value} of {content['images']:,} images"
    return f"{metric.name} {value} on {content['images']:,} samples"


def _table(content: Mapping[str, Any], score: str, metric: Metric, start: str) -> str:
    """Return the table of a score.

    Args:
        start: of a metric's key, which tells what was done to the cut models.
    """
    ratios, baseline = content["ratios"], content[f"baseline_{metric.name}"]
    every = -(-len(ratios) // _MAX_COLUMNS)
    shown = range(0, len(ratios), every)
    last = f"largest ratio with a loss of at most {metric.name_unit(content['max_drop'])}"
    head = ["group", "channels", *(f"{100 * ratios[i]:g}%" for i in shown), last]
    rows = []
    for group in content["groups"]:
        curve = group["curves"][score][start + metric.name]
        harmless = find_largest_ratio(ratios, curve, baseline, content["max_drop"], metric)
        cells = [f"{100 * curve[i]:.1f}" if metric.is_share else f"{curve[i]:.4g}" for i in shown]
        rows.append([group["name"], f"{group['width']:,}", *cells, f"{100 * harmless:g}%"])
    columns = range(len(head))
    return show.align(head, rows, right=columns[1:], leave=show.thin_out(columns[2:-1]))
