"""A radio channel that clients share: what of it reaches the server, and the rate of a share.

One base station in the middle of a cell, an up-link whose band is divided among the clients
(FDMA), and one number per client and round that says how good its channel is: received power over
noise density, the carrier-to-noise-density ratio C/N0 in Hz. From it follow the rate of a
bandwidth share and the share that a rate needs. These functions take numbers, or arrays with one
entry per client.

Path loss is that of an urban macro cell at 2 GHz (3GPP TR 36.942, 4.5.2, antenna 15 m above the
roofs). That and the other defaults are our choice, not those of a paper on federated learning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fpcli.fleet.devices import Device
from fpcli.rng import draw_uniform

FloatOrArray = float | NDArray[np.float64]
Positive = Annotated[float, Gt(0)]


def _check_positive(**values: FloatOrArray | None) -> None:
    """Refuse by name what is not finite or not above 0; None passes."""
    for name, value in values.items():
        if value is not None and not np.all(np.isfinite(value) & np.greater(value, 0)):
            raise ValueError(f"`{name}` is {value}; it must be finite and above 0")


@dataclass(frozen=True)
class Link:
    """What the server gives one client of a shared channel in one round.

    Attributes:
        down_bps: bits per second from the server; None leaves the device's own.
        up_bps: bits per second to the server; None leaves the device's own.

    Raises:
        ValueError: a rate is not finite or not above 0.
    """

    down_bps: float | None = None
    up_bps: float | None = None

    def __post_init__(self) -> None:
        _check_positive(down_bps=self.down_bps, up_bps=self.up_bps)

    def on(self, device: Device) -> Device:
        """Return the device with the link's rates in the place of its own."""
        return replace(
            device,
            down_bps=device.down_bps if self.down_bps is None else self.down_bps,
            up_bps=device.up_bps if self.up_bps is None else self.up_bps,
        )


@dataclass(frozen=True)
class Channel:
    """The channels between a base station and its clients; every draw follows from the seed.

    Raises:
        ValueError: a distance or the power is not finite or not above 0, or the distances cross.
    """

    seed: int
    """Seed of the clients' positions and of the fading."""
    nearest_m: Positive = 10.0
    """Metres from the base station within which there is no client."""
    farthest_m: Positive = 500.0
    """Radius of the cell in metres; clients are spread uniformly over its area."""
    loss_at_1km_db: float = 128.1
    """Path loss at a distance of 1 km, in dB."""
    loss_per_decade_db: float = 37.6
    """Path loss that ten times the distance adds, in dB."""
    power_w: Positive = 0.1
    """Transmit power of a client, in W."""
    noise_dbm_per_hz: float = -174.0
    """Density of the noise power, in dBm/Hz; -174 is thermal noise at room temperature."""

    def __post_init__(self) -> None:
        _check_positive(nearest_m=self.nearest_m, farthest_m=self.farthest_m, power_w=self.power_w)
        if self.nearest_m > self.farthest_m:
            raise ValueError(
                f"`nearest_m` is {self.nearest_m}, beyond `farthest_m`, {self.farthest_m}"
            )

    @property
    def noise_w_per_hz(self) -> float:
        """Density of the noise power N0, in W/Hz."""
        return 1e-3 * 10 ** (self.noise_dbm_per_hz / 10)

    def distance_m(self, client: int) -> float:
        """Return a client's distance from the base station in metres, the same in every round."""
        share = draw_uniform(self.seed, "channel/position", client=client)
        inner, outer = self.nearest_m**2, self.farthest_m**2
        return math.sqrt(inner + share * (outer - inner))

    def path_loss_db(self, distance_m: float) -> float:
        """Return the path loss in dB at a distance in metres."""
        return self.loss_at_1km_db + self.loss_per_decade_db * math.log10(distance_m / 1000)

    def fading(self, round: int, client: int) -> float:
        """Return the power factor of Rayleigh block fading: Exp(1), one draw per round."""
        return -math.log(draw_uniform(self.seed, "channel/fading", round, client))

    def gain(self, round: int, client: int) -> float:
        """Return received over transmitted power: path loss times fading."""
        loss_db = self.path_loss_db(self.distance_m(client))
        return 10 ** (-loss_db / 10) * self.fading(round, client)

    def cn0_hz(self, round: int, client: int, power_w: float | None = None) -> float:
        """Return C/N0 in Hz, the same whoever else is asked for.

        Args:
            round: the round; fading changes from one to the next.
            client: whose channel.
            power_w: transmit power in W; None means that of all. Not above 0 is a ValueError.
        """
        _check_positive(power_w=power_w)
        power_w = self.power_w if power_w is None else power_w
        return power_w * self.gain(round, client) / self.noise_w_per_hz

    def link(
        self, round: int, client: int, bandwidth_hz: float, power_w: float | None = None
    ) -> Link:
        """Return the up-link of a bandwidth share; down, the device's own rate remains.

        Arguments and errors as for :meth:`cn0_hz`; the bandwidth, too, is finite and above 0.
        """
        return Link(up_bps=float(shannon_bps(bandwidth_hz, self.cn0_hz(round, client, power_w))))


