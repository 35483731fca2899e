"""Sensitivity: what a sweep says about a model's groups, as a file that pruning reads.

Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2 and figure 2.
The paper chooses ratios by eye; the largest ratio within a given loss of accuracy is ours, and so
is every other metric in its place.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fpcli.engine.trained import Trained
from fpcli.errors import DataError, UsageError
from fpcli.pruning.amounts import list_alive
from fpcli.pruning.sweep import (
    BASELINE,
    SweepConfig,
    Tally,
    count_kept,
    key_after_retraining,
    key_of,
    width_of,
)
from fpcli.scores.magnitude import l1
from fpcli.settings.metrics import Metric, find_metric
from fpcli.structure.layout import Layout

SWEEP_FORMAT = 1
"""Format number of a result file."""

KIND = "sensitivity"
_USUAL_METRIC = "accuracy"
_LIMIT_BYTES = 64 * 2**20
_SLACK = 1e-9


def identify_sweep(trained: Trained, config: SweepConfig) -> dict[str, Any]:
    """Return what two sweeps must have in common for one to go on where the other stopped."""
    return {
        "model": trained.model,
        "model_sha256": digest_model(trained),
        "inputs": trained.inputs and asdict(trained.inputs),
        **asdict(config),
    }


def digest_model(trained: Trained) -> str:
    """Return the hex SHA-256 of a model: its layout, what is alive, and all values."""
    total = hashlib.sha256(trained.layout.digest.encode())
    for name, keep in sorted(trained.support.keep.items()):
        total.update(f"{name}{keep.tolist()}".encode())
    for tensors in (trained.support.mask, trained.values):
        for name in sorted(tensors):
            total.update(name.encode())
            total.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def result(
    trained: Trained,
    config: SweepConfig,
    tallies: Mapping[str, Tally],
    *,
    max_drop: float,
    seconds: float,
) -> dict[str, Any]:
    """Return what a finished sweep found, as plain lists and dicts.

    Args:
        tallies: complete.
        max_drop: points of accuracy, or percent of another metric, that a group may lose, for
            ``max_ratio``.
        seconds: that the sweep took.

    Returns:
        What ``fp sensitivity --json`` promises, and more: of each group the curves by all scores
        (the first one's also stand beside the group's name), its l1 norms, largest first, divided
        by the largest, and the area below them. Groups of a small area are steep: few filters
        carry them, and they are robust. The metric that judges stands under its own name.
    """
    baseline, metric = tallies[BASELINE], trained.task.primary
    norms = l1(trained.layout, trained.values)
    groups = []
    for name in trained.layout.prunable:
        curves = {score: _curve(trained, config, tallies, score, name) for score in config.scores}
        first = curves[config.scores[0]]
        sizes = _normalise(norms[name][list_alive(trained.layout, trained.support, name)])
        groups.append(
            {
                "name": name,
                "width": width_of(trained, name),
                "initial_width": trained.layout.groups[name].width,
                **first,
                "max_ratio": find_largest_ratio(
                    config.ratios, first[metric.name], baseline.metric, max_drop, metric
                ),
                "norms": sizes,
                "norm_area": math.fsum(sizes) / len(sizes),
                "curves": curves,
            }
        )
    return {
        "format": SWEEP_FORMAT,
        "kind": KIND,
        **identify_sweep(trained, config),
        "images": baseline.seen,
        "metric": metric.name,
        f"baseline_{metric.name}": baseline.metric,
        "baseline_loss": baseline.loss,
        "max_drop": max_drop,
        "groups": groups,
        "seconds": seconds,
    }


def find_largest_ratio(
    ratios: Sequence[float],
    values: Sequence[float],
    baseline: float,
    max_drop: float,
    metric: Metric,
) -> float:
    """Return the largest ratio whose value is worse by at most ``max_drop`` (`Metric.find_limit`),
    0 if there is none.

    >>> find_largest_ratio([0.1, 0.5, 0.9], [0.9, 0.89, 0.7], 0.9, 1.0, find_metric("accuracy"))
    0.5
    >>> find_largest_ratio([0.1, 0.5, 0.9], [40.0, 41.0, 50.0], 40.0, 5.0, find_metric("mae"))
    0.5
    """
    limit = metric.find_limit(baseline, max_drop)
    slack = _SLACK if metric.direction == "max" else -_SLACK
    judged = zip(ratios, values, strict=True)
    return max((ratio for ratio, x in judged if metric.reaches(x, limit - slack)), default=0.0)


def order_by_steepness(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of groups in the order of the area below their sorted norms."""
    return [group["name"] for group in sorted(groups, key=lambda group: group["norm_area"])]


