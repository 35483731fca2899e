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

The step itself is in ``server_step``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor


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
