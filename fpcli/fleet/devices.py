"""Simulated devices: how fast each client computes, sends and receives in each round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal

from fpcli.rng import draw_uniform
from fpcli.settings.hardware import StepTime

Point = Literal["before", "training", "after"]
"""When a client drops out: before its job arrives, during training, after its upload."""
POINTS: tuple[Point, ...] = ("before", "training", "after")


@dataclass(frozen=True)
class Level:
    """One class of hardware.

    Attributes:
        flops_per_s: floating-point operations per second in training.
        down_bps: bits per second from the server.
        up_bps: bits per second to the server.
        memory_bytes: main memory.
        name: of the class.
        availability: share of rounds in which the client can be chosen; None leaves it to the
            fleet.
        step: measured seconds of one network's training steps, for methods whose time model wants
            them; None where nobody measured.
    """

    flops_per_s: float
    down_bps: float
    up_bps: float
    memory_bytes: int
    name: str = ""
    availability: float | None = None
    step: StepTime | None = None


@dataclass(frozen=True)
class Device:
    """The conditions of one client in one round; units as in :class:`Level`."""

    client: int
    flops_per_s: float
    down_bps: float
    up_bps: float
    memory_bytes: int


SERVER = Level(200e9, down_bps=1e9, up_bps=1e9, memory_bytes=64 * 10**9, name="server")
"""What the server computes on where nothing else is said: 10 times the fast device of this file.
The numbers are our choice. The clock counts its speed only, since bytes travel at a client's pace.
"""


@dataclass(frozen=True)
class Fleet:
    """All devices, computed when asked for, so that a thousand clients cost nothing.

    Attributes:
        profile: its name.
        seed: seed of everything that changes from round to round.
        variation: standard deviation of the natural logarithm of a factor that is drawn per
            client and round, once for computing and once for the link; 0 means constant speed.
        levels: client i has hardware ``levels[i % len(levels)]``.
        own: client -> its hardware, where that is another.
        link_variation: the standard deviation for the link; None means as ``variation``.
        availability: share of rounds in which a client can be chosen.
        dropout: probability that what a chosen client does in a round is lost.
        dropout_when: where in its work that happens; ``any`` is each of the three alike.
        server: the server's hardware, which does not change from round to round.
    """

    profile: str
    seed: int
    variation: float
    levels: tuple[Level, ...]
    own: Mapping[int, Level] = field(default_factory=dict)
    link_variation: float | None = None
    availability: float = 1.0
    dropout: float = 0.0
    dropout_when: Literal["any"] | Point = "any"
    server: Level = SERVER

    def level(self, client: int) -> Level:
        """Return the class of a client's hardware."""
        return self.own.get(client) or self.levels[client % len(self.levels)]

    def nominal(self, client: int) -> Device:
        """Return the client's device without the changes from round to round."""
        level = self.level(client)
        return Device(client, level.flops_per_s, level.down_bps, level.up_bps, level.memory_bytes)

    def at(self, round: int, client: int) -> Device:
        """Return the client's device in one round; the same whoever else is asked for."""
        device = self.nominal(client)
        spread = self.variation if self.link_variation is None else self.link_variation
        compute = self._factor("fleet/compute", round, client, self.variation)
        link = self._factor("fleet/link", round, client, spread)
        return replace(
            device,
            flops_per_s=device.flops_per_s * compute,
            down_bps=device.down_bps * link,
            up_bps=device.up_bps * link,
        )

    def is_available(self, round: int, client: int, attempt: int = 0) -> bool:
        """Tell whether the client can be chosen; drawn anew for every attempt at a round."""
        share = self.level(client).availability
        share = self.availability if share is None else share
        return share >= 1.0 or self._draw(f"fleet/available/{attempt}", round, client) < share

    def drops_out(self, round: int, client: int, attempt: int = 0) -> Point | None:
        """Return when a chosen client drops out, or None; drawn anew for every attempt."""
        if self.dropout <= 0.0:
            return None
        # Within the lost share the same number also says where.
        draw = self._draw(f"fleet/dropout/{attempt}", round, client) / self.dropout
        if draw >= 1.0:
            return None
        return POINTS[int(draw * len(POINTS))] if self.dropout_when == "any" else self.dropout_when

    def _factor(self, purpose: str, round: int, client: int, spread: float) -> float:
        """Return a log-normal number with median 1."""
        return math.exp(spread * NormalDist().inv_cdf(self._draw(purpose, round, client)))

    def _draw(self, purpose: str, round: int, client: int) -> float:
        """Return a uniform number strictly between 0 and 1."""
        return draw_uniform(self.seed, purpose, round, client)


_FAST = Level(20e9, down_bps=20e6, up_bps=10e6, memory_bytes=4 * 10**9, name="fast")
_SLOW = Level(5e9, down_bps=10e6, up_bps=5e6, memory_bytes=10**9, name="slow")


def uniform(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet of equal devices: 20 GFLOP/s, 20 Mbit/s down, 10 Mbit/s up, 4 GB.

    The numbers of this file are our choice, here for a board with a small GPU on a mobile link.
    """
    return Fleet("uniform", seed, variation, (_FAST,))


def two_speed(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet whose odd clients compute 4 times slower on a link 2 times slower.

    Even clients are as in :func:`uniform`; odd ones have 5 GFLOP/s, 10 Mbit/s down, 5 Mbit/s up
    and 1 GB (our choice, for a single-board computer without a GPU).
    """
    return Fleet("two-speed", seed, variation, (_FAST, _SLOW))


def ten_speed(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet where client i needs 1 + i mod 10 times the seconds per operation.

    Client 0 and all links are as in :func:`uniform` (our choice).
    """
    levels = tuple(
        replace(_FAST, flops_per_s=_FAST.flops_per_s / slowness, name=f"1/{slowness}")
        for slowness in range(1, 11)
    )
    return Fleet("ten-speed", seed, variation, levels)


def long_tail(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet in which few are slow: of ten, seven are fast, two slow, and one very slow.

    Fast and slow are as in :func:`two_speed`; the last has 0.5 GFLOP/s, 1 Mbit/s down, 0.5 Mbit/s
    up and 500 MB (our choice).
    """
    tail = Level(0.5e9, down_bps=1e6, up_bps=0.5e6, memory_bytes=5 * 10**8, name="very slow")
    some, rest = (_FAST, _FAST, _SLOW), (_FAST, _FAST)
    return Fleet("long-tail", seed, variation, (*some, *rest, tail, *rest, _SLOW, _FAST))
