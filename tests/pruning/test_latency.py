from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from fpcli.pruning.latency import measure_latency_ms


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
    before, after = measure_latency_ms([slow, fast], (1, 2, 2), 3)
    assert before > after
    assert before >= 4 and after >= 1
    assert not slow.training
    assert {size for _, size in diary} == {3}
    assert [seconds for seconds, _ in diary[:6]] == [0.004, 0.001] * 3
