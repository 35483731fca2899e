"""Controls: scores that a criterion of importance must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from fpcli.rng import stream
from fpcli.scores.magnitude import l1
from fpcli.scores.sample import Sample
from fpcli.structure.layout import Layout, Tensors


def largest(layout: Layout, values: Tensors) -> dict[str, Tensor]:
    """Score every channel by its negated l1 norm, so that the largest filters leave first.

    Source: the control "largest filters pruned first" of Li et al., ICLR 2017, figure 8.
    """
    return {name: -norms for name, norms in l1(layout, values).items()}


def random(layout: Layout, values: Tensors, sample: Sample) -> dict[str, Tensor]:
    """Score every channel by a number in [0, 1), drawn anew for each seed and group.

    Source: the control "random filters pruned" of Li et al., ICLR 2017, figure 8.
    """
    return {
        name: torch.rand(group.width, generator=stream(sample.seed, f"score/random/{name}"))
        for name, group in layout.prunable.items()
    }
