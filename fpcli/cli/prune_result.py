"""What `fp prune` prints at its end: the table of what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fpcli.cli import show
from fpcli.engine.trained import Trained
from fpcli.pruning.latency import BATCHES, measure_latency_ms
from fpcli.units import format_bytes


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
    if before["accuracy"] is not None:
        rows.append(_accuracy_row("test accuracy", before, after, "accuracy"))
        rows.append(_accuracy_row("  before retraining", before, pruned, "accuracy"))
        rows.append(_accuracy_row("validation accuracy", before, after, "validation_accuracy"))
    for batch, old in report.get("latency_ms", {}).get("before", {}).items():
        new = report["latency_ms"]["after"][batch]
        rows.append(_row(f"latency of {batch}", old, new, lambda ms: f"{ms:.2f} ms"))
    return show.align(("", "before", "after", "change"), rows, right=(1, 2, 3))


def _row(
    name: str, before: float, after: float, form: Any = lambda number: f"{number:,.0f}"
) -> tuple[str, ...]:
    return name, form(before), form(after), _change({"before": before, "after": after})


def _accuracy_row(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], key: str
) -> tuple[str, ...]:
    points = 100 * (after[key] - before[key])
    return name, f"{before[key]:.2%}", f"{after[key]:.2%}", f"{points:+.2f} points"


def _change(item: Mapping[str, Any]) -> str:
    return f"{item['after'] / item['before'] - 1:+.1%}"


def measure_latencies(before: Trained, after: Trained, device: str) -> dict[str, dict[str, float]]:
    """Return measured milliseconds, per number of images, of two models on this machine."""
    models = [trained.module().to(device) for trained in (before, after)]
    times = {str(batch): measure_latency_ms(models, before.input_shape, batch) for batch in BATCHES}
    return {
        name: {batch: both[number] for batch, both in times.items()}
        for number, name in enumerate(("before", "after"))
    }


def warn_of_latency(latency: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for every number of images where the smaller model is not faster."""
    return [
        f"not faster here with {batch} image{'s' * (batch != '1')} at once: {old:.2f} ms before, "
        f"{latency['after'][batch]:.2f} ms after"
        for batch, old in latency["before"].items()
        if latency["after"][batch] >= old
    ]
