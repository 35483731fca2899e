"""Put runs side by side: rows of runs that differ in their seed only, and what sets rows apart."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fpcli.errors import UsageError, suggest
from fpcli.report.measures import (
    EFFORTS,
    SHORT,
    Budget,
    Value,
    average_seeds,
    measure_effort,
    measure_run,
)
from fpcli.report.run_settings import list_differences
from fpcli.report.runs import Run
from fpcli.store.events import replace_nan


@dataclass(frozen=True)
class ComparedRow:
    """Runs with the same settings but for the seed.

    Attributes:
        label: what the row is called; no two rows of a comparison share it.
        values: measure -> its mean over the runs.
        differs: settings that the reference does not share; the reference's own row holds its
            value of every setting that any row does not share.
    """

    label: str
    runs: tuple[Run, ...]
    values: Mapping[str, Value]
    differs: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs; of prunings those of the models, if these differ."""
        trained = [run.source_seed for run in self.runs if run.source_seed is not None]
        if len({*trained}) > 1 and len(trained) == len(self.runs):
            return tuple(trained)
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Rows, and what they were asked.

    Attributes:
        reference: label of the row that the others are set against.
        target: validation accuracy whose price is asked for.
        budgets: efforts after which accuracy is asked for.
    """

    rows: tuple[ComparedRow, ...]
    reference: str
    target: float | None
    budgets: tuple[Budget, ...]
    warnings: tuple[str, ...]

    def field(self, name: str) -> str:
        """Return the measure that a word of the command line means.

        ``rounds``, ``bytes``, ``clock`` and ``real`` are the price of the target where there is
        one, else that of the whole run.
        """
        name = SHORT.get(name, name)
        return f"target_{name}" if self.target is not None and name in EFFORTS else name

    def named(self, name: str) -> list[ComparedRow]:
        """Return the rows that a label, a run's folder name or a method's name stands for."""
        rows = [row for row in self.rows if row.label == name]
        if not rows:
            runs = [run for row in self.rows for run in row.runs if run.name == name]
            rows = [_row(run.name, (run,), self.target, self.budgets) for run in runs]
        return rows or [row for row in self.rows if row.runs[0].method == name]

    def names(self) -> list[str]:
        """Return everything that ``named`` knows."""
        runs = [run for row in self.rows for run in row.runs]
        labels = [row.label for row in self.rows]
        return list(dict.fromkeys([*labels, *(r.name for r in runs), *(r.method for r in runs)]))


def compare_runs(
    runs: Sequence[Run],
    *,
    target: float | None = None,
    budgets: Sequence[Budget] = (),
    reference: str | None = None,
    by: str | None = None,
) -> Comparison:
    """Group runs into rows and set the rows against one of them.

    Args:
        runs: at least one.
        target, budgets: see ``measures.measure``.
        reference: a name as in ``Comparison.named``; None takes the first row.
        by: a measure that rows are sorted by, accuracies from the highest, costs from the lowest.

    Raises:
        UsageError: ``reference`` names no row, or several.
    """
    groups = _groups(_share_latencies(runs))
    rows = [
        _row(label, group, target, budgets)
        for label, group in zip(_labels(groups), groups, strict=True)
    ]
    comparison = Comparison(tuple(rows), rows[0].label, target, tuple(budgets), ())
    base = _reference(comparison, reference)
    rows = _with_differences(rows, base)
    if by is not None:
        key = comparison.field(by)
        sign = -1 if key.endswith("accuracy") else 1
        rows.sort(key=lambda row: _order(row.values[key].mean, sign))
    warnings = _warnings(runs, rows, budgets)
    return replace(comparison, rows=tuple(rows), reference=base.label, warnings=warnings)


def _order(value: float | None, sign: int) -> float:
    return math.inf if value is None else sign * value


def _share_latencies(runs: Sequence[Run]) -> list[Run]:
    """Give models that were pruned the latency that was measured side by side with the results'."""
    shared = []
    for run in runs:
        times = [other.latency_before_ms for other in runs if other.source == run.name]
        images = {key for before in times for key in before} if run.command != "prune" else set()
        medians = {
            key: statistics.median(before[key] for before in times if key in before)
            for key in images
        }
        shared.append(replace(run, latency_ms=medians) if medians else run)
    return shared


