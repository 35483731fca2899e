"""The step of a server optimiser (``server_optimizer``) from one state of the server to the next.

It works on what any method returns. Parameters that are dead before or after the aggregation are
what the method made them, and have no moments; buffers are never touched.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fpcli.engine.server_optimizer import OptimizerMoments
from fpcli.engine.types import ServerState
from fpcli.settings.learning import ServerConfig
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Support


def optimize(
    config: ServerConfig, layout: Layout, old: ServerState, new: ServerState
) -> ServerState:
    """Return ``new`` with parameters moved from ``old`` by the optimiser.

    Args:
        config: which optimiser; `none` with a rate of 1 returns ``new`` itself.
        layout: what the tensors of both states are.
        old: before the aggregation, with the moments so far.
        new: what the method's `aggregate` returned.
    """
    if config.optimizer == "none" and config.rate == 1.0:
        return new
    old_moments, initial = old.moments or OptimizerMoments(), config.tau**2
    values, first, second = dict(new.values), {}, {}
    alive = _alive(layout.parameters, old.support.intersect(new.support))
    for name in layout.parameters.tensors:
        change = new.values[name] - old.values[name]
        m = old_moments.first.get(name, torch.zeros_like(change))
        v = old_moments.second.get(name, torch.full_like(change, initial))
        step, m, v = _step(config, change, m, v)
        moved = old.values[name] + config.rate * step
        if name in alive:
            mask = alive[name]
            moved = torch.where(mask, moved, new.values[name])
            m, v = torch.where(mask, m, 0.0), torch.where(mask, v, initial)
        values[name], first[name], second[name] = moved, m, v
    if config.optimizer == "none":
        return replace(new, values=values)
    moments = OptimizerMoments(first, {} if config.optimizer == "momentum" else second)
    return replace(new, values=values, moments=moments)


def _step(
    config: ServerConfig, change: Tensor, m: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step before the learning rate, and the new moments."""
    if config.optimizer == "none":
        return change, m, v
    if config.optimizer == "momentum":
        m = config.momentum * m + change
        return m, m, v
    m = config.momentum * m + (1 - config.momentum) * change
    square = change.square()
    if config.optimizer == "adam":
        v = config.beta2 * v + (1 - config.beta2) * square
    elif config.optimizer == "yogi":
        v = v - (1 - config.beta2) * square * (v - square).sign()
    else:
        v = v + square
    return m / (v.sqrt() + config.tau), m, v


def _alive(layout: Layout, support: Support) -> Tensors:
    """Return bool masks of what is alive, dense; nothing where that is everything."""
    if not support.keep and not support.mask:
        return {}
    ones = {name: torch.ones(shape) for name, shape in support.block_shapes(layout).items()}
    return {name: held.bool() for name, held in support.scatter(layout, ones)[1].items()}
