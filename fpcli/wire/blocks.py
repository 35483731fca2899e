"""All tensors of one message as named parts, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from fpcli import plugins
from fpcli.errors import FpError, WireError
from fpcli.wire.codecs import MASK_PARTS, Codec
from fpcli.wire.frame import SAME_VERSION
from fpcli.wire.numbers import Shape


@cache
def _codec(name: str) -> Codec:
    """Return the codec of one name."""
    try:
        codec: Codec = plugins.lookup("codecs", name)()
    except FpError as error:
        raise WireError(error.message, hint=error.hint, where="codec") from error
    return codec


def is_exact(codec: str) -> bool:
    """Tell whether values arrive by a codec as they were sent.

    Raises:
        WireError: the codec is unknown.
    """
    return _codec(codec).is_exact


def encode_blocks(
    codec: str,
    tensors: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    known: Collection[str] = (),
    rng: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return the parts of all tensors.

    Args:
        known: tensors whose masks the receiver has.
        rng: what stochastic rounding draws from.

    Raises:
        WireError: the codec is unknown or refuses a tensor, a name holds ``#``, or a mask that
            must be sent has no tensor.
    """
    if extras := sorted(mask.keys() - tensors.keys() - {*known}):
        extra = extras[0]
        raise WireError(f"mask `{extra}` has no tensor", hint="send its values too", where=extra)
    parts: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if "#" in name:
            raise WireError(f"tensor `{name}` has a # in its name", hint="rename it", where=name)
        parts |= _codec(codec).encode(name, values, mask.get(name), name in known, rng)
    return parts


def decode_blocks(
    codec: str,
    parts: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    known: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return values and masks of all tensors, in the order of ``shapes``.

    Raises:
        WireError: the codec is unknown or refuses a tensor, or the names are not those of
            ``shapes``.
    """
    grouped: dict[str, dict[str, Tensor]] = {}
    for part, tensor in parts.items():
        grouped.setdefault(part.partition("#")[0], {})[part] = tensor
    if grouped.keys() != shapes.keys():
        name = sorted(grouped.keys() ^ shapes.keys())[0]
        word = "lacks" if name in shapes else "has an unknown"
        raise WireError(f"a message {word} tensor `{name}`", hint=SAME_VERSION, where=name)
    values: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        values[name], mask = _codec(codec).decode(name, grouped[name], shape, known.get(name))
        if mask is not None:
            masks[name] = mask
    return values, masks


def carry_blocks(
    codec: str,
    tensors: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    own: Mapping[str, Tensor] = MappingProxyType({}),
    rng: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return what a receiver reads of all tensors.

    Args:
        known: masks that the receiver has, of tensors that have no mask of their own.
        own: masks that travel along.
        rng: what stochastic rounding draws from.

    Raises:
        WireError: as :func:`encode_blocks`.
    """
    known = {name: bits for name, bits in known.items() if name not in own}
    parts = encode_blocks(codec, tensors, {**known, **own}, known, rng)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return decode_blocks(codec, parts, shapes, known)[0]


def find_masked(parts: Iterable[str]) -> set[str]:
    """Return the tensors whose parts, by their names, bring a mask."""
    return {part.partition("#")[0] for part in parts if part.endswith(MASK_PARTS)}


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under longer names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def split_prefixes(body: Mapping[str, Tensor], *prefixes: str) -> list[dict[str, Tensor]]:
    """Return the tensors under each of some prefixes of two letters, without these.

    Raises:
        WireError: a name has another prefix, or nothing behind it.
    """
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    for name, tensor in body.items():
        if name[:2] not in parts or len(name) == 2:
            raise WireError(f"a message has an unknown tensor `{name}`", hint=SAME_VERSION)
        parts[name[:2]][name[2:]] = tensor
    return [parts[prefix] for prefix in prefixes]


def read_kept(name: str, index: Tensor) -> Tensor:
    """Return kept channels as int64.

    Raises:
        WireError: not a list of ascending int32 numbers from 0.
    """
    is_valid = index.dtype == torch.int32 and index.ndim == 1
    if not is_valid or bool((index[:1] < 0).any()) or bool((index[1:] <= index[:-1]).any()):
        raise WireError(f"keep `{name}` is not a list of ascending channels", hint=SAME_VERSION)
    return index.long()


def digest_masks(masks: Mapping[str, Tensor]) -> str:
    """Return a short digest of masks, which is how both sides make sure that they mean the same."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(f"{name} {list(masks[name].shape)}".encode())
        digest.update(masks[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
