"""Weights from files of untrusted origin: no code in them runs, and they fit or are refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load as load_tensors
from torch import Tensor

from fpcli.errors import DataError, first_line, suggest
from fpcli.structure.layout import Tensors

_LIMIT_BYTES = 4 * 2**30
_LIMIT_VALUES = 2**25
_LIMIT_CUT = 64


def check_file(path: Path, *, hint: str) -> None:
    """Make sure that there is a file of weights, and not too large a one.

    Args:
        hint: what to do where there is none.

    Raises:
        DataError: there is none, or it is larger than 4 GiB.
    """
    if not path.is_file():
        raise DataError(f"no file {path}", hint=hint, where=str(path))
    if path.stat().st_size > _LIMIT_BYTES:
        raise DataError(
            f"{path}: larger than {_LIMIT_BYTES // 2**30} GiB", hint="no network here needs that"
        )


def read_untrusted(path: Path) -> dict[str, Tensor]:
    """Return the floating-point and boolean tensors of an untrusted file; no code in it runs.

    Raises:
        DataError: the file is missing, too large, damaged, or holds anything but tensors.
    """
    check_file(path, hint="give the weights with -w FILE")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters about a strange file is the error below
            if path.suffix in (".pt", ".pth"):
                content = torch.load(path, map_location="cpu", weights_only=True)
            else:
                content = load_tensors(path.read_bytes())
    except Exception as error:  # torch's reader raises almost anything on a wrong file
        raise explain_unreadable(path, error) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(x, Tensor) for x in content.values()):
        raise DataError(
            f"{path}: holds something else than named tensors",
            hint="save `model.state_dict()`",
            where=str(path),
        )
    wanted = (x for x in content.items() if x[1].is_floating_point() or x[1].dtype == torch.bool)
    return {
        str(name): x.detach().float() if x.is_floating_point() else x.detach() for name, x in wanted
    }


def check_tensors(path: Path, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Make sure that tensors are those of a network, and finite.

    Raises:
        DataError: a name is missing or unknown, a shape differs, or a value is not finite.
    """
    for name in [*shapes, *tensors]:
        if name not in tensors:
            raise explain_misfit(path, f"`{name}` is missing", suggest(name, tensors))
        if name not in shapes:
            raise explain_misfit(path, f"the network has no `{name}`", suggest(name, shapes))
        if tuple(tensors[name].shape) != tuple(shapes[name]):
            have, want = list(tensors[name].shape), list(shapes[name])
            raise explain_misfit(path, f"`{name}` has shape {have}, the network {want}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise DataError(
                f"{path}: `{name}` is not finite", hint="the training diverged", where=str(path)
            )


def is_outsized(shapes: Mapping[str, tuple[int, ...]], num_stored: int) -> bool:
    """Tell whether a network is far larger than what a file has of it.

    A few bytes of untrusted origin must not make us build whatever they name.

    Args:
        shapes: of all tensors of the whole network.
        num_stored: values in the file.
    """
    size = sum(math.prod(shape) for shape in shapes.values())
    return size > max(_LIMIT_VALUES, _LIMIT_CUT * num_stored)


def explain_unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file that is damaged or of another kind."""
    reason = first_line(error)[:200]
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        reason = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return DataError(
        f"{path}: cannot be read: {reason}", hint="the file is damaged or of another kind",
        where=str(path),
    )  # fmt: skip


def explain_misfit(path: Path, problem: str, hint: str = "") -> DataError:
    """Return the error for a file whose content belongs to another network."""
    return DataError(
        f"{path}: {problem}", hint=hint or "is this file of another network?", where=str(path)
    )
