"""What a run achieved and what it cost, as numbers by name, and their means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fpcli.report.client_plots import average_clients
from fpcli.report.runs import Event, Run
from fpcli.settings.metrics import BEST, find_measured
from fpcli.units import format_bytes, format_seconds

EFFORTS = ("rounds", "bytes", "clock_s", "real_s")
"""What training costs: rounds, bytes both ways, simulated and measured seconds."""

SHORT = {
    "acc": "accuracy",
    "best": BEST,
    "clients_acc": "clients_accuracy",
    "local_acc": "local_accuracy",
    "clock": "clock_s",
    "real": "real_s",
    "at": "at_1",
    "file": "file_bytes",
    "latency": "latency_1_ms",
}
"""Short names of measures for the command line; that of the best round lacks a metric's name."""

LATENCIES = {"latency_1_ms": "1", "latency_64_ms": "64"}
"""Measure -> images at once that `fp prune --latency` times."""


class Budget(NamedTuple):
    """An effort after which a model is judged, such as 60 seconds of the clock.

    >>> str(Budget("clock_s", 20.0)), str(Budget("bytes", 5e7)), str(Budget("rounds", 20))
    ('clock 20.0 s', 'traffic 50.0 MB', 'round 20')
    """

    effort: str
    limit: float

    def __str__(self) -> str:
        name = {"clock_s": "clock", "bytes": "traffic", "rounds": "round"}[self.effort]
        return f"{name} {to_text(self.effort, self.limit)}"


class Value(NamedTuple):
    """A measure over the runs of a row.

    Attributes:
        mean: None if any run lacks it: a mean of the lucky ones would mislead.
        half_width: half of the 95 % interval of the mean (Student's t); None for one run.
        num_known: runs that have it.
    """

    mean: float | None
    half_width: float | None
    num_known: int


def to_text(name: str, value: float) -> str:
    """Return a value of a measure with its unit.

    >>> to_text("accuracy", 0.9694), to_text("up_bytes", 1500), to_text("target_clock_s", 75.0)
    ('96.94%', '1.5 kB', '1 min 15 s')
    >>> to_text("macs", 337_536.0), to_text("rounds", 9.7), to_text("loss", 0.5)
    ('337,536', '9.7', '0.5000')
    >>> to_text("latency_64_ms", 1.4457), to_text("file_bytes", 153_712)
    ('1.45 ms', '153.7 kB')
    """
    if math.isinf(value):
        return "never"
    if metric := find_measured(name):
        return metric.format(value)
    if name.endswith("bytes"):
        return format_bytes(value)
    if name.endswith("_ms"):
        return f"{value:.2f} ms"
    if name.endswith("_s"):
        return format_seconds(value)
    if name.endswith("rounds"):
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.4f}" if name == "loss" else f"{value:,.0f}"


def measure_effort(run: Run, event: Event) -> dict[str, float | None]:
    """Return what a run had cost at the end of one of its rounds; without clients there are no
    bytes and no clock."""
    is_federated = run.command == "train"
    return {
        "rounds": event["round"],
        "bytes": event["total_down_bytes"] + event["total_up_bytes"] if is_federated else None,
        "clock_s": event.get("clock_s"),
        "real_s": run.real_s[event["round"]],
    }


def measure_run(
    run: Run, target: Mapping[str, float] | None = None, budgets: Sequence[Budget] = ()
) -> dict[str, float | None]:
    """Return all measures of a run; None where the run has no such number.

    They begin with its metrics on test data, in the last round that was evaluated and, as
    ``best_...``, in the one with the best validation value; and their means over clients' models.

    Args:
        target: metrics on validation data; ``target_rounds`` and the like are what the first
            evaluated round by which they had been reached had cost.
        budgets: ``at_1``, ``at_2``, ... are the primary metric on test data of the last evaluated
            round within each.
    """
    last = run.rounds[-1] if run.rounds else None
    judged = run.judged[-1] if run.judged else None
    best = run.best["test"] if run.best else {}
    values: dict[str, float | None] = {}
    if judged:
        values |= {name: judged["test"].get(name) for name in run.metrics}
        values |= {BEST + name: best.get(name) for name in run.metrics}
    personal = next((event for event in run.judged[::-1] if event.get("personal")), {})
    values |= average_clients(personal)
    values |= {
        "loss": judged["test"].get("loss") if judged else None,
        "down_bytes": last.get("total_down_bytes") if last else None,
        "up_bytes": last.get("total_up_bytes") if last else None,
        "params": last["params"] if last else None,
        "macs": last["macs"] if last else None,
        "file_bytes": run.file_bytes,
        **{name: run.latency_ms.get(images) for name, images in LATENCIES.items()},
    }
    values |= measure_effort(run, last) if last else dict.fromkeys(EFFORTS)
    if target:
        hit = run.find_reaching(target)
        costs = measure_effort(run, hit) if hit else dict.fromkeys(EFFORTS)
        values |= {f"target_{name}": value for name, value in costs.items()}
    for number, budget in enumerate(budgets, start=1):
        costs_of = ((event, measure_effort(run, event)[budget.effort]) for event in run.judged)
        within = [e for e, cost in costs_of if cost is not None and cost <= budget.limit]
        values[f"at_{number}"] = within[-1]["test"].get(run.metrics[0]) if within else None
    return values


def average_seeds(values: Sequence[float | None]) -> Value:
    """Return the mean of one measure over runs that differ in their seed only.

    >>> mean, half_width, _ = average_seeds([0.90, 0.92, 0.94])
    >>> round(mean, 4), round(half_width, 4)  # 4.3027 * 0.02 / sqrt(3)
    (0.92, 0.0497)
    >>> average_seeds([0.9, None])
    Value(mean=None, half_width=None, num_known=1)
    """
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return Value(None, None, len(numbers))
    if len(numbers) == 1:
        return Value(numbers[0], None, 1)
    error = statistics.stdev(numbers) / math.sqrt(len(numbers))
    return Value(statistics.fmean(numbers), _student(len(numbers) - 1) * error, len(numbers))


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit  # takes longer to import than all the rest to compute

    return float(stdtrit(freedom, 0.975))