def _groups(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Collect runs by their settings; a second run of the same seeds opens a group of its own."""
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        settings = json.dumps(replace_nan(run.important), sort_keys=True, default=str)
        turn = 0
        seeds = (run.seed, run.source_seed)
        while any(
            seeds == (other.seed, other.source_seed) for other in groups.get((settings, turn), ())
        ):
            turn += 1
        groups.setdefault((settings, turn), []).append(run)
    return [tuple(group) for group in groups.values()]


def _labels(groups: Sequence[tuple[Run, ...]]) -> list[str]:
    """Return short names, made longer by parent folders and numbers where they are not unique."""
    labels = [_label(group) for group in groups]
    parents = [group[0].path.resolve().parent.name for group in groups]
    counts = Counter(labels)
    pairs = zip(parents, labels, strict=True)
    labels = [f"{parent}/{label}" if counts[label] > 1 else label for parent, label in pairs]
    counts = Counter(labels)
    return [
        f"{label}#{labels[: number + 1].count(label)}" if counts[label] > 1 else label
        for number, label in enumerate(labels)
    ]


def _label(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs]
    if len(names) == 1:
        return names[0]
    stems = {name.removesuffix(f"-s{run.seed}") for name, run in zip(names, runs, strict=True)}
    return stems.pop() if len(stems) == 1 else f"{names[0]} and {len(names) - 1} more"


def _row(
    label: str, runs: tuple[Run, ...], target: float | None, budgets: Sequence[Budget]
) -> ComparedRow:
    measured = [measure_run(run, target, budgets) for run in runs]
    return ComparedRow(
        label,
        runs,
        {key: average_seeds([values[key] for values in measured]) for key in measured[0]},
        {},
    )


def _reference(comparison: Comparison, name: str | None) -> ComparedRow:
    if name is None:
        return comparison.rows[0]
    runs = {run.path for row in comparison.named(name) for run in row.runs}
    rows = [row for row in comparison.rows if runs & {run.path for run in row.runs}]
    if len(rows) == 1:
        return rows[0]
    labels = ", ".join(row.label for row in rows or comparison.rows)
    raise UsageError(
        f"--reference: `{name}` names {'several rows' if rows else 'no run of these'}",
        hint=suggest(name, comparison.names()) if not rows else f"choose one: {labels}",
        where="--reference",
    )


def _with_differences(rows: Sequence[ComparedRow], base: ComparedRow) -> list[ComparedRow]:
    """Fill in what sets every row apart from the reference."""
    settings = [row.runs[0].important for row in rows]
    place = next(number for number, row in enumerate(rows) if row.label == base.label)
    differences = list_differences(settings, place)
    return [replace(row, differs=differs) for row, differs in zip(rows, differences, strict=True)]


def _warnings(
    runs: Sequence[Run], rows: Sequence[ComparedRow], budgets: Sequence[Budget]
) -> tuple[str, ...]:
    texts = [f"{run.path} {problem}" for run in runs if (problem := run.problem())]
    for budget in budgets:
        for run in runs:
            cost = measure_effort(run, run.rounds[-1])[budget.effort] if run.rounds else None
            if cost is not None and cost < budget.limit:
                texts.append(f"{run.path} ended before {budget}; its last value stands")
    seeds = Counter(tuple(sorted(row.seeds)) for row in rows)
    if len(seeds) > 1:
        sets = (f"{', '.join(map(str, numbers))} in {count}" for numbers, count in seeds.items())
        texts.append(f"rows have different seeds ({'; '.join(sets)})")
    return tuple(texts)
