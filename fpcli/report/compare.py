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
from fpcli.settings.metrics import BEST, find_measured
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
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that judge its models, the primary one first; empty before the
        first evaluation."""
        return next((run.metrics for run in self.runs if run.metrics), ())

    @property
    def primary(self) -> str:
        """The name of its primary metric; empty before the first evaluation."""
        return next(iter(self.metrics), "")

    def find_unit(self, measure: str) -> str:
        """Return a measure that is written as another one is: after a budget the primary metric
        stands."""
        return self.primary if measure.startswith("at_") else measure

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
        target: metrics on validation data whose price is asked for; empty if none is.
        budgets: efforts after which the primary metric is asked for.
    """

    rows: tuple[ComparedRow, ...]
    reference: str
    target: Mapping[str, float]
    budgets: tuple[Budget, ...]
    warnings: tuple[str, ...]

    def field(self, name: str, primary: str) -> str:
        """Return the measure that a word of the command line means.

        ``rounds``, ``bytes``, ``clock`` and ``real`` are the price of the target where there is
        one, else that of the whole run; ``best`` is about the primary metric.
        """
        name = SHORT.get(name, name)
        if name == BEST:
            return BEST + primary
        return f"target_{name}" if self.target and name in EFFORTS else name

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


def list_primaries(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the primary metrics of rows, each once."""
    return list(dict.fromkeys(row.primary for row in rows if row.primary))


def list_shown(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the metrics that tables and pages show of rows: the primary ones, and behind NDCG@10
    also HR@10, which papers print with it."""
    both = (name for row in rows for name in row.metrics if name in (row.primary, "hr@10"))
    return list(dict.fromkeys(both))


def compare_runs(
    runs: Sequence[Run],
    *,
    target: Mapping[str, float] | None = None,
    budgets: Sequence[Budget] = (),
    reference: str | None = None,
    by: str | None = None,
) -> Comparison:
    """Group runs into rows and set the rows against one of them.

    Args:
        runs: at least one.
        target, budgets: see ``measures.measure``.
        reference: a name as in ``Comparison.named``; None takes the first row.
        by: a word for a measure that rows are sorted by, metrics from the best, costs from the
            lowest; rows without it come last.

    Raises:
        UsageError: ``reference`` names no row, or several; ``by`` is a metric that no row has.
    """
    groups = _groups(_share_latencies(runs))
    rows = _align([
        _row(label, group, target or {}, budgets)
        for label, group in zip(_labels(groups), groups, strict=True)
    ])  # fmt: skip
    comparison = Comparison(tuple(rows), rows[0].label, target or {}, tuple(budgets), ())
    base = _reference(comparison, reference)
    rows = _with_differences(rows, base)
    if by is not None:
        key = comparison.field(by, next(iter(list_primaries(rows)), ""))
        if key not in rows[0].values:
            metrics = dict.fromkeys(name for row in rows for name in row.metrics)
            raise UsageError(
                f"--by: none of these runs has `{by}`",
                hint=f"they are judged by {', '.join(metrics)}" if metrics else "evaluate them",
                where="--by",
            )
        metric = find_measured(key)
        sign = -1 if metric and metric.direction == "max" else 1
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
    label: str, runs: tuple[Run, ...], target: Mapping[str, float], budgets: Sequence[Budget]
) -> ComparedRow:
    measured = [measure_run(run, target, budgets) for run in runs]
    keys = dict.fromkeys(key for values in measured for key in values)
    values = {key: average_seeds([values.get(key) for values in measured]) for key in keys}
    return ComparedRow(label, runs, values, {})


def _align(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Give every row the measures of all, metrics first; one that its task lacks has no value."""
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    keys.sort(key=lambda key: find_measured(key) is None)
    missing = dict.fromkeys(keys, Value(None, None, 0))
    return [replace(row, values={**missing, **row.values}) for row in rows]


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
