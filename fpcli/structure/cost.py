"""Cost: parameters, multiply-adds and bytes of a sub-model, without running it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fpcli.structure.layout import Layout
from fpcli.structure.support import Support

BYTES_PER_FLOAT = 4


@dataclass(frozen=True)
class Cost:
    """What a sub-model weighs.

    Attributes:
        params: alive parameters.
        macs: multiply-adds of convolutions and matrix products, per sample and forward pass.
        bytes: 4 per alive float, buffers included; what a dense transfer of the block takes.
    """

    params: int
    macs: float
    bytes: int


def count_cost(layout: Layout, support: Support) -> Cost:
    """Return the cost of a support; a masked weight saves its multiply-adds.

    >>> from fpcli.structure.layout import TensorSpec
    >>> count_cost(Layout({"fc.weight": TensorSpec((3, 2), True, 1.0)}, {}), Support())
    Cost(params=6, macs=6.0, bytes=24)
    """
    alive = support.count(layout)
    macs = sum(alive[name] * spec.uses for name, spec in layout.tensors.items())
    params = sum(alive[name] for name, spec in layout.tensors.items() if spec.is_parameter)
    return Cost(params, macs + layout.fixed_macs, BYTES_PER_FLOAT * sum(alive.values()))


def count_macs(model: nn.Module, example: Tensor) -> tuple[dict[str, float], float]:
    """Run a model once and count multiply-adds per sample with torch's flop counter.

    Args:
        model: is run as it is (mode and device), in grad mode: without it attention takes a fused
            path that the counter does not see.
        example: one batch.

    Returns:
        Module name -> multiply-adds of its own and its children's operations; and the total.
    """
    root = type(model).__name__
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), counter:
        model(example)
    scale = 2.0 * len(example)
    counts = {key: sum(ops.values()) / scale for key, ops in counter.get_flop_counts().items()}
    prefix = f"{root}."
    per_module = {
        key.removeprefix(prefix): macs for key, macs in counts.items() if key.startswith(prefix)
    }
    return per_module | {"": counts.get(root, 0.0)}, counter.get_total_flops() / scale
