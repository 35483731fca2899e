from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fpcli import plugins
from fpcli.errors import WireError
from fpcli.wire import CODECS
from fpcli.wire.codecs import FLOAT32, PART_BYTES, Codec, Dense, Sparse

SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def num_bytes(parts: dict[str, Tensor]) -> int:
    return sum(part.numel() * part.element_size() for part in parts.values())


def masked(shape: tuple[int, ...], seed: int, density: float) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=rng)
    # Every third alive value is 0: masks must not be guessed from values.
    values.reshape(-1)[::3] = 0.0
    return values, torch.rand(shape, generator=rng) < density


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("known", [False, True])
@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 10**6), st.sampled_from([0.0, 0.02, 0.3, 0.97, 1.0]))
def test_round_trip(
    name: str, known: bool, shape: tuple[int, ...], seed: int, density: float
) -> None:
    codec: Codec = plugins.lookup("codecs", name)()
    values, mask = masked(shape, seed, density)
    parts = codec.encode("w", values, mask, known, torch.Generator().manual_seed(seed))
    decoded, found = codec.decode("w", parts, shape, mask if known else None)
    assert found is not None
    assert torch.equal(found, mask)
    if not isinstance(codec, Sparse):
        assert torch.equal(decoded, torch.where(mask, values, 0.0))
        return
    numbers, alive = codec.numbers(shape), int(mask.sum())
    if numbers == FLOAT32:
        assert torch.equal(decoded, torch.where(mask, values, 0.0))
    is_told = known or alive == mask.numel()
    sizes = [4 * alive, math.ceil(mask.numel() / 8)]  # indices, a bitmap, or rows with their own
    if len(shape) > 1:
        rows = mask[mask.flatten(1).any(1)]
        in_rows = 4 * len(rows) + (0 if rows.all() else math.ceil(rows.numel() / 8))
        is_worth_it = in_rows + PART_BYTES < min(sizes)  # a part more in the message
        sizes = [in_rows] if is_worth_it else sizes
    if "w#grid" in parts:
        assert num_bytes(parts) + PART_BYTES <= numbers.num_bytes(alive) + min(sizes)
        return
    assert num_bytes(parts) == numbers.num_bytes(alive) + (0 if is_told else min(sizes))


@pytest.mark.parametrize("name", CODECS)
def test_biases_and_statistics_travel_whole(name: str) -> None:
    codec: Codec = plugins.lookup("codecs", name)()
    variances = torch.tensor([1e-7, 3.0, 70000.0])
    parts = codec.encode("var", variances, None, False, torch.Generator())
    assert torch.equal(codec.decode("var", parts, (3,), None)[0], variances)


@pytest.mark.parametrize("codec", [Dense(), Sparse()])
def test_without_mask_everything_travels(codec: Codec) -> None:
    values = torch.randn(3, 2)
    parts = codec.encode("w", values, None, False)
    decoded, mask = codec.decode("w", parts, (3, 2), None)
    assert torch.equal(decoded, values)
    assert mask is None


@pytest.mark.parametrize("codec", [Dense(), Sparse()])
def test_dead_values_never_travel(codec: Codec) -> None:
    mask = torch.tensor([True, False, False, True])
    values = torch.tensor([1.0, math.nan, math.inf, 2.0])
    decoded, _ = codec.decode("w", codec.encode("w", values, mask, False), (4,), None)
    assert decoded.tolist() == [1.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("alive", "expected", "form"),
    [(1000, 4800, "#bitmap"), (199, 1592, "#index"), (200, 1600, "#bitmap"), (6400, 25600, "")],
)
def test_bytes_of_a_tensor_of_6400(alive: int, expected: int, form: str) -> None:
    # 4 z + 6400 / 8, 8 z, the tie at z = N / 32 goes to the bitmap, and 4 N.
    mask = torch.zeros(80, 80, dtype=torch.bool)
    mask.reshape(-1)[torch.randperm(6400)[:alive]] = True
    parts = Sparse().encode("w", torch.ones(80, 80), mask, False)
    assert num_bytes(parts) == expected
    assert form == "" or f"w{form}" in parts


def test_dense_masked_bytes() -> None:
    mask = torch.arange(6400) < 1000
    assert num_bytes(Dense().encode("w", torch.ones(6400), mask, False)) == 25600 + 800
    assert num_bytes(Dense().encode("w", torch.ones(6400), mask, True)) == 25600


