from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fpcli import plugins
from fpcli.errors import WireError
from fpcli.wire import CODECS
from fpcli.wire.numbers import Floats, Levels, NumberForm

NEAREST = {"float16": Floats(torch.float16)} | {
    f"nearest{bits}": Levels(2 ** (bits - 1) - 1, "max", is_stochastic=False, bits=bits)
    for bits in range(2, 17)
}
STOCHASTIC = (
    {
        f"int{bits}": Levels(2 ** (bits - 1) - 1, "max", is_stochastic=True, bits=bits)
        for bits in range(2, 17)
    }
    | {
        "ternary": Levels(1, "max", is_stochastic=True, bits=0),
    }
    | {
        f"qsgd{bits}": Levels(2 ** (bits - 1) - 1, "norm", is_stochastic=True, bits=bits)
        for bits in range(2, 9)
    }
)
FORMS = NEAREST | STOCHASTIC


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arrives(numbers: NumberForm, values: Tensor, rng: torch.Generator | None = None) -> Tensor:
    return numbers.unpack("w", numbers.pack("w", values, rng or stream()), tuple(values.shape))


@pytest.mark.parametrize(
    ("bits", "levels"),
    [(3, [2, -1, 0, -3, 1]), (4, [5, -1, 0, -7, 2]), (8, [89, -25, 6, -127, 43])],
)
def test_levels_to_the_nearest(bits: int, levels: list[int]) -> None:
    # i = sign(v) floor(|v| top / scale + 1/2) with scale 1 and top 3, 7 and 127.
    values = torch.tensor([0.70, -0.20, 0.05, -1.00, 0.34])
    numbers = NEAREST[f"nearest{bits}"]
    assert isinstance(numbers, Levels)
    expected = torch.tensor(levels, dtype=torch.float64) / numbers.top
    assert arrives(numbers, values).tolist() == expected.float().tolist()


def test_half_a_level_goes_away_from_zero() -> None:
    values = torch.tensor([3.0, 0.5, -0.5, 1.5])
    assert arrives(NEAREST["nearest3"], values).tolist() == [3.0, 1.0, -1.0, 2.0]


def test_codes_lie_one_after_another() -> None:
    # Levels 2 -1 0 -3 1 are the codes 5 2 3 0 4 in three bits each, the lowest bit first:
    # 101 010 110 000 001, that is bytes 10101011 and 0000001 read from the left.
    values = torch.tensor([0.70, -0.20, 0.05, -1.00, 0.34])
    parts = NEAREST["nearest3"].pack("w", values, None)
    assert parts[""].tolist() == [0b11010101, 0b01000000]
    assert parts["#scale"].tolist() == [1.0]
    # In twelve bits 4094 and 2048, that is 0xffe and 0x800: a code may begin within a byte.
    parts = NEAREST["nearest12"].pack("w", torch.tensor([1.0, 1 / 2047]), None)
    assert parts[""].tolist() == [0xFE, 0x0F, 0x80]
    # Digits 2 0 1 2 1 of base 3: 2 + 0 + 9 + 54 + 81; then 0 and padding.
    parts = STOCHASTIC["ternary"].pack("w", torch.tensor([4.0, -4, 0, 4, 0, -4]), stream())
    assert parts[""].tolist() == [146, 0]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 10**6))
def test_lengths_follow_from_the_count(form: str, count: int, seed: int) -> None:
    numbers = FORMS[form]
    values = torch.randn(count, generator=stream(seed))
    parts = numbers.pack("w", values, stream(seed))
    assert sum(part.nbytes for part in parts.values()) == numbers.num_bytes(count)
    bits = 1.6 if form == "ternary" else getattr(numbers, "bits", 16)
    scale = 4 if isinstance(numbers, Levels) else 0
    assert numbers.num_bytes(count) == scale + math.ceil(count * bits / 8 - 1e-9)


@pytest.mark.parametrize("form", NEAREST)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-60000, 60000, width=32), max_size=30),
    st.sampled_from([1.0, 1e-3, 1e-30]),
)
def test_nearest_forms_are_idempotent(form: str, listed: list[float], factor: float) -> None:
    values = torch.tensor(listed, dtype=torch.float32) * factor
    numbers = NEAREST[form]
    once = arrives(numbers, values)
    assert torch.equal(arrives(numbers, once), once)
    if isinstance(numbers, Levels) and len(values):
        half = float(values.abs().max()) / (2 * numbers.top)
        assert float((once.double() - values.double()).abs().max()) <= half * (1 + 1e-6)


