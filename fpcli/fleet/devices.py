"""Simulated devices: how fast each client computes, sends and receives in each round."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

from fpcli.rng import derive


@dataclass(frozen=True)
class Level:
    """One class of hardware.

    Attributes:
        flops_per_s: floating-point operations per second in training.
        down_bps: bits per second from the server.
        up_bps: bits per second to the server.
        memory_bytes: main memory.
    """

    flops_per_s: float
    down_bps: float
    up_bps: float
    memory_bytes: int


@dataclass(frozen=True)
class Device:
    """The conditions of one client in one round; units as in :class:`Level`."""

    client: int
    flops_per_s: float
    down_bps: float
    up_bps: float
    memory_bytes: int


@dataclass(frozen=True)
class Fleet:
    """All devices, computed when asked for, so that a thousand clients cost nothing.

    Attributes:
        profile: its name.
        seed: seed of the changes from round to round.
        variation: standard deviation of the natural logarithm of a factor that is drawn per
            client and round, once for computing and once for the link; 0 means constant speed.
        levels: client i has hardware ``levels[i % len(levels)]``.
    """

    profile: str
    seed: int
    variation: float
    levels: tuple[Level, ...]

    def nominal(self, client: int) -> Device:
        """Return the client's device without the changes from round to round."""
        level = self.levels[client % len(self.levels)]
        return Device(client, level.flops_per_s, level.down_bps, level.up_bps, level.memory_bytes)

    def at(self, round: int, client: int) -> Device:
        """Return the client's device in one round; the same whoever else is asked for."""
        device = self.nominal(client)
        compute = self._factor("fleet/compute", round, client)
        link = self._factor("fleet/link", round, client)
        return replace(
            device,
            flops_per_s=device.flops_per_s * compute,
            down_bps=device.down_bps * link,
            up_bps=device.up_bps * link,
        )

    def _factor(self, purpose: str, round: int, client: int) -> float:
        """Return a log-normal number with median 1."""
        # 52 bits and a half keep the fraction strictly between 0 and 1 in floating point.
        fraction = ((derive(self.seed, purpose, round, client) >> 11) + 0.5) / 2**52
        return math.exp(self.variation * NormalDist().inv_cdf(fraction))


_FAST = Level(flops_per_s=20e9, down_bps=20e6, up_bps=10e6, memory_bytes=4 * 10**9)
_SLOW = Level(flops_per_s=5e9, down_bps=10e6, up_bps=5e6, memory_bytes=10**9)


def uniform(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet of equal devices: 20 GFLOP/s, 20 Mbit/s down, 10 Mbit/s up, 4 GB.

    The numbers of all profiles are our choice, for a board with a small GPU on a mobile link.
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
        replace(_FAST, flops_per_s=_FAST.flops_per_s / slowness) for slowness in range(1, 11)
    )
    return Fleet("ten-speed", seed, variation, levels)
