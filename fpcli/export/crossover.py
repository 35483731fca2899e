"""Crossover: from which sparsity on the sparse kernels of this machine beat its dense ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fpcli.structure.choice import Layer, Timer, Use, measure_ratios
from fpcli.structure.stopwatch import time_in_rotation

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)

LayerShape = tuple[int, int, int, int]
"""Channels in and out, kernel, side of the image; kernel 0 is a linear layer."""

SHAPES: tuple[LayerShape, ...] = (
    (784, 300, 0, 1), (3136, 512, 0, 1), (4096, 4096, 0, 1), (16, 16, 3, 32), (32, 64, 5, 14),
    (64, 64, 3, 8), (256, 256, 1, 8), (256, 256, 3, 8), (512, 512, 3, 4),
)  # fmt: skip
"""Layers of small, middling and large networks."""


@dataclass(frozen=True)
class CrossoverRow:
    """One layer, one size of batch, one use.

    Attributes:
        ratios: sparsity -> seconds of the sparse way over seconds of the dense way.
        sparsity: from where on sparse is faster; None where it is not even at the last.
    """

    layer: str
    batch: int
    use: Use
    ratios: Mapping[float, float]
    sparsity: float | None


def find_crossing(ratios: Mapping[float, float]) -> float | None:
    """Return the sparsity at which a ratio falls below 1 for good.

    Between two measurements the logarithms of density and ratio lie on a line; where all ratios
    are below 1 it is the lowest sparsity that was tried.

    >>> find_crossing({0.75: 2.0, 0.9375: 0.5}), find_crossing({0.5: 0.9, 0.8: 0.5})
    (0.875, 0.5)
    >>> find_crossing({0.9: 1.5})
    """
    ordered = sorted(ratios)
    losses = [sparsity for sparsity in ordered if ratios[sparsity] >= 1]
    if not losses:
        return ordered[0]
    last = losses[-1]
    if last == ordered[-1]:
        return None
    following = ordered[ordered.index(last) + 1]
    above, below = math.log(ratios[last]), math.log(ratios[following])
    share = above / (above - below)
    return 1 - (1 - last) * ((1 - following) / (1 - last)) ** share


def layer_of(shape: LayerShape, batch: int) -> tuple[str, Layer]:
    """Return the name of a shape, and a layer of it with random weights and inputs."""
    inputs, outputs, kernel, side = shape
    generator = torch.Generator().manual_seed(0)
    if not kernel:
        x = torch.rand(batch, inputs, generator=generator)
        return f"fc {inputs}->{outputs}", Layer(nn.Linear(inputs, outputs), x)
    module = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    x = torch.rand(batch, inputs, side, side, generator=generator)
    order = torch.channels_last  # as the engine has it
    name = f"conv {inputs}->{outputs} {kernel}x{kernel} @{side}"
    return name, Layer(module.to(memory_format=order), x.contiguous(memory_format=order))


def measure_crossover(
    batches: Sequence[int],
    uses: Sequence[Use] = ("evaluate", "train"),
    *,
    shapes: Sequence[LayerShape] = (),
    timer: Timer = time_in_rotation,
) -> list[CrossoverRow]:
    """Measure the table with as many threads as torch has.

    Args:
        batches: sizes of batches.
        uses: forward passes, or forward and backward.
        shapes: of layers; none means ``SHAPES``.
    """
    densities = {round(1 - sparsity, 6): sparsity for sparsity in SPARSITIES}
    rows = []
    for shape in shapes or SHAPES:
        for batch in batches:
            name, layer = layer_of(shape, batch)
            for use in uses:
                by_mask = measure_ratios(layer, use, densities=list(densities), timer=timer)
                by_density = {densities[density]: ratio for density, ratio in by_mask.items()}
                rows.append(CrossoverRow(name, batch, use, by_density, find_crossing(by_density)))
    return rows
