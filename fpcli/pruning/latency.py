"""Latency: measured time of a forward pass of two networks on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fpcli.structure.stopwatch import Paired, pair_times, record_in_rotation, summarise_times

BATCHES = (1, 64)
FASTER, SLOWER, UNDECIDED = "faster", "slower", "no difference measurable"
_MIN_RUNS, _MAX_RUNS, _BUDGET_S = 10, 200, 2.0


@dataclass(frozen=True)
class LatencyChange:
    """How a forward pass of a cut network compares with that of the whole one.

    Attributes:
        before_ms, after_ms: median milliseconds.
        pair: their ratio, turn by turn.
    """

    before_ms: float
    after_ms: float
    pair: Paired


@torch.no_grad()
def compare_latency(before: nn.Module, after: nn.Module, x: Tensor) -> LatencyChange:
    """Time forward passes of two networks in turns, and compare them turn by turn.

    Args:
        before, after: on one device; are put in evaluation mode.
        x: what they are given at once, ``[batch, ...]``.
    """
    device = next(before.parameters()).device
    x = x.to(device)

    def run(model: nn.Module) -> None:
        model(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    runs = [partial(run, model.eval()) for model in (before, after)]
    recorded = record_in_rotation(runs, least=_MIN_RUNS, most=_MAX_RUNS, budget_s=_BUDGET_S)
    old, new = (1000 * summarise_times(seconds).median_s for seconds in recorded)
    return LatencyChange(old, new, pair_times(*recorded))


def judge_pair(pair: Paired) -> str:
    """Return ``FASTER`` or ``SLOWER`` where the interval of a ratio leaves no doubt.

    >>> judge_pair(Paired(0.9, 0.8, 0.99, 30)), judge_pair(Paired(0.9, 0.8, 1.01, 30))
    ('faster', 'no difference measurable')
    """
    if pair.high < 1:
        return FASTER
    return SLOWER if pair.low > 1 else UNDECIDED