def floats(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def ints(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def bits(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


MASK = torch.tensor([True, False, False, True, False])


@pytest.mark.parametrize(
    ("codec", "parts", "mask", "reason"),
    [
        (Sparse(), {"w": floats(1, 2), "w#index": ints(3, 0)}, None, "ascending"),
        (Sparse(), {"w": floats(1, 2), "w#index": ints(3, 3)}, None, "ascending"),
        (Sparse(), {"w": floats(1, 2), "w#index": ints(3, 5)}, None, "outside"),
        (Sparse(), {"w": floats(1, 2), "w#index": ints(-1, 3)}, None, "outside"),
        (Sparse(), {"w": floats(1), "w#index": ints(0, 3)}, None, "shape"),
        (Sparse(), {"w": floats(1), "w#index": bits(0)}, None, "wrong type"),
        (Sparse(), {"w": floats(1), "w#index": ints(0).reshape(1, 1)}, None, "wrong type"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": bits(0b0100001)}, None, "beyond"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": bits(0b01001, 0)}, None, "2 bytes for 5"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": bits(0b00001)}, None, "shape"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": ints(0b01001)}, None, "wrong type"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": bits()}, None, "shape"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": bits(9), "w#index": ints(0)}, None, "parts"),
        (Sparse(), {"w": floats(1, 2), "w#bitmap": bits(0b01001)}, MASK, "not asked"),
        (Sparse(), {"w": floats(1, 2, 3)}, MASK, "shape"),
        (Sparse(), {"w": floats(1, 2)}, None, "shape"),
        (Sparse(), {"w": floats(1, 2, 3, 4, 5).double()}, None, "float32"),
        (Sparse(), {}, None, "parts"),
        (Sparse(), {"w": floats(1), "w#more": bits(1)}, None, "parts"),
        (Dense(), {"w": floats(1, 2, 0, 1, 0)}, MASK, "dead"),
        (Dense(), {"w": floats(1, 0, 0, 1, math.nan)}, MASK, "dead"),
        (Dense(), {"w": floats(1, 2, 0, 1, 0), "w#bitmap": bits(0b01001)}, None, "dead"),
        (Dense(), {"w": floats(1, 0, 0, 1, 0), "w#bitmap": bits(0b01001)}, MASK, "not asked"),
        (Dense(), {"w": floats(1, 0, 0, 1), "w#bitmap": bits(0b01001)}, None, "shape"),
        (Dense(), {"w": floats(1, 0), "w#index": ints(0, 3)}, None, "parts"),
        (Dense(), {"w": ints(1, 0, 0, 1, 0)}, MASK, "float32"),
    ],
)
def test_wrong_parts_are_refused(
    codec: Codec, parts: dict[str, Tensor], mask: Tensor | None, reason: str
) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        codec.decode("w", parts, (5,), mask)
    assert caught.value.where == "w"
    assert caught.value.hint


@pytest.mark.parametrize("codec", [Dense(), Sparse()])
@pytest.mark.parametrize(
    ("values", "mask"),
    [
        (torch.zeros(5, dtype=torch.float64), MASK),
        (torch.zeros(5), MASK.int()),
        (torch.zeros(4), MASK),
        (torch.zeros(5, dtype=torch.complex64), None),
    ],
)
def test_wrong_tensors_are_not_sent(codec: Codec, values: Tensor, mask: Tensor | None) -> None:
    with pytest.raises(WireError):
        codec.encode("w", values, mask, False)


TENSORS = st.one_of(
    st.lists(st.integers(-2, 40), max_size=6).map(lambda n: torch.tensor(n, dtype=torch.int32)),
    st.lists(st.integers(0, 255), max_size=4).map(lambda n: torch.tensor(n, dtype=torch.uint8)),
    st.lists(st.floats(width=32), max_size=6).map(lambda n: torch.tensor(n, dtype=torch.float32)),
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["w", "w#bitmap", "w#index", "w#rows", "w#grid", "v"]), TENSORS
    ),
    SHAPES,
    st.sampled_from([Dense(), Sparse()]),
    st.booleans(),
)
def test_any_parts_decode_or_are_refused(
    parts: dict[str, Tensor], shape: tuple[int, ...], codec: Codec, known: bool
) -> None:
    mask = torch.ones(shape, dtype=torch.bool) if known else None
    try:
        values, found = codec.decode("w", parts, shape, mask)
    except WireError:
        return
    assert values.shape == shape
    assert values.dtype == torch.float32
    assert found is None or (found.shape == shape and not bool(values[~found].any()))


