"""Published boards and phones, and fleets of them.

What is published is the hardware: cores, clocks and memory, below with their source. From these
follows the peak in float32, where a multiply-add is two operations:

* a GPU core does one multiply-add per clock;
* an Arm core does eight operations per clock with one 128-bit vector unit, which holds four
  numbers (Cortex-A53, A55, A72, A73), and sixteen with two (Cortex-A76, A77). The number of units
  is our reading of these designs.

Ours, not published and not measured, are the share of the peak that training reaches, the links,
and how many of each kind are in a fleet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fpcli.fleet.classes import spread_evenly
from fpcli.fleet.devices import Fleet, Level

_GPU, _BIG, _LITTLE = 0.25, 0.25, 0.1
"""Shares of the peak that training small networks reaches: on a GPU, on processor cores that
reorder instructions, and on ones that do not. Our choice."""
_WIFI, _LTE, _SLOW_LTE = (20e6, 10e6), (15e6, 5e6), (6e6, 2e6)
"""Bits per second down and up. Our choice."""


@dataclass(frozen=True)
class Board:
    """A published device.

    Attributes:
        peak_flops_per_s: float32 operations per second at full clock.
        efficiency: the share of it that training reaches (ours).
        memory_bytes: main memory.
        link: bits per second down and up (ours).
        source: who published cores, clock and memory.
    """

    peak_flops_per_s: float
    efficiency: float
    memory_bytes: int
    link: tuple[float, float]
    source: str

    def level(self, name: str) -> Level:
        """Return the class of hardware that the simulated clock works with."""
        down_bps, up_bps = self.link
        flops_per_s = self.peak_flops_per_s * self.efficiency
        return Level(flops_per_s, down_bps, up_bps, self.memory_bytes, name)


def _gb(number: int) -> int:
    return number * 2**30


BOARDS: Mapping[str, Board] = {
    "raspberry-pi-3": Board(
        8 * 4 * 1.4e9, _LITTLE, _gb(1), _WIFI,
        "The Official Raspberry Pi Beginner's Guide (2018), appendix F: model 3B+, "
        "four Cortex-A53 at 1.4 GHz, 1 GB",
    ),
    "raspberry-pi-4": Board(
        8 * 4 * 1.5e9, _BIG, _gb(4), _WIFI,
        "The Official Raspberry Pi Beginner's Guide (3rd edition), appendix F: model 4B, "
        "four Cortex-A72 at 1.5 GHz, up to 4 GB",
    ),
    "raspberry-pi-5": Board(
        16 * 4 * 2.4e9, _BIG, _gb(8), _WIFI,
        "Upton, Raspberry Pi announcement (2023): four Cortex-A76 at 2.4 GHz, 4 or 8 GB",
    ),
    "jetson-nano": Board(
        2 * 128 * 921e6, _GPU, _gb(4), _WIFI,
        "NVIDIA: 128 Maxwell cores, 4 GB; 921 MHz in tables of GPUs",
    ),
    "jetson-tx2": Board(
        2 * 256 * 1465e6, _GPU, _gb(8), _WIFI,
        "NVIDIA data sheet of the module: 256 Pascal cores, 8 GB; up to 1,465 MHz and 750 GFLOP/s "
        "in tables of GPUs (the module's energy-saving mode has 854 MHz)",
    ),
    "jetson-xavier-nx": Board(
        2 * 384 * 1377e6, _GPU, _gb(8), _WIFI,
        "Tables of GPUs: 384 Volta cores, up to 1,377 MHz, 1,058 GFLOP/s; 8 GB is ours, for the "
        "usual module",
    ),
    "jetson-orin-nano": Board(
        2 * 1024 * 625e6, _GPU, _gb(8), _WIFI,
        "NVIDIA data sheet of the 8 GB module before its clock was raised: 1,024 Ampere cores at "
        "625 MHz",
    ),
    "snapdragon-865": Board(
        16 * (2.84e9 + 3 * 2.42e9) + 8 * 4 * 1.8e9, _BIG, _gb(8), _LTE,
        "WikiChip and AnandTech (2019): Cortex-A77 at 2.84 and three at 2.42 GHz, four Cortex-A55 "
        "at 1.8 GHz, up to 16 GB; 8 GB is ours",
    ),
    "snapdragon-660": Board(
        8 * 4 * 2.2e9 + 8 * 4 * 1.8e9, _BIG, _gb(4), _LTE,
        "Qualcomm's announcement (2017): four cores after Cortex-A73 at 2.2 GHz and four after "
        "Cortex-A53 at 1.8 GHz; 4 GB is ours",
    ),
    "helio-p35": Board(
        8 * 8 * 2.3e9, _LITTLE, _gb(3), _SLOW_LTE,
        "MediaTek's announcement (2018): eight Cortex-A53 at 2.3 GHz, up to 6 GB; 3 GB is ours",
    ),
}  # fmt: skip
"""Name -> device; also what ``device:`` in a fleet file may name."""


def edge_boards(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet of two Raspberry Pi and four NVIDIA Jetson boards in turn."""
    names = ["raspberry-pi-4", "raspberry-pi-5", "jetson-nano", "jetson-tx2"]
    names += ["jetson-xavier-nx", "jetson-orin-nano"]
    return Fleet("edge-boards", seed, variation, tuple(BOARDS[name].level(name) for name in names))


def phones(seed: int, variation: float = 0.1) -> Fleet:
    """Return a fleet of phones: of ten, two are fast, five of the middle, and three are slow."""
    shares = {"snapdragon-865": 2.0, "snapdragon-660": 5.0, "helio-p35": 3.0}
    levels = [(BOARDS[name].level(name), share) for name, share in shares.items()]
    return Fleet("phones", seed, variation, spread_evenly(levels))
