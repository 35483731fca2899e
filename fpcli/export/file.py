"""One trained model as one safetensors file that says everything about itself.

The file's metadata hold one text, ``fpcli``, a JSON object: ``shapes`` (tensor -> true shape, all
that a reader of tensors needs), ``card`` (a ``card.Card``) and ``sha256`` (over both and all
tensors). A tensor ``w`` lies in the file

* dense, in its true shape; or
* sparse, where single weights are masked: ``w`` holds the alive values in row-major order, and
  ``w#bitmap`` (uint8; bit i of byte j is coordinate 8 j + i) or ``w#index`` (int32, ascending),
  whichever is smaller, says where they belong;
* under ``int8`` with ``w#scale`` (float32, one per slice of the first axis): value = int8 x scale.

``fpcli.export.reader`` reads all of that with torch and safetensors alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Len, Lt
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, DataError, WireError
from fpcli.export.card import CARD_FORMAT, Card, Dtype
from fpcli.store.weights import check_file, explain_unreadable
from fpcli.structure.layout import Tensors
from fpcli.wire.codecs import BITMAP, INDEX, Sparse
from fpcli.wire.numbers import SCALE

_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}
_LIMIT_HEADER_BYTES = 16 * 2**20
_LIMIT_VALUES = 2**25
_LIMIT_GROWTH = 32
_Shape = Annotated[tuple[Annotated[int, Ge(0), Lt(2**31)], ...], Len(0, 8)]
_SHAPES = TypeAdapter(dict[str, _Shape])


@dataclass(frozen=True)
class Stored:
    """What is written.

    Attributes:
        data: the file.
        weight_bytes: of its tensors.
        max_error: largest difference between a weight and what is read back.
        num_sparse: tensors that are stored sparse.
    """

    data: bytes
    weight_bytes: int
    max_error: float
    num_sparse: int


def encode_model(trained: Trained, card: Card, *, is_dense: bool = False) -> Stored:
    """Return a trained model as the bytes of a file.

    Matrices and kernels are stored as the card's dtype; biases and statistics stay float32, since
    they are small and take rounding badly.

    Args:
        trained: the model.
        card: what to say about it.
        is_dense: store masked tensors dense too.

    Raises:
        CheckError: a weight is too large for the dtype.
    """
    layout, support = trained.layout, trained.support
    block = {
        name: x.detach().cpu().float() for name, x in support.gather(layout, trained.values).items()
    }
    masks = {} if is_dense else support.block_mask(layout)
    tensors: dict[str, Tensor] = {}
    error, num_sparse = 0.0, 0
    for name, values in block.items():
        is_weight = layout.tensors[name].is_parameter and values.dim() > 1
        stored, scale = _to_dtype(values, card.dtype if is_weight else "float32")
        difference = float((_to_float(stored, scale) - values).abs().max())
        if not math.isfinite(difference):
            raise CheckError(
                f"`{name}` has values that are too large for {card.dtype}",
                hint="take bfloat16 or float32",
                where="--dtype",
            )
        error = max(error, difference)
        mask = masks.get(name)
        if mask is not None and _is_smaller(mask, stored.element_size()):
            tensors |= Sparse(has_lines=False).encode(name, values, mask, known=False)
            stored = stored[mask]
            num_sparse += 1
        tensors[name] = stored.contiguous()
        if scale is not None:
            tensors[name + SCALE] = scale
    shapes = {name: list(values.shape) for name, values in block.items()}
    about = {"shapes": shapes, "card": json.loads(card.to_json())}
    about["sha256"] = _digest(tensors, about)
    # One text, since the library writes several in an order that changes from call to call.
    data = save(tensors, {"fpcli": json.dumps(about)})
    return Stored(data, sum(x.nbytes for x in tensors.values()), error, num_sparse)


def decode_model(
    path: Path, check: Callable[[Card, Mapping[str, tuple[int, ...]]], None] = lambda *_: None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Card]:
    """Return tensors in their true shapes as float32, masks, and the card of an untrusted file.

    Args:
        check: raises ValueError if card and shapes cannot be right, before tensors of these shapes
            are made.

    Raises:
        DataError: the file is missing, damaged, hostile, or none of ours.
    """
    tensors, text = _read(path)
    try:
        about = json.loads(text)
        card = Card.from_json(json.dumps(about["card"]))
        shapes = _SHAPES.validate_python(about["shapes"])
        if card.format != CARD_FORMAT:
            raise ValueError(f"format {card.format} is not {CARD_FORMAT}, which this version reads")
        _check_sizes(shapes, tensors)
        check(card, shapes)
        decoded = {name: _read_one(name, shape, tensors) for name, shape in shapes.items()}
        if _digest(tensors, about) != about["sha256"]:
            raise ValueError("its SHA-256 differs")
    except (WireError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise explain_unreadable(path, error) from error
    masks = {name: mask for name, (_, mask) in decoded.items() if mask is not None}
    return {name: values for name, (values, _) in decoded.items()}, masks, card


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors and what is said about them, as they lie in a file."""
    check_file(path, hint="give a file of `fp export`")
    try:
        with path.open("rb") as start:
            if int.from_bytes(start.read(8), "little") > _LIMIT_HEADER_BYTES:
                raise ValueError("its header is impossibly long")
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get("fpcli")
            if about is None:
                raise DataError(
                    f"{path}: a safetensors file, but none of `fp export`",
                    hint="plain weights are read with `-w FILE` and the name of their network",
                    where=str(path),
                )
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except DataError:
        raise
    except Exception as error:  # a wrong file makes the reader raise almost anything
        raise explain_unreadable(path, error) from error


