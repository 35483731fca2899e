"""What a client keeps between rounds: one file per client, name and round, never overwritten by a
later round, so that a checkpoint needs no copy and a resumed run finds what it knew then."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fpcli.errors import FpError
from fpcli.structure.layout import Tensors

_FILE = re.compile(r"(?P<name>[a-z0-9_]+)\.round-(?P<round>\d{5,})\.safetensors")


def recall(home: Path, client: int, name: str, before: int) -> dict[str, Tensor]:
    """Return what a client remembered under ``name`` in the newest round earlier than ``before``.

    Only earlier rounds count: a job that is repeated after a crash must not see its own traces.

    Returns:
        tensors by name; empty when there is no memory.
    """
    versions = [(r, p) for n, r, p in _versions(_folder(home, client)) if n == name and r < before]
    return dict(load_file(max(versions)[1])) if versions else {}


def has_any(home: Path, client: int, before: int) -> bool:
    """Tell whether a client remembered anything in a round earlier than ``before``."""
    return any(round < before for _, round, _ in _versions(_folder(home, client)))


def remember(home: Path, client: int, name: str, round: int, tensors: Tensors) -> None:
    """Write a client's memory of one round, atomically."""
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise FpError(f"a memory's name must be lower-case letters, digits and _: {name!r}")
    folder = _folder(home, client)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.round-{round:05d}.safetensors"
    partial = target.with_suffix(f".{os.getpid()}.partial")
    save_file({key: value.contiguous() for key, value in tensors.items()}, partial)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(target)


def rewind(home: Path, round: int) -> None:
    """Forget everything that was remembered after ``round``, and unfinished files."""
    for _, when, path in _all(home):
        if when > round:
            path.unlink()
    for partial in home.glob("client-*/*.partial"):
        partial.unlink()


def prune(home: Path, round: int) -> None:
    """Delete versions that nobody can ask for again once no checkpoint is older than ``round``."""
    newest: dict[tuple[Path, str], int] = {}
    for name, when, path in _all(home):
        if when <= round:
            key = (path.parent, name)
            newest[key] = max(when, newest.get(key, 0))
    for name, when, path in _all(home):
        if when < newest.get((path.parent, name), 0):
            path.unlink()


def _folder(home: Path, client: int) -> Path:
    return home / f"client-{client:05d}"


def _versions(folder: Path) -> Iterator[tuple[str, int, Path]]:
    for path in sorted(folder.glob("*.safetensors")):
        match = _FILE.fullmatch(path.name)
        if match:
            yield match["name"], int(match["round"]), path


def _all(home: Path) -> list[tuple[str, int, Path]]:
    return [v for folder in sorted(home.glob("client-*")) for v in _versions(folder)]
