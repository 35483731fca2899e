"""The few data classes that server, clients and methods hand to each other. All are frozen.

The server makes an :class:`Ask`, its :class:`Task` travels to the client, the :class:`Work` done
there travels back, and both together with what they cost are an :class:`Answer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from fpcli.engine.server_optimizer import OptimizerMoments
from fpcli.errors import CodeError
from fpcli.fleet.channel import Link
from fpcli.fleet.devices import Device
from fpcli.settings.learning import LocalConfig
from fpcli.structure.layout import Tensors
from fpcli.structure.support import Support
from fpcli.wire.headers import TRAIN, Json, Task
from fpcli.wire.message import Work

__all__ = [
    "TRAIN", "Answer", "Ask", "Device", "Fitted", "Json", "Link", "LocalConfig", "ServerState",
    "Support", "Task", "Tensors", "Timing", "Traffic", "Work", "is_finite",
    "require_kind",
]  # fmt: skip

_T = TypeVar("_T")

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
        masks_held: client -> digest of the masks that it certainly has; the engine's.
    """

    round: int
    values: Tensors
    support: Support
    method: Any = None
    moments: OptimizerMoments | None = None
    masks_held: Mapping[int, str] = field(default_factory=dict)


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
class Ask(Task):
    """The server to one client: train, or answer a question; what is not of a `Task` stays here.

    Attributes:
        local: None takes the settings of the round.
        support: the sub-model it gets.
        record: what the server keeps in mind about it and logs.
        sees_withheld: to answer, the client looks at its samples of withheld classes too.
        link: what the server gives it of a shared channel; None leaves it its own link.
        macs: multiply-adds of a forward pass, per sample that it trains on, where its training
            computes with something else than the sub-model that it gets; None counts that.
        time: the simulated seconds, where the method has measured ones; None leaves them to the
            clock, which counts multiply-adds on the device and bytes over its link.
    """

    op: str = TRAIN
    support: Support = field(default_factory=Support)
    record: Mapping[str, Json] = field(default_factory=dict)
    sees_withheld: bool = False
    link: Link | None = None
    macs: float | None = None
    time: Timing | None = None


@dataclass(frozen=True)
class Traffic:
    """Measured lengths of one job and of its reply."""

    down_bytes: int
    up_bytes: int


@dataclass(frozen=True)
class Answer:
    """A client's usable reply to an ask, and what it cost.

    Attributes:
        support: what the client holds, and what the values of ``work`` cover after training: that
            of the ask, unless the method lets clients choose their own.
        num_examples: samples that the client trained on; of a question, those it can have seen by
            what it is registered with.
        pruning_error: share of the squared norm of all parameters that the ask left out.
    """

    ask: Ask
    work: Work
    support: Support
    num_examples: int
    traffic: Traffic
    time: Timing
    pruning_error: float


@dataclass(frozen=True)
class Fitted:
    """What one call of `fit` did.

    Attributes:
        loss: mean training loss over all samples processed.
        num_steps: optimiser steps.
        num_samples: samples processed (a sample counts once per epoch).
    """

    loss: float
    num_steps: int
    num_samples: int


def require_kind(value: object, kind: type[_T], hook: str) -> _T:
    """Return what a method's hook gave, which must be of the kind that the hook promises.

    Raises:
        CodeError: it is something else.
    """
    if isinstance(value, kind):
        return value
    raise CodeError(
        f"`{hook}` of the method returned {type(value).__name__}, wanted {kind.__name__}",
        hint="README.md (Adding a method) tells what every hook takes and returns",
        where=hook,
    )
