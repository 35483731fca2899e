"""The few data classes that travel between server, clients and methods. All are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fpcli.engine.server_optimizer import Moments
from fpcli.fleet.devices import Device
from fpcli.structure.layout import Tensors
from fpcli.structure.support import Support
from fpcli.wire.message import LocalConfig

Json = Any
"""What JSON can hold: None, bool, int, float, str, lists and dicts of these."""

__all__ = [
    "Device",
    "Json",
    "LocalConfig",
    "Plan",
    "Probe",
    "ServerState",
    "Support",
    "Tensors",
    "Timing",
    "Traffic",
    "Update",
    "is_finite",
]


LARGEST = 1e30
"""A value beyond this counts as not finite: its sum over samples could overflow float32."""


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a floating-point tensor has no NaN, no infinity and nothing near it."""
    return bool((tensor.abs() <= LARGEST).all())


@dataclass(frozen=True)
class ServerState:
    """Everything the server carries from one round to the next.

    Attributes:
        round: rounds completed; 0 before the first.
        values: dense tensors in the coordinates of the initial model.
        support: what is alive in the global model.
        method: the method's own frozen dataclass, or None.
        moments: what the server optimiser remembers, or None.
    """

    round: int
    values: Tensors
    support: Support
    method: Any = None
    moments: Moments | None = None


@dataclass(frozen=True)
class Plan:
    """What one client is to do this round.

    Attributes:
        client: its id.
        support: the sub-model it gets.
        local: how it trains.
        note: what the client is told beside the tensors; counted as traffic.
        record: what the server keeps in mind about this plan and logs; never sent.
        is_mask_known: the client has the support's masks from an earlier round (its method's
            ``remembers_mask``), so that only values travel.
        max_steps: steps after which the client stops, even within an epoch; 0 does all epochs.
        time: the simulated seconds, where the method has measured ones; None leaves them to the
            clock, which counts multiply-adds on the device and bytes over its link.
    """

    client: int
    support: Support
    local: LocalConfig
    note: Mapping[str, Json] = field(default_factory=dict)
    record: Mapping[str, Json] = field(default_factory=dict)
    is_mask_known: bool = False
    max_steps: int = 0
    time: Timing | None = None


@dataclass(frozen=True)
class Traffic:
    """Measured lengths of one job and of its reply."""

    down_bytes: int
    up_bytes: int


@dataclass(frozen=True)
class Timing:
    """Simulated seconds of one client's round (``total_s`` is their sum); measured ones beside."""

    compute_s: float
    down_s: float
    up_s: float
    real_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds from the start of sending to the end of receiving."""
        return self.compute_s + self.down_s + self.up_s


@dataclass(frozen=True)
class Update:
    """A client's usable reply to a plan.

    Attributes:
        support: what the client holds, and the tensors of ``delta`` cover: the plan's support,
            unless the method's kind lets clients choose their own.
        delta: trained minus received values, in block coordinates of ``support``.
        stats: further tensors that the method's ``train`` returned.
        metrics: numbers from the client; ``loss`` (mean training loss) is always there.
        pruning_error: share of the squared norm of all parameters that the plan left out.
    """

    plan: Plan
    support: Support
    delta: Tensors
    stats: Tensors
    num_examples: int
    num_steps: int
    metrics: Mapping[str, float]
    traffic: Traffic
    time: Timing
    pruning_error: float


@dataclass(frozen=True)
class Probe:
    """A question to one client outside training; its values are cut to ``support``.

    Attributes:
        sees_withheld: the client looks at its samples of withheld classes too.
    """

    client: int
    op: str
    support: Support = field(default_factory=Support)
    note: Mapping[str, Json] = field(default_factory=dict)
    sees_withheld: bool = False


@dataclass(frozen=True)
class Answer:
    """A client's reply to a probe.

    Attributes:
        num_examples: samples that it can have looked at, by what it is registered with.
    """

    probe: Probe
    tensors: Mapping[str, Tensor]
    num_examples: int
    traffic: Traffic
    time: Timing
