"""Latency: measured time of a forward pass of two networks on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

BATCHES = (1, 64)
_MIN_RUNS, _MAX_RUNS, _BUDGET_S = 5, 50, 2.0


@torch.no_grad()
def latency_ms(
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
    times: list[list[float]] = [[] for _ in models]
    for model in models:
        model.eval()(x)
    begun = time.perf_counter()
    while len(times[0]) < _MIN_RUNS or (
        len(times[0]) < _MAX_RUNS and time.perf_counter() - begun < _BUDGET_S
    ):
        for model, own in zip(models, times, strict=True):
            started = time.perf_counter()
            model(x)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            own.append(time.perf_counter() - started)
    return tuple(1000 * statistics.median(own) for own in times)
