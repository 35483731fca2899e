"""What a client keeps between rounds: one file per client, name and round, never overwritten by a
later round, so that a checkpoint needs no copy and a resumed run finds what it knew then."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fpcli.errors import FpError, ResumeError
from fpcli.structure.layout import Tensors

_CHECKSUM = "crc32"
_FILE = re.compile(r"(?P<name>[a-z0-9_]+)\.round-(?P<round>\d{5,})\.safetensors")


def recall(home: Path, client: int, name: str, before: int, since: int = 0) -> dict[str, Tensor]:
    """Return what a client remembered under ``name`` in the newest round earlier than ``before``,
    unless that round is earlier than ``since``.

    Only earlier rounds count: a job that is repeated after a crash must not see its own traces.

    Returns:
        tensors by name; empty when there is no memory.
    """
    files = _versions(_folder(home, client))
    versions = [(r, path) for n, r, path in files if n == name and since <= r < before]
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
    plain = {key: value.contiguous() for key, value in tensors.items()}
    save_file(plain, partial, {_CHECKSUM: _checksum(plain)})
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(target)


def list_versions(home: Path, round: int) -> dict[str, str]:
    """Return what a run that goes on after ``round`` needs: file below ``home`` -> checksum."""
    newest: dict[tuple[Path, str], tuple[int, Path]] = {}
    for name, when, path in _all(home):
        if when <= round:
            key = (path.parent, name)
            newest[key] = max((when, path), newest.get(key, (0, path)))
    checksums = {}
    for _, path in newest.values():
        with safe_open(path, framework="pt") as file:
            checksums[path.relative_to(home).as_posix()] = (file.metadata() or {}).get(
                _CHECKSUM, ""
            )
    return checksums


def check_versions(home: Path, wanted: Mapping[str, str]) -> None:
    """Make sure that everything is there that :func:`list_versions` has found.

    Raises:
        ResumeError: a file is missing, damaged or another one.
    """
    for name, checksum in wanted.items():
        path = home / name
        try:
            is_whole = _checksum(load_file(path)) == checksum
        except (OSError, SafetensorError):
            is_whole = False
        if not is_whole:
            raise ResumeError(
                f"{path} is {'damaged' if path.exists() else 'missing'}: what a client remembers",
                hint="restore it from a copy, or play all rounds again with `--force`",
                where=str(path),
            )


def _checksum(tensors: Tensors) -> str:
    checksum = 0
    for name in sorted(tensors):
        x = tensors[name].contiguous()
        checksum = zlib.crc32(f"{name} {x.dtype} {list(x.shape)}".encode(), checksum)
        checksum = zlib.crc32(x.flatten().view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def rewind(home: Path, round: int) -> None:
    """Forget everything that was remembered after ``round``, and unfinished files."""
    for _, when, path in _all(home):
        if when > round:
            path.unlink()
    for partial in home.glob("client-*/*.partial"):
        partial.unlink()


def prune_versions(home: Path, round: int) -> None:
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
