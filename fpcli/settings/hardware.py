"""Simulated devices and links, bytes on the wire, and the machine that computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fpcli.settings.flags import FLEET, RUN, Flag


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step as they were measured: linear in the numbers of alive weights.

    Attributes:
        batch_size: samples of the step; other sizes are taken to cost in proportion.
        constant_s: seconds that no mask shortens.
        weight_s: tensor name -> seconds per alive weight.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}

    batch_size: Annotated[int, Ge(1)]
    constant_s: Annotated[float, Gt(0)]
    weight_s: Mapping[str, Annotated[float, Ge(0)]]


@dataclass(frozen=True)
class DeviceClass:
    """A class of devices, as a recipe holds it; units are those of ``fleet.Level``.

    Attributes:
        share: how often it comes among the clients that no class names, relative to the others; 0
            is for hardware that no client has, and the server may.
        clients: those that have it; then ``share`` does not count.
        step: measured seconds of training steps.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}

    name: str
    flops: Annotated[float, Gt(0)]
    down: Annotated[float, Gt(0)]
    up: Annotated[float, Gt(0)]
    memory: Annotated[int, Ge(1)]
    share: Annotated[float, Ge(0)] = 1.0
    clients: tuple[Annotated[int, Ge(0)], ...] = ()
    availability: Annotated[float, Gt(0), Le(1)] | None = None
    step: StepTime | None = None


@dataclass(frozen=True)
class FleetChoice:
    """The simulated hardware of the clients."""

    panel: ClassVar[str] = FLEET

    profile: Annotated[
        str, Flag("--fleet NAME|FILE", "Simulated devices: {names} or a YAML file", known="fleets")
    ] = "two-speed"
    """A named mix of devices and links, or a YAML file with classes of devices."""
    variation: Annotated[float, Ge(0)] = 0.1
    """Spread of speeds from round to round: standard deviation of their logarithm."""
    link_variation: Annotated[float, Ge(0)] | None = None
    """The same for the links' bandwidths; null means as `variation`."""
    availability: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of rounds in which a client can be chosen."""
    dropout: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that what a chosen client does in a round is lost."""
    dropout_when: Literal["any", "before", "training", "after"] = "any"
    """Where that happens: before the job arrives, during training, after the upload, or any."""
    deadline_s: Annotated[
        Annotated[float, Gt(0)] | None, Flag("--deadline TIME", reads="seconds")
    ] = None
    """Simulated time, as `60s`, after which an update or an answer to a question is too late. In a
    recipe a number of seconds; null waits for everyone."""
    server: str = "server"
    """What the server computes on, where a method makes it work: `server` (200 GFLOP/s, ours), a
    class of the fleet, or a board that a fleet file may name."""
    devices: tuple[DeviceClass, ...] = ()
    """What the fleet file said; with it `profile` is a mere name."""


@dataclass(frozen=True)
class WireChoice:
    """How tensors become bytes."""

    panel: ClassVar[str] = FLEET

    codec: Annotated[str, Flag("--codec NAME", known="codecs")] = "dense"
    """How tensors are sent, both ways, such as sparse or int8. `dense` sends every value of a
    sub-model, `sparse` leaves out masked ones where it pays; `float16`, `int2` to `int16` and
    `int2-stochastic` to `int16-stochastic` shorten the rest too. `qsgd2` to `qsgd8`, `ternary` and
    the shortest integers are for changes, hence for `up`: few networks survive weights that are
    rounded so coarsely."""
    down: str | None = None
    """Codec of what the server sends; null means `codec`."""
    up: str | None = None
    """Codec of what clients send; null means `codec`."""


@dataclass(frozen=True)
class ExecutorChoice:
    """Where the clients' work runs."""

    panel: ClassVar[str] = RUN

    kind: Annotated[Literal["auto", "inline", "pool"], Flag("--executor KIND")] = "auto"
    """`inline` (clients one after another), `pool` (processes) or `auto`, which goes by workers."""
    workers: Annotated[int, Ge(0), Flag("--workers auto|N", words={"auto": 0})] = 0
    """Processes of a pool. 0 means as many as the machine has use for."""
    device: Annotated[str, Flag("--device NAME", before="--executor")] = "cpu"
    """Where clients compute: `cpu`, `cuda`, `cuda:1` or another torch device."""
    channels_last: bool = True
    """Keep images with the channel as the last axis in memory, which is often faster."""
    client_timeout_s: Annotated[
        Annotated[float, Gt(0)] | None, Flag("--client-timeout TIME", reads="seconds")
    ] = 600.0
    """Real time after which a client's job counts as failed. In a recipe a number of seconds; null
    waits for ever."""
    sparse: Literal["off", "auto", "always"] = "off"
    """Skip masked weights in real time: `auto` where a measurement at the start of the run, kept in
    its folder, finds that faster, `always` wherever it can be done. Last digits may differ."""