def read_rates(path: Path, max_drop: float, layout: Layout) -> dict[str, float]:
    """Return for every prunable group the largest ratio that a result file finds harmless.

    Args:
        path: written by ``fp sensitivity``; of untrusted origin.
        max_drop: points of accuracy, or percent of another metric, that a group may lose when it
            alone is cut.
        layout: of the network that is to be pruned.

    Raises:
        UsageError: ``max_drop`` is negative or not finite.
        DataError: the file is missing, damaged, no such result, or of another network.
    """
    if not 0 <= max_drop < math.inf:
        raise UsageError(
            f"a loss of {max_drop:g} cannot be allowed",
            hint="give points of accuracy, or percent of another metric, 0 or more: `--max-drop 1`",
            where="--max-drop",
        )
    content = _read(path)
    try:
        metric = find_metric(str(content.get("metric", _USUAL_METRIC)))
        most = 1.0 if metric.is_share else sys.float_info.max
        baseline = float(content[f"baseline_{metric.name}"])
        ratios = _numbers(content["ratios"], 1)
        rates = {
            str(group["name"]): (
                int(group["initial_width"]),
                find_largest_ratio(
                    ratios, _numbers(group[metric.name], most), baseline, max_drop, metric
                ),
            )
            for group in content["groups"]
        }
    except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    wanted = {name: group.width for name, group in layout.prunable.items()}
    if {name: width for name, (width, _) in rates.items()} != wanted:
        name = next(iter(rates.keys() ^ wanted.keys()), None)
        raise DataError(
            f"{path}: is of another network"
            + (f": `{name}` is not in both" if name else ": its groups have other widths"),
            hint="run `fp sensitivity` on the model that you prune",
            where=str(path),
        )
    return {name: ratio for name, (_, ratio) in rates.items()}


def _curve(
    trained: Trained, config: SweepConfig, tallies: Mapping[str, Tally], score: str, group: str
) -> dict[str, list[float]]:
    """Return the channels that stay, the task's metric and the loss at every ratio."""
    left = count_kept(trained, group, config.ratios)
    keys = [key_of(score, group, num) for num in left]
    metric = trained.task.primary_name
    points = [tallies[key] for key in keys]
    curve: dict[str, list[float]] = {"kept": [*left], **_measures(points, metric)}
    if config.retraining is not None:
        again = _measures([tallies[key_after_retraining(key)] for key in keys], metric)
        curve |= {f"retrained_{name}": values for name, values in again.items()}
    return curve


def _measures(points: Sequence[Tally], metric: str) -> dict[str, list[float]]:
    return {metric: [point.metric for point in points], "loss": [point.loss for point in points]}


def _normalise(norms: Tensor) -> list[float]:
    ordered = norms.double().sort(descending=True).values
    largest = float(ordered[0])
    return [float(x) / largest if largest else 0.0 for x in ordered]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ValueError("it is no result of `fp sensitivity`")
        if content.get("format") != SWEEP_FORMAT:
            raise ValueError(f"format {content.get('format')} is not {SWEEP_FORMAT}, which we read")
    except FileNotFoundError as error:
        raise DataError(
            f"no file {path}", hint="make one with `fp sensitivity -o FILE`", where=str(path)
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    return content


def _numbers(values: Any, limit: float) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(0 <= number <= limit for number in numbers):
        raise ValueError("a number is out of range")
    return numbers


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: cannot be read: {(reason.splitlines() or [''])[0][:200]}",
        hint="the file is damaged or of another kind",
        where=str(path),
    )