@pytest.mark.parametrize("form", STOCHASTIC)
def test_stochastic_forms_have_no_bias(form: str) -> None:
    numbers, draws = STOCHASTIC[form], 2000
    values = torch.tensor([1.0, -0.83, 0.5, 0.01, 0.0, -0.002, 0.3])
    rng = stream(1)
    got = torch.stack([arrives(numbers, values, rng).double() for _ in range(draws)])
    # The standard error from theory: a value between two levels is one of them by chance.
    assert isinstance(numbers, Levels)
    scale = 1.0 if numbers.scale == "max" else float(values.double().norm())
    share = values.double().abs() * numbers.top / scale
    rest = share - share.floor()
    error = (rest * (1 - rest) / draws).sqrt() * scale / numbers.top
    assert bool(((got.mean(0) - values.double()).abs() <= 4 * error + 1e-6).all())
    assert bool((got.std(0) > 0).any())


def test_one_stream_gives_one_result() -> None:
    numbers, values = STOCHASTIC["qsgd4"], torch.randn(3, 50, generator=stream())
    first = arrives(numbers, values, stream(5))
    assert torch.equal(arrives(numbers, values, stream(5)), first)
    assert not torch.equal(arrives(numbers, values, stream(6)), first)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_and_zeros(form: str) -> None:
    for values in (torch.zeros(0), torch.zeros(2, 3)):
        assert torch.equal(arrives(FORMS[form], values), values)


def test_one_large_value_is_its_own_norm() -> None:
    # The norm of (v, 0) as float32 is v, and no level above the top one may come out.
    for exponent in range(-40, 40):
        values = torch.tensor([1.1 * 2.0**exponent, 0.0])
        assert torch.equal(arrives(STOCHASTIC["qsgd8"], values), values)


@pytest.mark.parametrize(
    ("form", "values", "reason"),
    [
        ("float16", [70000.0], "float16 cannot hold"),
        ("nearest8", [math.inf], "not finite"),
        ("qsgd2", [math.nan], "not finite"),
        ("qsgd2", [3e38, 3e38], "not finite"),
    ],
)
def test_what_cannot_be_written(form: str, values: list[float], reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        FORMS[form].pack("w", torch.tensor(values), stream())


def test_rounding_at_random_needs_a_stream() -> None:
    with pytest.raises(WireError, match="random stream"):
        STOCHASTIC["qsgd2"].pack("w", torch.ones(2), None)


def u8(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("form", "parts", "reason"),
    [
        ("nearest3", {"": u8(0b101), "#scale": ONE}, "has shape"),
        ("nearest3", {"": u8(0b11111111, 0)}, "has the parts"),
        ("nearest3", {"": u8(0, 0), "#scale": ONE, "#more": ONE}, "has the parts"),
        ("nearest3", {"": u8(0, 0).int(), "#scale": ONE}, "has type"),
        ("nearest3", {"": u8(0, 0), "#scale": ONE.double()}, "has type"),
        ("nearest3", {"": u8(0, 0), "#scale": torch.ones(2)}, "has shape"),
        ("nearest3", {"": u8(0, 0), "#scale": -ONE}, "no sender writes"),
        ("nearest3", {"": u8(0, 0), "#scale": ONE * math.nan}, "no sender writes"),
        ("nearest3", {"": u8(0, 0), "#scale": ONE * math.inf}, "no sender writes"),
        ("nearest3", {"": u8(0b111, 0), "#scale": ONE}, "no sender writes"),
        ("nearest3", {"": u8(0, 0b10000000), "#scale": ONE}, "no sender writes"),
        ("ternary", {"": u8(243), "#scale": ONE}, "no sender writes"),
        ("float16", {"": torch.ones(5)}, "has type"),
        ("float16", {"": torch.ones(5).half(), "#scale": ONE}, "has the parts"),
    ],
)
def test_wrong_parts_are_refused(form: str, parts: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        FORMS[form].unpack("w", parts, (5,))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(FORMS)),
    st.binary(max_size=12),
    st.floats(width=32),
    st.integers(0, 14),
)
def test_any_bytes_are_read_or_refused(form: str, data: bytes, scale: float, count: int) -> None:
    parts = {"": u8(*data), "#scale": torch.tensor([scale])}
    if form == "float16":
        parts = {"": u8(*data[: len(data) // 2 * 2]).view(torch.float16)}
    numbers = FORMS[form]
    try:
        values = numbers.unpack("w", parts, (count,))
    except WireError:
        return
    assert values.shape == (count,)
    assert values.dtype == torch.float32
    if isinstance(numbers, Levels):
        assert bool(values.isfinite().all())


def test_every_form_is_a_codec() -> None:
    forms = {plugins.lookup("codecs", name)().numbers((2, 2)) for name in CODECS if name != "dense"}
    assert {*STOCHASTIC.values(), *NEAREST.values(), Floats()} == forms
