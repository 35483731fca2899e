"""How the values of one tensor become bytes: whole, shorter, or as few levels of one scale.

A form of numbers writes a float32 tensor as parts (the values under ``""``, perhaps their scale
under ``#scale``) and reads them again. It knows nothing of masks; ``wire.codecs`` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from fpcli.errors import WireError

SCALE = "#scale"
TRITS = 5
"""Digits of base 3 in a byte: 3^5 = 243 <= 256."""

Shape = tuple[int, ...]


class NumberForm(Protocol):
    """One form of numbers; without state."""

    def pack(self, name: str, values: Tensor, rng: torch.Generator | None) -> dict[str, Tensor]:
        """Return the parts of float32 values of any shape.

        Args:
            name: of the tensor, for errors.
            rng: what a stochastic form draws from; the others leave it alone.

        Raises:
            WireError: the values cannot be written in this form.
        """
        ...

    def unpack(self, name: str, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Return float32 values of a shape from parts that an untrusted sender wrote.

        Raises:
            WireError: the parts are not what :meth:`pack` returns for this shape.
        """
        ...

    def num_bytes(self, count: int) -> int:
        """Return the bytes of so many values."""
        ...


@dataclass(frozen=True)
class Floats:
    """Floating-point numbers as they are, or rounded to the nearest shorter ones."""

    dtype: torch.dtype = torch.float32

    def pack(self, name: str, values: Tensor, rng: torch.Generator | None) -> dict[str, Tensor]:
        """Return the values in their type; float16 ends at 65,504."""
        short = values.to(self.dtype)
        if self.dtype != torch.float32 and bool((short.isinf() & values.isfinite()).any()):
            raise explain_wrong(
                name, f"has values that {self.dtype} cannot hold", "choose another codec"
            )
        return {"": short}

    def unpack(self, name: str, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Return the values; type and shape must be those that were sent."""
        _check_names(name, parts, {""})
        return _check(name, parts[""], self.dtype, shape).to(torch.float32)

    def num_bytes(self, count: int) -> int:
        """Return the bytes of so many values."""
        return count * self.dtype.itemsize


@dataclass(frozen=True)
class Levels:
    """Whole multiples of ``scale / top``, from ``-top`` to ``top``, in as few bits as that takes.

    A value v becomes i = v top / scale, rounded to the nearest whole number (half away from zero),
    or to one of its two neighbours at random so that the mean is v; it is read as scale i / top.
    With the scale ``max``, rounding to the nearest is idempotent, and its error at most
    scale / (2 top).

    Source: QSGD (Alistarh et al., NeurIPS 2017, section 3.1) is stochastic with the norm as scale,
    TernGrad (Wen et al., NeurIPS 2017, section 3) stochastic with one level and the largest
    value as scale. Differs: one scale per tensor, and codes of fixed length instead of Elias codes,
    so that lengths depend on shapes alone.

    Attributes:
        top: highest level.
        scale: the largest magnitude (``max``) or the Euclidean norm (``norm``) of the tensor.
        is_stochastic: round at random, without bias.
        bits: per value, at most 16; 0 writes five values in base 3 per byte (``top`` is 1 then).
    """

    top: int
    scale: Literal["max", "norm"]
    is_stochastic: bool
    bits: int

    def pack(self, name: str, values: Tensor, rng: torch.Generator | None) -> dict[str, Tensor]:
        """Return the levels, packed, and the scale; all 0 where the scale is."""
        flat = values.detach().cpu().numpy().reshape(-1).astype(np.float64)
        size = np.abs(flat)
        largest = size.max(initial=0.0)
        exact = largest if self.scale == "max" else math.sqrt(np.square(flat).sum())
        if not exact <= torch.finfo(torch.float32).max:
            raise explain_wrong(name, "has values that are not finite", "lower local.lr")
        scale = np.float32(exact)
        share = size * (self.top / np.float64(scale)) if scale else np.zeros_like(size)
        if self.is_stochastic:
            if rng is None:
                raise explain_wrong(
                    name, "needs a random stream to be rounded", "pass one to the codec"
                )
            draws = torch.rand(len(flat), generator=rng, dtype=torch.float64).numpy()
            level = np.floor(share) + (draws < share - np.floor(share))
        else:
            level = np.floor(share + 0.5)
        # The norm as float32 may be a little less than the one large value it consists of.
        level = np.minimum(level, self.top) * np.sign(flat)
        codes = (level + self.top).astype(np.uint16)
        return {"": _to_bytes(codes, self.bits), SCALE: torch.tensor([scale])}

    def unpack(self, name: str, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Return the multiples of the scale."""
        _check_names(name, parts, {"", SCALE})
        scale = float(_check(name, parts[SCALE], torch.float32, (1,)))
        count = math.prod(shape)
        packed = _check(name, parts[""], torch.uint8, (self.num_bytes(count) - 4,))
        codes, rest = _from_bytes(packed, self.bits, count)
        if not 0 <= scale < math.inf or rest or codes.max(initial=0) > 2 * self.top:
            raise explain_wrong(name, "has a scale or levels that no sender writes")
        level = codes.astype(np.float64) - self.top
        return torch.from_numpy((level * (scale / self.top)).astype(np.float32)).reshape(shape)

    def num_bytes(self, count: int) -> int:
        """Return the bytes of so many values, and 4 of the scale."""
        return 4 + (
            math.ceil(count / TRITS) if self.bits == 0 else math.ceil(count * self.bits / 8)
        )


def _to_bytes(codes: np.ndarray, bits: int) -> Tensor:
    """Return codes one after another, the lowest bit or digit first."""
    if bits == 0:
        digits = np.pad(codes.astype(np.uint8), (0, -len(codes) % TRITS)).reshape(-1, TRITS)
        return torch.from_numpy(digits @ (3 ** np.arange(TRITS)).astype(np.uint8))
    pairs = codes.astype("<u2")[:, None].view(np.uint8)
    spread = np.unpackbits(pairs, axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(spread, bitorder="little"))


def _from_bytes(packed: Tensor, bits: int, count: int) -> tuple[np.ndarray, bool]:
    """Return the codes, and whether anything stands behind the last one."""
    if bits == 0:
        digits = packed.numpy()[:, None] // (3 ** np.arange(TRITS + 1)) % 3
        codes = digits[:, :TRITS].reshape(-1).astype(np.uint8)
        return codes[:count], bool(codes[count:].any() or digits[:, TRITS].any())
    spread = np.unpackbits(packed.numpy(), bitorder="little")
    packed_codes = np.packbits(spread[: count * bits].reshape(-1, bits), axis=1, bitorder="little")
    pairs = np.zeros((count, 2), dtype=np.uint8)
    pairs[:, : packed_codes.shape[1]] = packed_codes
    return pairs.view("<u2").reshape(-1), bool(spread[count * bits :].any())


def _check_names(name: str, parts: Mapping[str, Tensor], expected: set[str]) -> None:
    """Refuse parts that are missing or too many."""
    if parts.keys() != expected:
        raise explain_wrong(name, f"has the parts {sorted(name + end for end in parts)}")


def _check(name: str, part: Tensor, dtype: torch.dtype, shape: Shape) -> Tensor:
    """Return a part, unless it has another type or shape."""
    if part.dtype != dtype:
        raise explain_wrong(name, f"has type {part.dtype} instead of {dtype}")
    if tuple(part.shape) != tuple(shape):
        raise explain_wrong(name, f"has shape {tuple(part.shape)} instead of {tuple(shape)}")
    return part


def explain_wrong(
    name: str, reason: str, hint: str = "sender and receiver must agree on model, plan and codec"
) -> WireError:
    """Return the error for one tensor."""
    return WireError(f"tensor `{name}` {reason}", hint=hint, where=name)
