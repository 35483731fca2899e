"""Measured seconds of several rivals, in turns, so that a machine that drifts treats all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TimedRun = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Times:
    """Seconds of one thing, measured several times."""

    median_s: float
    p90_s: float
    num: int


def summarise_times(seconds: Sequence[float]) -> Times:
    """Return the median and the 90th percentile (the smallest value that 90 % do not exceed).

    >>> summarise_times([4.0, 1.0, 2.0, 3.0])
    Times(median_s=2.5, p90_s=4.0, num=4)
    """
    ordered = sorted(seconds)
    middle = len(ordered) // 2
    median = (ordered[middle] + ordered[(len(ordered) - 1) // 2]) / 2
    return Times(median, ordered[math.ceil(0.9 * len(ordered)) - 1], len(ordered))


@dataclass(frozen=True)
class Paired:
    """How two rivals compare that were timed in turns.

    Attributes:
        ratio: median of the second's seconds over the first's, turn by turn.
        low, high: 95 % interval of that median, by its order statistics, whatever the distribution.
        num: turns.
    """

    ratio: float
    low: float
    high: float
    num: int


def pair_times(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare seconds of the same turns, 6 or more: what slows down a turn slows down both.

    >>> pair_times([1.0, 2.0, 1.0, 1.0, 4.0, 1.0], [0.5, 1.0, 0.4, 0.5, 2.4, 0.5])
    Paired(ratio=0.5, low=0.4, high=0.6, num=6)
    """
    from scipy.stats import quantile_test

    ratios = sorted(late / early for early, late in zip(first, second, strict=True))
    interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    low, high = float(interval.low), float(interval.high)
    return Paired(summarise_times(ratios).median_s, low, high, len(ratios))


def time_in_rotation(
    runs: Sequence[TimedRun],
    *,
    least: int = 5,
    most: int | None = None,
    budget_s: float = 0.0,
    clock: Clock = time.perf_counter,
) -> list[Times]:
    """Time every rival in turns; arguments as of :func:`record_in_rotation`."""
    recorded = record_in_rotation(runs, least=least, most=most, budget_s=budget_s, clock=clock)
    return [summarise_times(seconds) for seconds in recorded]


def record_in_rotation(
    runs: Sequence[TimedRun],
    *,
    least: int = 5,
    most: int | None = None,
    budget_s: float = 0.0,
    clock: Clock = time.perf_counter,
) -> list[list[float]]:
    """Run every rival once for warming up, then all in turns, and return the seconds of each.

    Args:
        least: turns that are played however long they take.
        most: turns after which it ends in any case; None means no end.
        budget_s: further turns are played until so many seconds have gone by.
        clock: tells seconds.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    started, turn = clock(), 0
    while turn < least or (turn != most and clock() - started < budget_s):
        for run, times in zip(runs, seconds, strict=True):
            before = clock()
            run()
            times.append(clock() - before)
        turn += 1
    return seconds
