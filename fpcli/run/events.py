"""The events of a run: one JSON object per line, safe on disk before the run goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fpcli.errors import DataError
from fpcli.files import cannot_write, sync_folder, write_atomic


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one event; numbers that are not finite become null.

    Raises:
        NeedError: the file cannot be written.
    """
    line = json.dumps(_finite(event), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read(path: Path) -> list[dict[str, Any]]:
    """Return all events; a last line that a crash cut short does not count.

    Raises:
        DataError: an earlier line is not a JSON object.
    """
    return [event for _, event in _lines(path)]


def truncate_after(path: Path, round: int) -> None:
    """Drop every event of a later round, and a last line that a crash cut short.

    Raises:
        DataError: a line before the last is not a JSON object.
        NeedError: the file cannot be written.
    """
    if path.exists():
        kept = [line + b"\n" for line, item in _lines(path) if (item.get("round") or 0) <= round]
        write_atomic(path, b"".join(kept))


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield every line with the event in it."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return
            raise DataError(
                f"{path}:{number}: not an event",
                hint="restore the file from a copy, or delete this line",
                where=f"{path}:{number}",
            ) from error
        yield line, event
