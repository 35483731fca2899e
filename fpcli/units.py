"""Numbers with units, as people write them, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(.*)", re.DOTALL)
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def _with_prefixes(units: Iterable[str], prefixes: Mapping[str, int]) -> dict[str, float]:
    """Return every prefix before every unit, with its factor."""
    return {prefix + unit: factor for unit in units for prefix, factor in prefixes.items()}


_SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("us", "µs"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_BPS = _with_prefixes(("bit", "bits", "bit/s", "bits/s", "bit/sec", "bps"), _DECIMAL)
_FLOPS = _with_prefixes(("flop", "flops", "flop/s", "flops/s"), _DECIMAL)
_BYTES = _with_prefixes(("b", "byte", "bytes"), _DECIMAL | _BINARY)


def _parse(text: str | float, units: Mapping[str, float], likely: tuple[str, str]) -> float:
    """Return the number in base units; blanks and case do not matter, and 0 needs no unit.

    Args:
        likely: the two units that one without is most likely to mean.
    """
    example = f"2.5 {likely[0]}"
    if isinstance(text, bool):
        raise ValueError(f"`{text}` is not a number; write for example `{example}`")
    compact = "".join(str(text).split()).lower()
    match = _NUMBER.fullmatch(compact)
    if match is None:
        raise ValueError(f"`{text}` is not a number with a unit; write for example `{example}`")
    number, unit = match.groups()
    if unit.startswith(","):
        raise ValueError(f"`{text}` has a comma; write a decimal point: `{example}`")
    if not unit and float(number):
        meant = " or ".join(f"`{number} {word}`" for word in likely)
        raise ValueError(f"`{text}` has no unit; write {meant}")
    if unit and unit not in units:
        raise ValueError(f"`{text}` has an unknown unit `{unit}`; write for example `{example}`")
    value = float(number) * units.get(unit, 1.0)
    if not 0 <= value < math.inf:
        raise ValueError(f"`{text}` must be finite and not negative; for example `{example}`")
    return value


def parse_seconds(text: str | float) -> float:
    """Return seconds; ``m`` is minutes.

    Raises:
        ValueError: not a finite number >= 0 with a unit of time.

    >>> parse_seconds("60s"), parse_seconds("10m"), parse_seconds("250 ms")
    (60.0, 600.0, 0.25)
    """
    return _parse(text, _SECONDS, ("s", "min"))


def parse_bps(text: str | float) -> float:
    """Return bits per second.

    Raises:
        ValueError: not a finite number >= 0 with a unit of bits per second.

    >>> parse_bps("20 Mbit/s"), parse_bps("20 mbits"), parse_bps("1.5 Gbps")
    (20000000.0, 20000000.0, 1500000000.0)
    """
    return _parse(text, _BPS, ("Mbit/s", "bit/s"))


def parse_flops(text: str | float) -> float:
    """Return floating-point operations per second.

    Raises:
        ValueError: not a finite number >= 0 with a unit of operations per second.

    >>> parse_flops("1.5 GFLOP/s"), parse_flops("500 mflops")
    (1500000000.0, 500000000.0)
    """
    return _parse(text, _FLOPS, ("GFLOP/s", "FLOP/s"))


def parse_bytes(text: str | float) -> int:
    """Return bytes; ``kB`` is 1,000 and ``KiB`` 1,024 of them.

    Raises:
        ValueError: not a finite number >= 0 with a unit of bytes.

    >>> parse_bytes("64 MiB"), parse_bytes("1.5 kB"), parse_bytes("7 B")
    (67108864, 1500, 7)
    """
    return round(_parse(text, _BYTES, ("MB", "B")))


def parse_share(text: str) -> float:
    """Return a share as a fraction; it may be written in percent.

    Raises:
        ValueError: not a number; whether it lies in [0, 1] is left to the caller.

    >>> parse_share("0.5"), parse_share("98.3 %")
    (0.5, 0.983)
    """
    number, percent, rest = text.partition("%")
    if not percent:
        return float(text)
    if rest.strip():
        raise ValueError(f"`{text}` is not a number")
    return float(f"{number.strip()}e-2")


def share_hint(text: str) -> str:
    """Return how to write what somebody wrote for a share; empty if it lies in [0, 1] or below.

    >>> share_hint("30"), share_hint("0.5x"), share_hint("1.0")
    ('write `0.3` or `30%`', 'write `0.5` or `50%`', '')
    """
    try:
        if parse_share(text) <= 1:
            return ""
    except ValueError:
        pass
    match = _NUMBER.match(text.strip())
    number = float(match[1]) if match else 0.5
    share = number if 0 < number <= 1 else number / 100 if 1 < number <= 100 else 0.5
    return f"write `{share:g}` or `{100 * share:g}%`"


def format_bytes(num_bytes: float) -> str:
    """Return bytes in decimal units with one digit after the point.

    >>> format_bytes(999), format_bytes(1500), format_bytes(44_841_984), format_bytes(999_960)
    ('999 B', '1.5 kB', '44.8 MB', '1.0 MB')
    """
    if round(num_bytes) < 1000:
        return f"{round(num_bytes)} B"
    for unit, factor in (("kB", 1e3), ("MB", 1e6)):
        if round(num_bytes / factor, 1) < 1000:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes / 1e9:.1f} GB"


def format_input(shape: Sequence[int], task: str = "classify") -> str:
    """Return what samples of a shape are, in words.

    Args:
        task: what is learned from them, of ``tasks.TASKS``.

    >>> format_input((1, 8, 8)), format_input((30,)), format_input((50,), "rank")
    ('1x8x8 images', '30 features', 'sequences of 50')
    """
    if task == "rank":
        return f"sequences of {shape[0]}"
    return f"{'x'.join(map(str, shape))} {'images' if len(shape) > 1 else 'features'}"


def format_seconds(seconds: float) -> str:
    """Return a duration in one or two units.

    >>> format_seconds(3.2), format_seconds(245), format_seconds(7380)
    ('3.2 s', '4 min 05 s', '2 h 03 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
