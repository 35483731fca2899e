"""The stopwatch: turns, warming up, and what it makes of the seconds."""

from __future__ import annotations

from itertools import count

from fpcli.structure.stopwatch import Times, summarise_times, time_in_rotation


def test_rivals_take_turns_after_a_warm_up() -> None:
    seen: list[str] = []
    runs = [lambda: seen.append("a"), lambda: seen.append("b")]
    ticks = count()
    found = time_in_rotation(runs, least=3, clock=lambda: float(next(ticks)))
    assert "".join(seen) == "ab" + "ababab"
    assert found == [Times(1.0, 1.0, 3)] * 2


def test_a_budget_adds_turns() -> None:
    ticks = count()
    (found,) = time_in_rotation(
        [lambda: None], least=2, budget_s=20.0, clock=lambda: float(next(ticks))
    )
    # Two readings in each of the first two turns, then three: checks at 5, 8, ..., 17 go on.
    assert found.num == 2 + 5


def test_the_90th_percentile_is_a_measured_value() -> None:
    assert summarise_times([float(n) for n in range(1, 11)]) == Times(5.5, 9.0, 10)
    assert summarise_times([2.0]) == Times(2.0, 2.0, 1)
