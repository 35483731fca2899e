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


def time_in_rotation(
    runs: Sequence[TimedRun],
    *,
    least: int = 5,
    most: int | None = None,
    budget_s: float = 0.0,
    clock: Clock = time.perf_counter,
) -> list[Times]:
    """Run every rival once for warming up, then all of them in turns, and time each.

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
    return [summarise_times(times) for times in seconds]