def _check_sizes(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    # A few stored indices could ask for tensors of any size: in proportion to the file they may.
    num_bytes = sum(x.nbytes for x in tensors.values())
    most = max(_LIMIT_VALUES, _LIMIT_GROWTH * num_bytes)
    if sum(math.prod(shape) for shape in shapes.values()) > most:
        raise ValueError("its tensors are impossibly large")
    ends = ("", BITMAP, INDEX, SCALE)
    if stray := sorted(tensors.keys() - {name + end for name in shapes for end in ends}):
        raise ValueError(f"`{stray[0]}` belongs to no tensor")


def _digest(tensors: Tensors, about: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 over metadata, and names, types, shapes and bytes of tensors."""
    metadata = [about["shapes"], about["card"]]
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        # A copy, since an index of nothing may have a stride of 0, which has no view as bytes.
        x = tensors[name].clone(memory_format=torch.contiguous_format)
        digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
        digest.update(x.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _to_dtype(values: Tensor, dtype: Dtype) -> tuple[Tensor, Tensor | None]:
    """Return values as they are stored, and their scale if they need one."""
    if dtype != "int8":
        return values.to(_DTYPES[dtype]), None
    scale = values.abs().flatten(1).amax(1).clamp_min(1e-12) / 127
    return (values / _along(scale, values)).round().to(torch.int8), scale


def _to_float(stored: Tensor, scale: Tensor | None) -> Tensor:
    values = stored.float()
    return values if scale is None else values * _along(scale, values)


def _along(scale: Tensor, values: Tensor) -> Tensor:
    """Return one value per slice of the first axis in a shape that broadcasts."""
    return scale.view(-1, *[1] * (values.dim() - 1))


def _is_smaller(mask: Tensor, item_bytes: int) -> bool:
    """Tell whether values and mask take fewer bytes than the dense tensor."""
    alive = int(mask.sum())
    place = min(4 * alive, math.ceil(mask.numel() / 8))
    return item_bytes * alive + place < item_bytes * mask.numel()


def _read_one(
    name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Return one tensor in its true shape, and its mask where it is stored sparse."""
    parts = {
        name + end: tensors[name + end] for end in ("", BITMAP, INDEX) if name + end in tensors
    }
    stored, scale = tensors.get(name), tensors.get(name + SCALE)
    if stored is None or stored.dtype not in _DTYPES.values():
        raise WireError(f"`{name}` is {'missing' if stored is None else stored.dtype}")
    if (stored.dtype == torch.int8) != (scale is not None):
        raise WireError(f"`{name}` is {stored.dtype}, which does not suit its scale")
    values, mask = Sparse().decode(name, parts | {name: stored.float()}, shape, None)
    if scale is not None:
        if scale.dtype != torch.float32 or tuple(scale.shape) != shape[:1]:
            raise WireError(f"`{name}` has a scale of {scale.dtype} and {list(scale.shape)}")
        values = _to_float(values, scale)
    if not bool(torch.isfinite(values).all()):
        raise WireError(f"`{name}` is not finite")
    return values, mask
