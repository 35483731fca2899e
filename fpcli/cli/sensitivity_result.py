"""What `fp sensitivity` prints: accuracies by group and ratio, and which groups are robust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpcli.cli import show
from fpcli.pruning.sensitivity import find_largest_ratio, order_by_steepness
from fpcli.units import format_seconds

_MAX_COLUMNS = 10


def sweep_text(content: Mapping[str, Any], out: Path, pictures: Sequence[Path]) -> str:
    """Return the tables of a result, one per score and one more for it after retraining."""
    parts = []
    scores = list(content["groups"][0]["curves"])
    for score in scores:
        for measure in ("accuracy", "retrained_accuracy"):
            if measure in content["groups"][0]["curves"][score]:
                title = f"{score}, retrained" if measure != "accuracy" else score
                is_only = len(scores) == 1 and measure == "accuracy"
                parts.append(("" if is_only else f"{title}\n") + _table(content, score, measure))
    areas = {group["name"]: group["norm_area"] for group in content["groups"]}
    ranking = [f"{name} {areas[name]:.2f}" for name in order_by_steepness(content["groups"])]
    closing = (
        f"whole model {content['baseline_accuracy']:.2%} of {content['images']:,} images; "
        "a group is cut alone, its channels leave together "
        f"({format_seconds(content['seconds'])})\n"
        f"steep (robust) to flat (sensitive), area below sorted norms: {', '.join(ranking)}"
    )
    files = [str(path) for path in [out, *pictures] if path.suffix != ".svg"]
    parts += map(show.prose, (closing, f"saved {', '.join(files)} (pictures also as SVG)"))
    return "\n\n".join(parts)


def _table(content: Mapping[str, Any], score: str, measure: str) -> str:
    ratios, baseline = content["ratios"], content["baseline_accuracy"]
    every = -(-len(ratios) // _MAX_COLUMNS)
    shown = range(0, len(ratios), every)
    points = f"{content['max_drop']:g} point{'s' * (content['max_drop'] != 1)}"
    last = f"largest ratio with a loss of at most {points}"
    head = ["group", "channels", *(f"{100 * ratios[i]:g}%" for i in shown), last]
    rows = []
    for group in content["groups"]:
        curve = group["curves"][score][measure]
        harmless = find_largest_ratio(ratios, curve, baseline, content["max_drop"])
        cells = [f"{100 * curve[i]:.1f}" for i in shown]
        rows.append([group["name"], f"{group['width']:,}", *cells, f"{100 * harmless:g}%"])
    columns = range(len(head))
    return show.align(head, rows, right=columns[1:], leave=show.thin_out(columns[2:-1]))
