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

from torch import Tensor


@dataclass(frozen=True)
class OptimizerMoments:
    """What an optimiser remembers of every parameter, dense; ``second`` only where it is used."""

    first: Mapping[str, Tensor] = field(default_factory=dict)
    second: Mapping[str, Tensor] = field(default_factory=dict)
