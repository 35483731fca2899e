"""A device profile: what a training step of one network takes here, linear in alive weights."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

import torch
from torch import nn

from fpcli.engine.placement import move_to
from fpcli.export.bench import LatencyTimer, step_run
from fpcli.fleet.clock import train_seconds
from fpcli.fleet.devices import Device
from fpcli.settings.hardware import DeviceClass, StepTime
from fpcli.structure.choice import Layer, draw_mask, list_sparse_layers, make_rivals
from fpcli.structure.cost import count_macs
from fpcli.structure.stopwatch import time_in_rotation
from fpcli.tasks.learning_task import LearningTask

TIMED_DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05)
_DOWN_BPS, _UP_BPS = 20e6, 10e6  # of the fleet `uniform`
_USUAL_MEMORY_BYTES = 4 * 10**9  # likewise, where the system does not tell
_LEAST_S = 1e-9


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return constant and slope of the line through points by least squares; no slope below 0.

    >>> fit_line([(0.0, 1.0), (2.0, 5.0), (4.0, 9.0)]), fit_line([(0.0, 3.0), (1.0, 1.0)])
    ((1.0, 2.0), (2.0, 0.0))
    """
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    slope = max(0.0, slope)
    return mean_y - slope * mean_x, slope


def time_per_weight(layer: Layer, timer: LatencyTimer) -> float:
    """Return the seconds of a training step per alive weight of one layer.

    Each point is the faster of both kernels, as ``executor.sparse: auto`` would have it: where
    dense ones always win a weight costs nothing, because leaving it out saves nothing.
    """
    alive, dense, sparse = [], [], []
    for density in TIMED_DENSITIES:
        mask = draw_mask(layer.module.weight, density)
        alive.append(float(mask.sum()))
        dense_times, other = timer(make_rivals(layer, mask, "train"))
        dense.append(dense_times.median_s)
        sparse.append(other.median_s)
    always = statistics.median(dense)  # it computes the zeros too; differences are noise
    return fit_line([(n, min(always, seconds)) for n, seconds in zip(alive, sparse, strict=True)])[
        1
    ]


def step_time(
    model: nn.Module,
    input_shape: tuple[int, ...],
    batch: int,
    task: LearningTask,
    *,
    timer: LatencyTimer = time_in_rotation,
) -> tuple[StepTime, float]:
    """Return the time model of a network's training steps, and the measured seconds of a step of
    the whole network, with which it agrees.

    Args:
        model: with values, in its true size.
        batch: samples of a step.
        task: what it is for.
    """
    model = move_to(model, "cpu", True)  # as clients train it
    x = task.draw_inputs(input_shape, batch, torch.Generator().manual_seed(0))
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    slopes: dict[tuple[object, ...], float] = {}
    weights: dict[str, float] = {}
    masked_s = 0.0
    for name, layer in list_sparse_layers(model, x).items():
        if layer.key not in slopes:
            slopes[layer.key] = time_per_weight(layer, timer)
        weights[name] = slopes[layer.key]
        masked_s += weights[name] * layer.module.weight.numel()
    (whole,) = timer([step_run(model, x, task)])
    return StepTime(batch, max(whole.median_s - masked_s, _LEAST_S), weights), whole.median_s


def profile_device(
    name: str,
    model: nn.Module,
    input_shape: tuple[int, ...],
    batch: int,
    task: LearningTask,
    *,
    timer: LatencyTimer = time_in_rotation,
) -> DeviceClass:
    """Return this machine as a class of devices: measured speed, and a link that is assumed.

    Its operations per second are those at which the simulated clock comes to the measured seconds
    of a step of this very network.
    """
    step, whole_s = step_time(model, input_shape, batch, task, timer=timer)
    macs = count_macs(model.eval(), task.make_example(input_shape)).total
    # Of a device that makes one operation a second the clock tells how many a step has.
    flops = train_seconds(macs, batch, Device(0, 1.0, _DOWN_BPS, _UP_BPS, 0)) / whole_s
    memory = _USUAL_MEMORY_BYTES
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return DeviceClass(name, flops, _DOWN_BPS, _UP_BPS, memory, step=step)
