"""How one tensor and its mask travel.

Parts of tensor ``w``: ``w`` holds the values, as ``wire.numbers`` writes them, with ``w#scale``
(float32) where they are multiples of one; ``w#bitmap`` (uint8, bit i of byte j is coordinate
8 j + i in row-major order; empty where every coordinate is alive) or ``w#index`` (int32,
ascending flat coordinates) holds the mask where the receiver does not know it. With ``w#rows``
(int32, ascending numbers of rows) the bitmap is that of these rows alone, and all else is dead.
With ``w#grid`` (uint8, one bit for each row and then for each column of ``[rows, columns]``: where
it differs from the one before it) the bitmap has a single bit for each cell of equal coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fpcli.wire.numbers import Floats, Levels, NumberForm, explain_wrong

BITMAP = "#bitmap"
INDEX = "#index"
ROWS = "#rows"
GRID = "#grid"
MASK_PARTS = (BITMAP, INDEX)
"""Ends of the parts of which one must be there where a mask travels."""
PART_BYTES = 96
"""About what a part takes in a message beside its content: name, type and place."""

FLOAT32 = Floats()


class Codec(Protocol):
    """One way to send tensors; made without arguments and without state."""

    @property
    def is_exact(self) -> bool:
        """Whether alive values arrive as they were sent."""
        ...

    def encode(
        self,
        name: str,
        values: Tensor,
        mask: Tensor | None,
        known: bool,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the parts of a tensor.

        Args:
            name: of the tensor.
            values: block values, float32, of any shape; those under dead coordinates are ignored.
            mask: bool of the same shape, True = alive; None where there is no mask.
            known: whether the receiver has the mask already.
            rng: what stochastic rounding draws from.

        Raises:
            WireError: values or mask have another type, their shapes differ, or the codec cannot
                write the values.
        """
        ...

    def decode(
        self, name: str, parts: Mapping[str, Tensor], shape: tuple[int, ...], mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the values, 0 under dead coordinates, and the mask.

        Args:
            name: of the tensor.
            parts: what arrived, from an untrusted sender.
            shape: of the block.
            mask: the mask that the sender took as known; None where it had to send one.

        Raises:
            WireError: the parts are not what :meth:`encode` returns for this shape and mask.
        """
        ...


class Dense:
    """Send every value of the block, zeros included."""

    is_exact = True

    def encode(
        self,
        name: str,
        values: Tensor,
        mask: Tensor | None,
        known: bool,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return all values, and a bitmap unless the mask is known."""
        _check_sendable(name, values, mask)
        if mask is None:
            return {name: values}
        parts = {name: torch.where(mask, values, 0.0)}
        return parts if known else parts | {name + BITMAP: _to_bitmap(mask)}

    def decode(
        self, name: str, parts: Mapping[str, Tensor], shape: tuple[int, ...], mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return values and mask; a value under a dead coordinate must be 0."""
        numbers, bitmap, *_ = _split(name, parts, (BITMAP,))
        if bitmap is not None:
            if mask is not None:
                raise explain_wrong(name, "brings a mask that was not asked for")
            mask = _from_bitmap(name, bitmap, math.prod(shape)).reshape(shape)
        values = FLOAT32.unpack(name, numbers, shape)
        if mask is not None and bool(values.masked_fill(mask, 0.0).any()):
            raise explain_wrong(name, "has a value under a dead coordinate")
        return values, mask


class Sparse:
    """Send the alive values in row-major order, and the mask in the smallest of four forms.

    Source: PruneFL (Jiang et al., TNNLS 2023), whose library stores a weight by indices below
    density 1/32. Differs: one flat int32 index per value instead of row and column, no padding of
    rows, forms for masks that leave out whole rows, columns or blocks, and the form follows from
    the mask, never from values that happen to be 0. A mask that is nearly full still travels as a
    bitmap, because dense values alone would lose it.

    Args:
        numbers: form of the values. Those of tensors with fewer than two dimensions always travel
            whole: biases and the statistics of norms are few, and a variance that is rounded can
            end below 0.
        has_lines: masks may take the forms of rows and grids, which exported files do not have.
    """

    def __init__(self, numbers: NumberForm = FLOAT32, *, has_lines: bool = True) -> None:
        self._numbers, self._has_lines = numbers, has_lines

    @property
    def is_exact(self) -> bool:
        """Whether alive values arrive as they were sent."""
        return self._numbers == FLOAT32

    def numbers(self, shape: tuple[int, ...]) -> NumberForm:
        """Return the form of the values of a tensor of this shape."""
        return self._numbers if len(shape) > 1 else FLOAT32

    def encode(
        self,
        name: str,
        values: Tensor,
        mask: Tensor | None,
        known: bool,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the alive values, and bitmap or index unless the mask is known."""
        _check_sendable(name, values, mask)
        numbers = self.numbers(tuple(values.shape))
        if mask is None:
            return _name(name, numbers.pack(name, values, rng))
        flat = mask.cpu().numpy().reshape(-1)
        # numpy selects by a mask three times faster than torch.
        alive = torch.from_numpy(values.detach().cpu().numpy().reshape(-1)[flat])
        parts = _name(name, numbers.pack(name, alive, rng))
        if known:
            return parts
        forms = [{name + BITMAP: _to_bitmap(mask)}]
        if mask.dim() > 1 and self._has_lines:
            rows = mask.flatten(1).any(1).nonzero().flatten().int()
            forms.append({name + ROWS: rows, name + BITMAP: _to_bitmap(mask[rows])})
            forms += ({name + GRID: grid, name + BITMAP: cells} for grid, cells in _to_grid(mask))
        if 32 * alive.numel() < flat.size:
            index = np.flatnonzero(flat).astype(np.int32)
            forms.append({name + INDEX: torch.from_numpy(index)})
        return parts | min(forms, key=_measure_form)

    def decode(
        self, name: str, parts: Mapping[str, Tensor], shape: tuple[int, ...], mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return values scattered into zeros, and the mask."""
        packed, bitmap, index, rows, grid = _split(name, parts, (BITMAP, INDEX, ROWS, GRID))
        size, numbers = math.prod(shape), self.numbers(shape)
        if mask is not None and (bitmap is not None or index is not None):
            raise explain_wrong(name, "brings a mask that was not asked for")
        if mask is not None:
            flat = mask.reshape(-1)
        elif bitmap is not None and rows is not None:
            flat = _from_rows(name, rows, bitmap, shape)
        elif bitmap is not None and grid is not None:
            flat = _from_grid(name, grid, bitmap, shape)
        elif bitmap is not None:
            flat = _from_bitmap(name, bitmap, size)
        elif index is not None:
            flat = _from_index(name, index, size)
        else:
            return numbers.unpack(name, packed, shape), None
        alive = numbers.unpack(name, packed, (int(flat.sum()),))
        values = torch.zeros(size).masked_scatter_(flat, alive)
        return values.reshape(shape), flat.reshape(shape)


float16 = partial(Sparse, Floats(torch.float16))
"""Values rounded to 2 bytes."""
(
    int2, int3, int4, int5, int6, int7, int8, int9, int10, int11, int12, int13, int14, int15, int16,
) = (
    partial(Sparse, Levels(2 ** (bits - 1) - 1, "max", is_stochastic=False, bits=bits))
    for bits in range(2, 17)
)  # fmt: skip
"""2^bits - 1 levels up to the largest value, to the nearest."""
(
    int2_stochastic, int3_stochastic, int4_stochastic, int5_stochastic, int6_stochastic,
    int7_stochastic, int8_stochastic, int9_stochastic, int10_stochastic, int11_stochastic,
    int12_stochastic, int13_stochastic, int14_stochastic, int15_stochastic, int16_stochastic,
) = (
    partial(Sparse, Levels(2 ** (bits - 1) - 1, "max", is_stochastic=True, bits=bits))
    for bits in range(2, 17)
)  # fmt: skip
"""2^bits - 1 levels up to the largest value, without bias."""
ternary = partial(Sparse, Levels(1, "max", is_stochastic=True, bits=0))
"""Minus, zero or plus the largest value (TernGrad)."""
qsgd2, qsgd3, qsgd4, qsgd5, qsgd6, qsgd7, qsgd8 = (
    partial(Sparse, Levels(2 ** (bits - 1) - 1, "norm", is_stochastic=True, bits=bits))
    for bits in range(2, 9)
)
"""2^bits - 1 levels up to the norm of the tensor (QSGD)."""


def _measure_form(form: Mapping[str, Tensor]) -> int:
    return sum(part.nbytes + PART_BYTES for part in form.values())


def _to_bitmap(mask: Tensor) -> Tensor:
    """Return 8 coordinates per byte; nothing where all are alive."""
    if bool(mask.all()):
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1), bitorder="little"))


def _from_bitmap(name: str, bitmap: Tensor, size: int) -> Tensor:
    """Return the flat mask."""
    if bitmap.dtype != torch.uint8 or bitmap.ndim != 1:
        raise explain_wrong(name, "has a bitmap of the wrong type")
    if bitmap.numel() == 0:
        return torch.ones(size, dtype=torch.bool)
    if bitmap.numel() != math.ceil(size / 8):
        raise explain_wrong(name, f"has a bitmap of {bitmap.numel()} bytes for {size} values")
    if size % 8 and int(bitmap[-1]) >> (size % 8):
        raise explain_wrong(name, "has a bitmap with bits beyond the last value")
    bits = np.unpackbits(bitmap.numpy(), count=size, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_))


def _from_rows(name: str, rows: Tensor, bitmap: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the flat mask."""
    if len(shape) < 2:
        raise explain_wrong(name, "has rows, and is a single one")
    mask = torch.zeros(shape, dtype=torch.bool)
    where = _from_index(name, rows, shape[0])
    num_bits = int(where.sum()) * math.prod(shape[1:])
    mask[where] = _from_bitmap(name, bitmap, num_bits).view(-1, *shape[1:])
    return mask.flatten()


def _to_grid(mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return where rows and columns differ from the one before, and the bitmap of the cells;
    nothing where the cells are nearly as many as the coordinates."""
    flat = mask.cpu().flatten(1)
    starts = []
    for lines in (flat, flat.t()):
        changes = torch.ones(len(lines), dtype=torch.bool)
        changes[1:] = (lines[1:] != lines[:-1]).any(1)
        starts.append(changes)
    rows, columns = starts
    if 2 * int(rows.sum()) * int(columns.sum()) > flat.numel():
        return []
    return [(_to_bitmap(torch.cat(starts)), _to_bitmap(flat[rows][:, columns]))]


def _from_grid(name: str, grid: Tensor, bitmap: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the flat mask."""
    if len(shape) < 2:
        raise explain_wrong(name, "has a grid, and is a single row")
    lengths = [shape[0], math.prod(shape[1:])]
    rows, columns = _from_bitmap(name, grid, sum(lengths)).split(lengths)
    if not (bool(rows[:1].all()) and bool(columns[:1].all())):
        raise explain_wrong(name, "has a grid that does not begin with its first row and column")
    num_cells = [int(rows.sum()), int(columns.sum())]
    cells = _from_bitmap(name, bitmap, math.prod(num_cells)).view(num_cells)
    return cells[rows.cumsum(0) - 1][:, columns.cumsum(0) - 1].flatten()


def _from_index(name: str, index: Tensor, size: int) -> Tensor:
    """Return the flat mask."""
    if index.dtype != torch.int32 or index.ndim != 1:
        raise explain_wrong(name, "has an index of the wrong type")
    if bool((index[1:] <= index[:-1]).any()):
        raise explain_wrong(name, "has an index that is not strictly ascending")
    if index.numel() and not 0 <= int(index[0]) <= int(index[-1]) < size:
        raise explain_wrong(name, f"has an index outside its {size} values")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[index.long()] = True
    return mask


def _name(name: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of the numbers as parts of one tensor."""
    return {name + end: part for end, part in parts.items()}


def _split(name: str, parts: Mapping[str, Tensor], companions: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the parts of the numbers, and each of ``companions`` or None; of these there may be a
    bitmap, alone or with rows or a grid, or an index."""
    bare = {part.removeprefix(name): tensor for part, tensor in parts.items()}
    masks = {end: bare.pop(end) for end in companions if end in bare}
    if masks and masks.keys() not in ({BITMAP}, {INDEX}, {BITMAP, ROWS}, {BITMAP, GRID}):
        raise explain_wrong(name, f"has the parts {sorted(parts)}")
    return bare, *map(masks.get, companions)


def _check_sendable(name: str, values: Tensor, mask: Tensor | None) -> None:
    """Refuse what no receiver would accept."""
    if values.dtype != torch.float32:
        raise explain_wrong(name, f"has type {values.dtype} instead of float32")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != values.shape):
        raise explain_wrong(name, f"has a mask of type {mask.dtype} and shape {tuple(mask.shape)}")
