"""Server optimisers: the change that a method's aggregation made, taken as a gradient.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2 (Adagrad, Adam and
Yogi, without bias correction); momentum: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical
Data Distribution for Federated Visual Classification", 2019 (FedAvgM).

==============  =============================  =======================================
symbol          here                           note
==============  =============================  =======================================
Delta_t         change                         new minus old value of a parameter
m_t, v_t        ``Moments.first``, ``second``  m_0 = 0 and v_0 = tau^2
eta, tau        ``lr``, ``tau``
beta_1, beta_2  ``momentum``, ``beta2``        FedAvgM has beta for the first
==============  =============================  =======================================

It works on what any method returns. Parameters that are dead before or after the aggregation are
what the method made them, and have no moments; buffers are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Support

if TYPE_CHECKING:
    from fpcli.engine.types import ServerState


@dataclass(frozen=True)
class ServerConfig:
    """What the server does with the mean change of a round."""

    optimizer: Literal["none", "momentum", "adam", "yogi", "adagrad"] = "none"
    """`none` adds the change; the others take it as a gradient and keep moments of it."""
    lr: Annotated[float, Gt(0)] | None = None
    """Server learning rate; null means 1 for `none` and `momentum`, 0.01 for the others."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Decay of the first moment (paper: beta_1; it takes 0 for `adagrad`)."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.99
    """Decay of the second moment of `adam` and `yogi`."""
    tau: Annotated[float, Gt(0)] = 0.001
    """Degree of adaptivity of `adam`, `yogi` and `adagrad`: the smaller, the more."""

    @property
    def rate(self) -> float:
        """The server learning rate, with its default."""
        usual = 1.0 if self.optimizer in ("none", "momentum") else 0.01
        return usual if self.lr is None else self.lr


@dataclass(frozen=True)
class Moments:
    """What an optimiser remembers of every parameter, dense; ``second`` only where it is used."""

    first: Mapping[str, Tensor] = field(default_factory=dict)
    second: Mapping[str, Tensor] = field(default_factory=dict)


def optimized(
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
    known, initial = old.moments or Moments(), config.tau**2
    values, first, second = dict(new.values), {}, {}
    alive = _alive(layout.parameters, old.support.intersect(new.support))
    for name in layout.parameters.tensors:
        change = new.values[name] - old.values[name]
        m = known.first.get(name, torch.zeros_like(change))
        v = known.second.get(name, torch.full_like(change, initial))
        step, m, v = _step(config, change, m, v)
        moved = old.values[name] + config.rate * step
        if name in alive:
            mask = alive[name]
            moved = torch.where(mask, moved, new.values[name])
            m, v = torch.where(mask, m, 0.0), torch.where(mask, v, initial)
        values[name], first[name], second[name] = moved, m, v
    if config.optimizer == "none":
        return replace(new, values=values)
    moments = Moments(first, {} if config.optimizer == "momentum" else second)
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
