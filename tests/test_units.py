from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpcli import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60.0),
        ("60 S", 60.0),
        ("10m", 600.0),
        ("10 minutes", 600.0),
        ("250 ms", 0.25),
        ("1.5 h", 5400.0),
        ("1e-3 s", 0.001),
        (" .5 sec ", 0.5),
        ("0", 0.0),
    ],
)
def test_seconds(text: str, seconds: float) -> None:
    assert units.parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["20 Mbit/s", "20 Mbits", "20MBIT/S", "20 mbps", "2e7 bit/s"])
def test_bits_per_second(text: str) -> None:
    assert units.parse_bps(text) == 20e6


@pytest.mark.parametrize("text", ["1.5 GFLOP/s", "1.5gflops", "1500 MFLOPs", "1.5 G FLOP / s"])
def test_operations_per_second(text: str) -> None:
    assert units.parse_flops(text) == 1.5e9


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("64 MiB", 2**26), ("64mib", 2**26), ("1 GB", 10**9), ("12 B", 12), ("2 bytes", 2), (0, 0)],
)
def test_bytes(text: str | float, num_bytes: int) -> None:
    assert units.parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        (units.parse_seconds, "60", "`60 s` or `60 min`"),
        (units.parse_bps, 20, "`20 Mbit/s` or `20 bit/s`"),
        (units.parse_flops, "1.5e9", "`1.5e9 GFLOP/s` or `1.5e9 FLOP/s`"),
        (units.parse_bytes, "64", "`64 MB` or `64 B`"),
    ],
)
def test_a_number_without_a_unit_is_not_guessed_at(
    parse: Callable[[str | float], float], text: str | float, meant: str
) -> None:
    with pytest.raises(ValueError, match=f"`{text}` has no unit; write {meant}"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("50%", 0.5),
        (" 98.3 % ", 0.983),
        ("0.1%", 0.001),
        ("0.25", 0.25),
        ("250%", 2.5),
        (".5", 0.5),
    ],
)
def test_shares(text: str, share: float) -> None:
    assert units.parse_share(text) == share


@pytest.mark.parametrize("text", ["", "%", "half", "5%%", "5% of", "0.5x", "nan%"])
def test_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|is not a number"):
        units.parse_share(text)


@pytest.mark.parametrize("text", ["0,5", "0,5 s", "1,000"])
def test_comma_names_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="decimal point"):
        units.parse_seconds(text)


@pytest.mark.parametrize(
    "text", ["", "s", "fast", "5 parsec", "-1 s", "1e999 s", "nan", "inf", True]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"for example `2\.5 s`"):
        units.parse_seconds(text)


def test_bytes_are_no_rate() -> None:
    with pytest.raises(ValueError, match=r"2\.5 Mbit/s"):
        units.parse_bps("20 MB/s")


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (999_960_000, "1.0 GB"),
        (12_345e9, "12345.0 GB"),
    ],
)
def test_format_bytes(num_bytes: float, text: str) -> None:
    assert units.format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7200, "2 h 00 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert units.format_seconds(seconds) == text


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_a_clear_error(text: str) -> None:
    for parse in (units.parse_seconds, units.parse_bps, units.parse_flops, units.parse_bytes):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert "write" in str(error) or "must be" in str(error)
