"""A comparison as a table: for the terminal and pages, as Markdown, as CSV, and as plain data."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fpcli.report.compare import ComparedRow, Comparison, list_primaries, list_shown
from fpcli.report.measures import LATENCIES, Value, to_text
from fpcli.report.runs import Run
from fpcli.settings.metrics import BEST, CLIENTS, LOCAL, find_metric


class ComparisonTable(NamedTuple):
    """Headers and cells; ``right`` numbers the columns that hold numbers."""

    headers: list[str]
    rows: list[list[str]]
    right: list[int]


def choose_columns(comparison: Comparison) -> dict[str, str]:
    """Return measure -> header of what a table shows."""
    commands = {run.command for row in comparison.rows for run in row.runs}
    rounds = "rounds" if commands == {"train"} else "epochs"
    is_mixed = "train" in commands and len(commands) > 1
    words = {"rounds": "rounds or epochs" if is_mixed else rounds}
    if "train" in commands:
        words |= {"bytes": "down+up", "clock_s": "clock"}
    primaries = list_primaries(comparison.rows)
    titles = {}
    for name in list_shown(comparison.rows):
        titles[name] = f"test {_shorten(name)} last"
        if name in primaries:
            of = f"{_shorten(name)} " * (len(primaries) > 1)
            titles[BEST + name] = f"{of}at best val"
            titles |= _columns_with_numbers(
                comparison,
                {
                    CLIENTS + name: f"clients' {_shorten(name)}",
                    LOCAL + name: f"local {_shorten(name)}",
                },
            )
    judged = " or ".join(map(_shorten, primaries))
    titles |= {
        f"at_{n}": f"test {judged} at {budget}"
        for n, budget in enumerate(comparison.budgets, start=1)
    }
    if not comparison.target:
        titles |= words
    else:
        goal = " and ".join(_format_goal(*pair) for pair in comparison.target.items())
        titles |= {f"target_{name}": f"{word} to {goal}" for name, word in words.items()}
    titles |= {"params": "params", "macs": "multiply-adds"}
    if commands == {"train"}:
        return titles
    images = {name: f"latency of {images}" for name, images in LATENCIES.items()}
    return titles | _columns_with_numbers(comparison, images | {"file_bytes": "model file"})


def _shorten(metric: str) -> str:
    return metric.replace("accuracy", "acc")


def _format_goal(metric: str, value: float) -> str:
    text = f"{100 * value:g}%" if find_metric(metric).is_share else f"{value:g}"
    return f"{text} val {_shorten(metric)}"


def _columns_with_numbers(comparison: Comparison, titles: Mapping[str, str]) -> dict[str, str]:
    """Return those that some row has a number for."""
    return {
        name: title
        for name, title in titles.items()
        if any(name in row.values and row.values[name].num_known for row in comparison.rows)
    }


def format_comparison(comparison: Comparison) -> ComparisonTable:
    """Return a comparison as text: means, with ± half of the 95 % interval over seeds."""
    shown = choose_columns(comparison)
    headers = ["run", "seeds", *shown.values(), "differs in"]
    rows = [
        [
            row.label,
            str(len(row.runs)),
            *(format_cell(row.find_unit(key), row.values[key], len(row.runs)) for key in shown),
            list_differing(row, is_reference=row.label == comparison.reference),
        ]
        for row in comparison.rows
    ]
    return ComparisonTable(headers, rows, list(range(1, len(headers) - 1)))


def format_cell(name: str, value: Value, num_runs: int) -> str:
    """Return a measure as text.

    >>> format_cell("accuracy", Value(0.9694, 0.0041, 3), 3)
    '96.94% ± 0.41'
    >>> format_cell("rounds", Value(None, None, 2), 3)
    '2 of 3 seeds'
    """
    if value.mean is None:
        return f"{value.num_known} of {num_runs} seeds" if value.num_known else "-"
    text = to_text(name, value.mean)
    if not value.half_width:
        return text
    half = to_text(name, value.half_width)
    return f"{text} ± {half.removesuffix('%')}"


def list_differing(row: ComparedRow, *, is_reference: bool) -> str:
    """Return the settings that set a row apart, as `key=value`."""
    words = [f"{key}={format_setting(value)}" for key, value in row.differs.items()]
    return " ".join(["(reference)"] * is_reference + words)


def format_setting(value: Any) -> str:
    """Return a setting as it is written in a recipe, in one word where possible."""
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


def list_notes(comparison: Comparison) -> list[str]:
    """Return what a reader must know about the numbers."""
    if len(comparison.rows) == len(comparison.rows[0].runs) == 1:
        return []
    if any(len(row.runs) > 1 for row in comparison.rows):
        texts = ["± is half of the 95 % interval of the mean over seeds"]
    else:
        texts = ["one seed each: give several seeds of a setting for a mean and its 95 % interval"]
    if sum(bool(run.latency_ms) for row in comparison.rows for run in row.runs) > 2:
        texts.append("latencies are of different calls; `fp bench` times models side by side")
    base = next(row for row in comparison.rows if row.label == comparison.reference).runs[0]
    if (points := _chance(base)) and any(len(row.runs) == 1 for row in comparison.rows):
        texts.append(
            f"for one seed, differences of {base.metrics[0]} below {points:.1f} points are within "
            "what the size of the test set leaves to chance"
        )
    return texts


def _chance(run: Run) -> float | None:
    """Return 1.96 standard errors of the difference of two shares of test samples like a run's
    primary metric, if that is such a share."""
    score = run.judged[-1]["test"] if run.judged else {}
    if not score.get("num_examples") or not find_metric(run.metrics[0]).is_share:
        return None
    share = score[run.metrics[0]] or 0.0
    return 100 * 1.96 * math.sqrt(2 * share * (1 - share) / score["num_examples"])


def to_markdown(comparison: Comparison) -> str:
    """Return a comparison as a table in Markdown."""
    headers, rows, right = format_comparison(comparison)
    rule = ["---:" if number in right else "---" for number in range(len(headers))]
    lines = [headers, rule, *rows]
    return "\n".join(f"| {' | '.join(map(_markdown, line))} |" for line in lines)


def _markdown(text: str) -> str:
    for character in "\\|`*<[":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def to_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV: plain numbers, one line per row, settings in the last columns."""
    items = [make_item(row) for row in comparison.rows]
    names = [name for name in items[0] if name not in ("paths", "seeds", "interval", "differs")]
    settings = list(dict.fromkeys(key for row in comparison.rows for key in row.differs))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    halves = [f"{name}_interval" for name in items[0]["interval"]]
    writer.writerow([*names, "seeds", *halves, *settings])
    for record in items:
        columns = [
            format_setting(record["differs"][key]) if key in record["differs"] else ""
            for key in settings
        ]
        seeds = " ".join(map(str, record["seeds"]))
        writer.writerow(
            [*(record[k] for k in names), seeds, *record["interval"].values(), *columns]
        )
    return text.getvalue().rstrip("\n")


def make_item(row: ComparedRow) -> dict[str, Any]:
    """Return a row as plain data: means by measure, and half of their intervals."""
    return {
        "run": row.label,
        "method": row.runs[0].method,
        "paths": [str(run.path) for run in row.runs],
        "seeds": list(row.seeds),
        **{key: value.mean for key, value in row.values.items()},
        "interval": {key: value.half_width for key, value in row.values.items()},
        "differs": dict(row.differs),
    }


def to_data(comparison: Comparison) -> Mapping[str, Any]:
    """Return a comparison as the contract of ``fp compare --json`` has it."""
    return {
        "runs": [make_item(row) for row in comparison.rows],
        "reference": comparison.reference,
        "target": dict(comparison.target),
        "budgets": [{budget.effort: budget.limit} for budget in comparison.budgets],
    }