def shannon_bps(bandwidth_hz: FloatOrArray, cn0_hz: FloatOrArray) -> Any:
    """Return the rate ``b log2(1 + G/b)`` in bits per second.

    It increases with the bandwidth b, ever more slowly, towards :func:`shannon_limit_bps`.

    Args:
        bandwidth_hz: b, in Hz.
        cn0_hz: G, the ratio C/N0 in Hz.

    Raises:
        ValueError: the bandwidth is not finite or not above 0.
    """
    _check_positive(bandwidth_hz=bandwidth_hz)
    return bandwidth_hz * np.log1p(cn0_hz / bandwidth_hz) / math.log(2)


def shannon_limit_bps(cn0_hz: FloatOrArray) -> Any:
    """Return the rate in bits per second that no bandwidth reaches, ``G / ln 2``."""
    return cn0_hz / math.log(2)


def shannon_slope(bandwidth_hz: FloatOrArray, cn0_hz: FloatOrArray) -> Any:
    """Return the derivative of :func:`shannon_bps` by the bandwidth, in bits per second per Hz."""
    _check_positive(bandwidth_hz=bandwidth_hz)
    snr = cn0_hz / bandwidth_hz
    return (np.log1p(snr) - snr / (1 + snr)) / math.log(2)


def bandwidth_for(bps: FloatOrArray, cn0_hz: FloatOrArray) -> Any:
    """Return the bandwidth in Hz that a rate needs, the inverse of :func:`shannon_bps`.

    With ``x = G/b`` the rate is the share ``c = ln(1 + x) / x`` of its limit, which gives
    ``x = -1 - W(-c e^-c) / c`` with the lower branch of Lambert's function.

    Args:
        bps: the rate in bits per second.
        cn0_hz: G, the ratio C/N0 in Hz.

    Returns:
        Infinity where the rate is at or above :func:`shannon_limit_bps`.

    Raises:
        ValueError: the rate is not above 0.
    """
    from scipy.special import lambertw  # takes longer to import than all the rest to compute

    share = np.asarray(bps / shannon_limit_bps(cn0_hz))
    if not np.all(share > 0):
        raise ValueError(f"`bps` is {bps}; it must be above 0")
    c = np.minimum(share, np.nextafter(1.0, 0.0))
    x = -1 - lambertw(-c * np.exp(-c), -1).real / c
    # Near the limit, its branch point, scipy's W is off by up to a factor of 2, or NaN. There the
    # solution is just above 2 (1 - c) / c, and two steps of Newton's method for ln(1 + x) = c x
    # restore the digits.
    x = np.fmax(x, 2 * (1 - c) / c)
    for _ in range(2):
        x = x - (np.log1p(x) - c * x) / (1 / (1 + x) - c)
    return np.where(share < 1, cn0_hz / x, np.inf)[()]
