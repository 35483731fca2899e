"""What `fp prune` prints at its end: the table of what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fpcli.cli import show
from fpcli.engine.trained import Trained
from fpcli.pruning.latency import BATCHES, FASTER, UNDECIDED, compare_latency, judge_pair
from fpcli.settings.metrics import Metric, find_metric
from fpcli.units import format_bytes

COLLAPSE = 10.0
"""Loss, in points of accuracy or percent of another metric, that a user should not be left alone
with: retraining seldom fails to bring most of it back, while a smaller one may be what was wanted.
"""


def pruning_text(report: Mapping[str, Any]) -> str:
    """Return the tables of a report."""
    groups = [
        (item["name"], f"{item['before']:,}", f"{item['after']:,}", _change(item))
        for item in report["groups"]
    ]
    head = ("group", "before", "after", "change")
    tables = [show.align(head, groups, right=(1, 2, 3)), _sizes(report)]
    if "out" in report:
        tables.append(f"wrote {report['out']}/model.safetensors, {report['out']}/layout.json")
    return "\n\n".join(tables)


def _sizes(report: Mapping[str, Any]) -> str:
    before, pruned, after = (report[key] for key in ("before", "pruned", "after"))
    count = report["paper_count"]
    rows = [
        _row("parameters", before["params"], after["params"]),
        _row("multiply-adds", before["macs"], after["macs"]),
        _row("bytes", before["bytes"], after["bytes"], format_bytes),
        _row("weights, as papers count", count["before"]["weights"], count["after"]["weights"]),
        _row("multiply-adds of these", count["before"]["macs"], count["after"]["macs"]),
    ]
    metric = find_metric(report["metric"])
    name = metric.name
    if before[name] is not None:
        rows.append(_metric_row(f"test {name}", before, after, metric))
        if report["recalibrated"]:
            rows.append(_metric_row("  before recalibration", before, pruned, metric))
        untrained = report["recalibrated"] or pruned
        if untrained[name] != after[name]:
            rows.append(_metric_row("  before retraining", before, untrained, metric))
        rows.append(_metric_row(f"validation {name}", before, after, metric, "validation_"))
    for batch, pair in report.get("latency_pairs", {}).items():
        times = [f"{report['latency_ms'][stage][batch]:.2f} ms" for stage in ("before", "after")]
        rows.append((f"latency of {batch}", *times, _spread(pair)))
    return show.align(("", "before", "after", "change"), rows, right=(1, 2, 3))


def _row(
    name: str, before: float, after: float, form: Any = lambda number: f"{number:,.0f}"
) -> tuple[str, ...]:
    return name, form(before), form(after), _change({"before": before, "after": after})


def _metric_row(
    title: str, before: Mapping[str, Any], after: Mapping[str, Any], metric: Metric, split: str = ""
) -> tuple[str, ...]:
    old, new = (stage[split + metric.name] for stage in (before, after))
    return title, metric.format(old), metric.format(new), metric.format_change(old, new)


def _change(item: Mapping[str, Any]) -> str:
    return f"{item['after'] / item['before'] - 1:+.1%}"


def _spread(pair: Mapping[str, Any]) -> str:
    if pair["verdict"] == UNDECIDED:
        return UNDECIDED
    median, low, high = (f"{pair[key] - 1:+.1%}" for key in ("ratio", "low", "high"))
    return f"{median} ({low} to {high})"


def measure_latencies(before: Trained, after: Trained, device: str) -> dict[str, dict[str, Any]]:
    """Return measured milliseconds of two models on this machine, and how they compare, by the
    number of images."""
    old, new = (trained.module().to(device) for trained in (before, after))
    changes = {
        str(n): compare_latency(old, new, before.task.make_example(before.input_shape, n))
        for n in BATCHES
    }
    return {
        "latency_ms": {
            "before": {batch: change.before_ms for batch, change in changes.items()},
            "after": {batch: change.after_ms for batch, change in changes.items()},
        },
        "latency_pairs": {
            batch: {**asdict(change.pair), "verdict": judge_pair(change.pair)}
            for batch, change in changes.items()
        },
    }


def warn_of_latency(pairs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for every number of images where the smaller model is not faster."""
    return [
        f"not faster here with {batch} image{'s' * (batch != '1')} at once: {pair['verdict']}; "
        f"the median ratio of {pair['num']} pairs in turns is {pair['ratio']:.3f}, its 95 % "
        f"interval {pair['low']:.3f} to {pair['high']:.3f}"
        for batch, pair in pairs.items()
        if pair["verdict"] != FASTER
    ]


def hint_at_collapse(report: Mapping[str, Any], source: str, *, is_trained: bool) -> str:
    """Return what to do about a metric that broke down, or "" where it did not.

    Args:
        source: the model, as the command line names it.
        is_trained: there was training after the cut already.
    """
    metric = find_metric(report["metric"])
    before, after = (report[stage][metric.name] for stage in ("before", "after"))
    if is_trained or metric.reaches(after, metric.find_limit(before, COLLAPSE)):
        return ""
    return (
        f"{_say_loss(metric, before, after)}, and nothing was retrained: `--finetune 5` "
        "trains what is left, `--finetune 5 --steps 3` cuts in portions with training after each; "
        f"`fp sensitivity {source}` shows which layers can lose how much, for `--rates sens.json`"
    )


def _say_loss(metric: Metric, before: float, after: float) -> str:
    if metric.is_share:
        return f"{100 * (before - after):.1f} points of {metric.name} went"
    return f"{metric.name} went from {metric.format(before)} to {metric.format(after)}"
