from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from fpcli.pruning.latency import FASTER, SLOWER, UNDECIDED, compare_latency, judge_pair
from fpcli.structure.stopwatch import pair_times


class Sleeper(nn.Module):
    """Takes a known time, and notes when it ran and on how much."""

    def __init__(self, seconds: float, diary: list[tuple[float, int]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seconds, self.diary = seconds, diary

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        self.diary.append((self.seconds, len(x)))
        return x


def test_networks_take_turns_and_the_median_counts() -> None:
    diary: list[tuple[float, int]] = []
    slow, fast = Sleeper(0.004, diary), Sleeper(0.001, diary)
    change = compare_latency(slow, fast, torch.zeros(3, 1, 2, 2))
    assert change.before_ms >= 4 and change.after_ms >= 1
    assert change.pair.low <= change.pair.ratio <= change.pair.high < 1
    assert judge_pair(change.pair) == FASTER
    assert not slow.training
    assert {size for _, size in diary} == {3}
    assert [seconds for seconds, _ in diary[:6]] == [0.004, 0.001] * 3


def test_a_machine_that_drifts_slows_down_pairs_alike() -> None:
    """A tenth slower in every turn, while turns themselves take from 1 to 20 ms."""
    first = [0.001 * turn for turn in range(1, 21)]
    pair = pair_times(first, [1.1 * seconds for seconds in first])
    assert (pair.ratio, pair.low, pair.high) == pytest.approx((1.1, 1.1, 1.1))
    assert judge_pair(pair) == SLOWER


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        # Of ten pairs the interval reaches from the second to the ninth: 1/1024 * (1 + 10) = 1.1 %
        # lie beyond each end, and a third step would make that 5.5 %.
        ([0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 2.0], FASTER),
        ([0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.1, 2.0], UNDECIDED),
        ([0.5, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 2.0], SLOWER),
        ([1.0] * 10, UNDECIDED),
    ],
)
def test_a_single_outlier_decides_nothing(ratios: list[float], verdict: str) -> None:
    assert judge_pair(pair_times([1.0] * 10, ratios)) == verdict
