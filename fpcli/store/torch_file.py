"""Files of `torch.save`, as other programs leave them: what they hold, and where the weights are.

Nothing of a pickle is executed: torch reads tensors and plain containers only, and what a file that
it refuses would have run is told from the bytes alone.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fpcli.errors import DataError

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""What such a file ends in; any other is taken for safetensors."""

_STATES = ("state_dict", "model_state_dict", "model")
_BEGINNINGS = ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "STACK_GLOBAL")
_PLAIN = ("torch", "torch._utils", "collections", "_codecs")
_LIMIT_PICKLE_BYTES = 64 * 2**20
_NUM_AHEAD = 3
"""Pickles ahead of the content in files from before torch 1.6, which are no archives."""

_SAVE = 'where it was trained, save the tensors alone: `torch.save(model.state_dict(), "own.pt")`'


def read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the named tensors of a file, and a note where they lay in a checkpoint, or "".

    Raises:
        DataError: it holds objects, or no named tensors where weights use to be; says what it is.
        Exception: whatever torch finds wrong with a damaged file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if what := _describe(path):
            raise DataError(f"{path}: {what}", hint=_SAVE, where=str(path)) from error
        raise
    if _is_state(content):
        return dict(content), ""
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: a {type(content).__name__} and no named tensors", hint=_SAVE, where=str(path)
        )
    keys = ", ".join(f"`{_shorten(key)}`" for key in list(content)[:6])
    what = f"a checkpoint with {keys}" if keys else "an empty checkpoint"
    for key in _STATES:
        if _is_state(content.get(key)):
            return dict(content[key]), f"{path}: {what}; the weights are read from `{key}`"
    nested = next((key for key, value in content.items() if _is_state(value)), None)
    take = f'`torch.save(torch.load("{path.name}")["{nested}"], "own.pt")` takes them out'
    raise DataError(
        f"{path}: {what}, and weights in none of {', '.join(f'`{key}`' for key in _STATES)}",
        hint=_SAVE if nested is None else f"if `{nested}` is the network, {take}",
        where=str(path),
    )


def _shorten(name: object) -> str:
    """Make a name of untrusted origin fit for a message."""
    return "".join(filter(str.isprintable, str(name)[:60]))


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(value, Tensor) for value in content.values())
    )


def _describe(path: Path) -> str:
    """Say what a file is that torch does not read as plain data; "" if that cannot be told."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                pickle = io.BytesIO(file.read(_LIMIT_PICKLE_BYTES))
            for _ in range(_NUM_AHEAD):
                deque(pickletools.genops(pickle), maxlen=0)
        else:
            with zipfile.ZipFile(path) as archive:
                entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
                if any(name.startswith("code/") for name in entries):
                    return "a TorchScript program, and no plain weights"
                with archive.open(entries["data.pkl"]) as entry:
                    pickle = io.BytesIO(entry.read(_LIMIT_PICKLE_BYTES))
        found = [
            (_shorten(name), is_whole)
            for name, is_whole in _find_globals(pickle)
            if name.rpartition(".")[0] not in _PLAIN
        ]
    except Exception:  # damaged, or no archive; what torch said of it tells more
        return ""
    if not found:
        return ""
    if found[0][1]:
        return f"a whole pickled module, `{found[0][0]}`, and only running its code could open it"
    shown = ", ".join(f"`{name}`" for name in list(dict(found))[:3])
    return f"a checkpoint that holds {shown} beside tensors, and only running code could open it"


def _find_globals(pickle: io.BytesIO) -> Iterator[tuple[str, bool]]:
    """Yield every class or function that a pickle names, and whether all of it is one of that."""
    texts: list[str] = []
    is_first = True
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", "."), is_first
        elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
            yield ".".join(texts[-2:]), is_first
        elif isinstance(argument, str):
            texts.append(argument)
            continue
        is_first &= opcode.name not in _BEGINNINGS