def test_a_mask_of_few_rows_travels_as_their_numbers() -> None:
    """Of 1,000 rows 20 are left, half of them alive: 80 bytes of numbers, and 20 x 64 bits."""
    mask = torch.zeros(1000, 64, dtype=torch.bool)
    mask[::50, ::2] = True
    values = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    codec = Sparse()
    parts = codec.encode("w", values, mask, False)
    assert {name: part.nbytes for name, part in parts.items()} == {
        "w": 4 * 640, "w#rows": 80, "w#bitmap": 160,
    }  # fmt: skip
    decoded, received = codec.decode("w", parts, (1000, 64), None)
    assert received is not None
    assert torch.equal(received, mask)
    assert torch.equal(decoded, torch.where(mask, values, 0.0))


@pytest.mark.parametrize("rows", [[0, 1000], [1, 1], [2, 1], [-1, 0]])
def test_rows_that_are_none_are_refused(rows: list[int]) -> None:
    parts = {
        "w": torch.ones(2), "w#rows": torch.tensor(rows, dtype=torch.int32),
        "w#bitmap": torch.empty(0, dtype=torch.uint8),
    }  # fmt: skip
    with pytest.raises(WireError):
        Sparse().decode("w", parts, (1000, 1), None)
    with pytest.raises(WireError, match="single one"):
        Sparse().decode("w", parts, (1000,), None)


def halves() -> Tensor:
    """Of 64 outputs the upper half is left with every other of 100 inputs, the lower with the rest
    of them but two."""
    mask = torch.zeros(64, 100, dtype=torch.bool)
    mask[:32, ::2] = mask[32:, 5::2] = True
    return mask


def test_a_mask_of_halves_of_columns_travels_as_a_grid() -> None:
    """164 bits say that 2 rows and all 100 columns differ from the one before: 2 x 100 cells."""
    mask, codec = halves(), Sparse()
    values = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    parts = codec.encode("w", values, mask, False)
    sizes = {name: part.nbytes for name, part in parts.items()}
    assert sizes == {"w": 4 * int(mask.sum()), "w#grid": 21, "w#bitmap": 25}
    decoded, received = codec.decode("w", parts, (64, 100), None)
    assert received is not None
    assert torch.equal(received, mask)
    assert torch.equal(decoded, torch.where(mask, values, 0.0))


def test_grids_of_kernels_and_of_blocks_come_back() -> None:
    """A convolution is rows of channels times kernel; blocks change in both directions."""
    mask = torch.ones(64, 6, 5, 5, dtype=torch.bool)
    mask[:, 2] = mask[:32, 4, 1] = False
    blocks = (torch.arange(16)[:, None] + torch.arange(20)) % 3 == 0
    blocks = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
    for one in (mask, blocks):
        parts = Sparse().encode("w", torch.ones(one.shape), one, False)
        assert "w#grid" in parts
        _, received = Sparse().decode("w", parts, tuple(one.shape), None)
        assert received is not None
        assert torch.equal(received, one)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("w#grid", lambda x: x & 0b11111110, "first row"),
        ("w#grid", lambda x: x[:-1], "20 bytes for 164"),
        ("w#bitmap", lambda x: x[:-1], "24 bytes for 200"),
        ("w#grid", lambda x: x.int(), "wrong type"),
    ],
)
def test_grids_that_are_none_are_refused(
    part: str, change: Callable[[Tensor], Tensor], message: str
) -> None:
    parts = Sparse().encode("w", torch.ones(64, 100), halves(), False)
    with pytest.raises(WireError, match=message):
        Sparse().decode("w", {**parts, part: change(parts[part])}, (64, 100), None)
    with pytest.raises(WireError, match="single row"):
        Sparse().decode("w", parts, (6400,), None)
    with pytest.raises(WireError, match="not asked"):
        Sparse().decode("w", parts, (64, 100), halves())


def test_exported_files_have_bitmaps_alone() -> None:
    parts = Sparse(has_lines=False).encode("w", torch.ones(64, 100), halves(), False)
    assert parts.keys() == {"w", "w#bitmap"}
    assert parts["w#bitmap"].nbytes == 800
