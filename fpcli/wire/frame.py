"""A header and named tensors as one run of bytes that cannot be damaged unnoticed.

::

    magic, format, header length    4 + 4 + 4 bytes, little-endian
    header                          JSON
    body                            one safetensors blob, tensors in the order given
    digest                          SHA-256 of everything before

The blob is written and read here rather than by the safetensors package: that loses the order of
the tensors and copies them three times, and the reader here is stricter (no gaps, no reordering).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from fpcli.errors import WireError

FRAME_FORMAT = 1
"""Number of the layout of frames and headers; a reader accepts only its own."""

MAX_HEADER_BYTES = 2**17
"""Limit of the JSON header; low, so that refusing the longest wrong one takes milliseconds."""

_MAX_INDEX_BYTES = 2**20
SAME_VERSION = "both sides must run the same version and recipe"
"""Hint of the errors that honest senders cause only by being of another version."""

_PREFIX = struct.Struct("<4sII")
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = hashlib.sha256().digest_size
_MAX_DIMS = 8
_MAX_NAME = 300
_MAX_FINDINGS = 100
_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""Checking of received headers: exact types (a bool is no int), no unknown keys, finite numbers."""

T = TypeVar("T")


def dump_json(header: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted keys and without blanks.

    Raises:
        WireError: something in it is not JSON, or not finite.
    """
    try:
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(
            f"cannot send the header of a message: {error}",
            hint="send only None, bool, int, finite float, str, lists and dicts of these",
        ) from error
    return text.encode()


def check_header(check: TypeAdapter[T], header: bytes) -> T:
    """Return the header as its data class.

    Raises:
        WireError: it is not JSON, or a field is missing, unknown, of another type or out of range.
    """
    try:
        return check.validate_json(header)
    except ValidationError as error:
        # Describing every finding of a forged header would take seconds.
        if error.error_count() > _MAX_FINDINGS:
            raise _explain_damage("its header is not valid") from None
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ascii(".".join(str(part) for part in first["loc"]))[1:-1][:_MAX_NAME]
        raise WireError(
            f"the header of a message is not valid: {place}: {first['msg']}",
            hint=SAME_VERSION,
            where=place,
        ) from error


def write_frame(magic: bytes, header: bytes, tensors: Mapping[str, Tensor]) -> bytes:
    """Return a frame; the tensors are copied once.

    Args:
        magic: four bytes that name the kind of message.
        header: JSON.
        tensors: float32, float16, int64, int32, uint8 or bool, of any layout and on any device.

    Raises:
        WireError: another type, a header above ``MAX_HEADER_BYTES``, or an index above 1 MiB.
    """
    entries: dict[str, Any] = {}
    chunks: list[Any] = []
    start = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES or not _is_name(name):
            raise WireError(
                f"tensor `{ascii(name)[1:-1]}` of type {tensor.dtype} cannot be sent",
                hint=f"its name must be printable and its type one of {', '.join(_DTYPES)}",
            )
        chunk = tensor.detach().cpu().contiguous().numpy().reshape(-1).view(np.uint8)
        entries[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + len(chunk)],
        }
        chunks.append(chunk.data)
        start += len(chunk)
    index = json.dumps(entries, separators=(",", ":")).encode()
    index += b" " * (-len(index) % 8)
    if len(header) > MAX_HEADER_BYTES or len(index) > _MAX_INDEX_BYTES:
        raise WireError(
            f"the header of a message has {len(header)} bytes and its tensor index {len(index)}",
            hint="send long lists as tensors",
        )
    prefix = _PREFIX.pack(magic, FRAME_FORMAT, len(header))
    chunks = [prefix, header, _LENGTH.pack(len(index)), index, *chunks]
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return b"".join([*chunks, digest.digest()])


def read_frame(data: bytes, magic: bytes, *, limit_bytes: int) -> tuple[bytes, dict[str, Tensor]]:
    """Return the header and the tensors of a frame.

    Args:
        data: what was received.
        magic: the kind that is expected.
        limit_bytes: longest message that is accepted.

    Returns:
        The header's JSON, not yet checked, and the tensors in the sender's order, each with
        writable memory of its own.

    Raises:
        WireError: anything about the bytes is wrong.
    """
    view = memoryview(data)
    if len(view) > limit_bytes:
        raise WireError(
            f"a message of {len(view)} bytes is longer than the limit of {limit_bytes}",
            hint="raise the limit if this size is expected",
        )
    if len(view) < _PREFIX.size + _LENGTH.size + _DIGEST_BYTES:
        raise _explain_damage(f"it has only {len(view)} bytes")
    found_magic, found_format, header_bytes = _PREFIX.unpack_from(view)
    if found_magic != magic:
        raise _explain_damage(f"it starts with {found_magic!r} instead of {magic!r}")
    content = view[:-_DIGEST_BYTES]
    if hashlib.sha256(content).digest() != view[-_DIGEST_BYTES:]:
        raise _explain_damage("its checksum is wrong")
    if found_format != FRAME_FORMAT:
        raise WireError(
            f"a message has format {found_format}, this version reads {FRAME_FORMAT}",
            hint=SAME_VERSION,
        )
    end = _PREFIX.size + header_bytes
    if header_bytes > MAX_HEADER_BYTES or end + _LENGTH.size > len(content):
        raise _explain_damage(f"it declares a header of {header_bytes} bytes")
    return bytes(content[_PREFIX.size : end]), _read_body(content[end:], limit_bytes)


def _read_body(body: memoryview, limit_bytes: int) -> dict[str, Tensor]:
    """Return the tensors of a safetensors blob without gaps."""
    (index_bytes,) = _LENGTH.unpack_from(body)
    data_start = _LENGTH.size + index_bytes
    if index_bytes > _MAX_INDEX_BYTES or data_start > len(body):
        raise _explain_damage(f"it declares a tensor index of {index_bytes} bytes")
    try:
        index = json.loads(bytes(body[_LENGTH.size : data_start]))
    except (ValueError, RecursionError) as error:
        raise _explain_damage("its tensor index is not JSON") from error
    if not isinstance(index, dict):
        raise _explain_damage("its tensor index is not a table")
    data = body[data_start:]
    position = 0
    tensors: dict[str, Tensor] = {}
    for name, entry in index.items():
        if not _is_name(name):
            raise _explain_damage("the name of a tensor is not printable")
        tensors[name], position = _read_tensor(name, entry, data, position, limit_bytes)
    if position != len(data):
        raise _explain_damage(f"{len(data) - position} bytes belong to no tensor")
    return tensors


def _read_tensor(
    name: str, entry: Any, data: memoryview, position: int, limit_bytes: int
) -> tuple[Tensor, int]:
    """Return the tensor that must start at ``position``, and where it ends."""
    match entry:
        case {"dtype": str(word), "shape": list(shape), "data_offsets": [start, stop]} if all(
            type(number) is int and number >= 0 for number in (*shape, start, stop)
        ):
            dtype = _DTYPES.get(word)
        case _:
            raise _explain_damage(f"tensor `{name}` is described wrongly")
    if dtype is None:
        raise WireError(
            f"tensor `{name}` has a type that does not travel",
            hint=f"only these do: {', '.join(_DTYPES)}",
            where=name,
        )
    if start != position or not start <= stop <= len(data):
        raise _explain_damage(f"tensor `{name}` lies outside its place")
    # An empty tensor can declare any other dimensions; torch must be able to multiply them too.
    if len(shape) > _MAX_DIMS or math.prod(max(size, 1) for size in shape) > limit_bytes:
        raise _explain_damage(f"tensor `{name}` declares too large a shape")
    if math.prod(shape) * dtype.itemsize != stop - start:
        raise _explain_damage(f"tensor `{name}` has {stop - start} bytes for shape {shape}")
    if start == stop:
        return torch.empty(shape, dtype=dtype), stop
    flat = torch.frombuffer(bytearray(data[start:stop]), dtype=torch.uint8)
    if dtype is torch.bool and int(flat.max()) > 1:
        raise _explain_damage(f"tensor `{name}` has bytes that are neither true nor false")
    return flat.view(dtype).reshape(shape), stop


def _is_name(name: str) -> bool:
    """Return whether a name can be shown in a message to people."""
    return 0 < len(name) <= _MAX_NAME and name.isprintable()


def _explain_damage(reason: str) -> WireError:
    """Return the error for bytes that no sender of ours wrote."""
    return WireError(f"a message is damaged: {reason}", hint="it is ignored; check the connection")
