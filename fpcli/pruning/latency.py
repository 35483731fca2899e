"""Latency: measured time of a forward pass of two networks on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from fpcli.structure.stopwatch import time_in_rotation

BATCHES = (1, 64)
_MIN_RUNS, _MAX_RUNS, _BUDGET_S = 5, 50, 2.0


@torch.no_grad()
def measure_latency_ms(
    models: Sequence[nn.Module], input_shape: Sequence[int], batch: int
) -> tuple[float, ...]:
    """Return the median milliseconds of a forward pass of each model.

    The models take turns, so that whatever else slows the machine down slows them down alike.

    Args:
        models: on one device; are put in evaluation mode.
        batch: images at once.
    """
    device = next(models[0].parameters()).device
    x = torch.zeros(batch, *input_shape, device=device)

    def run(model: nn.Module) -> None:
        model(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    runs = [partial(run, model.eval()) for model in models]
    timed = time_in_rotation(runs, least=_MIN_RUNS, most=_MAX_RUNS, budget_s=_BUDGET_S)
    return tuple(1000 * times.median_s for times in timed)
