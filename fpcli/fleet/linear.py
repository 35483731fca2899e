"""Seconds of a round as a linear function of the number of weights that are alive in each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fpcli.errors import RecipeError
from fpcli.fleet.clock import forward_seconds, transfer_seconds
from fpcli.fleet.devices import Device, Fleet
from fpcli.settings.hardware import StepTime
from fpcli.structure.cost import BYTES_PER_FLOAT, count_cost
from fpcli.structure.layout import Layout
from fpcli.structure.support import Support

_PASSES = 3
"""Forward, gradient by the input, gradient by the weights; as in ``clock.train_seconds``."""

_MOST_SECONDS = 1e100
"""Of one step, or of sending one weight: no sum over weights and rounds of so many overflows."""


@dataclass(frozen=True)
class LinearTime:
    """The time model of one client; calculated here, or filled with measured numbers.

    Attributes:
        constant_s: seconds of a round that no mask shortens.
        weight_s: tensor name -> seconds of a round per alive weight.

    Source: PruneFL (Jiang et al., TNNLS 2023): ``c`` and ``t_l``.

    >>> LinearTime(2.0, {"a": 0.25, "b": 0.5}).round_s({"a": 4, "b": 1})
    3.5
    """

    constant_s: float
    weight_s: Mapping[str, float]

    def round_s(self, alive: Mapping[str, int]) -> float:
        """Return the seconds of a round with these numbers of alive weights."""
        return self.constant_s + math.fsum(s * alive[name] for name, s in self.weight_s.items())


def model_device_time(
    layout: Layout,
    names: Sequence[str],
    device: Device,
    num_samples: float,
    *,
    dense_passes: int = 0,
) -> LinearTime:
    """Return the time model that the simulated clock implies.

    Args:
        layout: says how many multiply-adds each weight takes part in.
        names: the tensors that have masks; everything else is part of the constant.
        device: its speed of computing and sending.
        num_samples: samples that a round processes, counted again in every epoch.
        dense_passes: of the three passes of a training step, those that a mask does not shorten.
            With 0 the model agrees with the clock, but for headers and masks on the wire.
    """
    pass_s = forward_seconds(1.0, num_samples, device)
    float_s = _float_seconds(device)
    uses = {name: layout.tensors[name].uses for name in names}
    sizes = {name: math.prod(layout.tensors[name].shape) for name in names}
    whole = count_cost(layout, Support())
    masked_macs = math.fsum(sizes[name] * uses[name] for name in names)
    num_others = _num_others(layout, names)
    dense_macs = _PASSES * (whole.macs - masked_macs) + dense_passes * masked_macs
    return LinearTime(
        pass_s * dense_macs + float_s * num_others,
        {name: (_PASSES - dense_passes) * pass_s * uses[name] + float_s for name in names},
    )


def model_measured_time(
    layout: Layout, names: Sequence[str], device: Device, step: StepTime, num_samples: float
) -> LinearTime:
    """Return the time model of a client whose training steps were measured.

    Arguments as for :func:`model_device_time`; of ``device`` only the link counts.

    Raises:
        RecipeError: a tensor was not measured.
    """
    if missing := [name for name in names if name not in step.weight_s]:
        raise RecipeError(
            f"the measured device says nothing about `{missing[0]}`",
            hint="measure the network that is trained: `fp bench RUN --save-profile FILE`",
            where="fleet.devices",
        )
    num_steps, float_s = num_samples / step.batch_size, _float_seconds(device)
    whole = {  # what was measured, but has no mask, is whole
        name: math.prod(layout.tensors[name].shape)
        for name in step.weight_s
        if name in layout.tensors and name not in names
    }
    constant_s = LinearTime(step.constant_s, {n: step.weight_s[n] for n in whole}).round_s(whole)
    return LinearTime(
        num_steps * constant_s + float_s * _num_others(layout, names),
        {name: num_steps * step.weight_s[name] + float_s for name in names},
    )


def _float_seconds(device: Device) -> float:
    """Return the seconds of sending one number there and back."""
    down_s = transfer_seconds(BYTES_PER_FLOAT, device.down_bps)
    return down_s + transfer_seconds(BYTES_PER_FLOAT, device.up_bps)


def _num_others(layout: Layout, names: Sequence[str]) -> int:
    """Return how many numbers travel that have no mask."""
    masked = sum(math.prod(layout.tensors[name].shape) for name in names)
    return count_cost(layout, Support()).bytes // BYTES_PER_FLOAT - masked


def model_slowest_time(
    layout: Layout,
    names: Sequence[str],
    fleet: Fleet,
    num_samples: Sequence[float],
    *,
    dense_passes: int = 0,
) -> LinearTime:
    """Return the time model of the client whose rounds with the whole model take longest.

    It is the one that a synchronous round waits for, so that clients without samples do not count.
    Arguments as for :func:`model_device_time`, with samples per client; speeds are without their
    changes from round to round, and measured ones go before calculated ones.

    Raises:
        RecipeError: see :func:`model_measured_time`.
    """
    whole = {name: math.prod(layout.tensors[name].shape) for name in names}
    times = []
    for client, samples in enumerate(num_samples):
        if not samples:
            continue
        device, step = fleet.nominal(client), fleet.level(client).step
        if step is None:
            times.append(
                model_device_time(layout, names, device, samples, dense_passes=dense_passes)
            )
        else:
            times.append(model_measured_time(layout, names, device, step, samples))
    return max(times, key=lambda time: time.round_s(whole))


@dataclass(frozen=True)
class StepRates:
    """Seconds as they were measured per local step, whatever the client's device and link.

    Attributes:
        names: the tensors that have masks.
        c: seconds of a step that no mask shortens.
        comp: seconds of a step per alive weight, one number for each of ``names``.
        comm: seconds of a round that sending one weight there and back takes.

    Raises:
        RecipeError: ``comp`` has another length than ``names``, or seconds are too many to be added
            up; names the key of the option.

    >>> rates = StepRates(["a"], c=2.0, comp=[0.5], comm=0.25)
    >>> rates.round_time(4)
    LinearTime(constant_s=8.0, weight_s={'a': 2.25})
    >>> rates.seconds(4, {"a": 10})
    (28.0, 1.25, 1.25)
    """

    names: Sequence[str]
    c: float
    comp: Sequence[float]
    comm: float

    def __post_init__(self) -> None:
        if len(self.comp) != len(self.names):
            problem = f"{len(self.comp)} numbers, but {len(self.names)} layers have masks"
            raise RecipeError(
                f"`method.comp` has {problem}",
                hint=f"give one number for each of {', '.join(self.names)}",
                where="method.comp",
            )
        most = {"c": self.c, "comp": max(self.comp, default=0.0), "comm": self.comm}
        for key, most_s in most.items():
            if most_s > _MOST_SECONDS:
                raise RecipeError(
                    f"`method.{key}` holds {most_s:g} seconds, too many to be added up",
                    hint=f"give at most {_MOST_SECONDS:g}",
                    where=f"method.{key}",
                )

    def round_time(self, num_steps: int) -> LinearTime:
        """Return the time model of a round of so many local steps."""
        return self._steps(num_steps, self.comm)

    def seconds(self, num_steps: int, alive: Mapping[str, int]) -> tuple[float, float, float]:
        """Return the seconds of computing, receiving and sending with these alive weights."""
        link_s = 0.5 * self.comm * sum(alive[name] for name in self.names)
        return self._steps(num_steps, 0.0).round_s(alive), link_s, link_s

    def _steps(self, num: int, comm: float) -> LinearTime:
        rates = zip(self.names, self.comp, strict=True)
        return LinearTime(num * self.c, {name: num * comp + comm for name, comp in rates})
