"""The events of a run: one JSON object per line, safe on disk before the run goes on.

Each line ends with its own checksum, so that a run knows which of its lines it can rely on.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fpcli.errors import DataError
from fpcli.files import cannot_read, cannot_write, sync_folder, write_atomic

Events = Sequence[Mapping[str, Any]]
"""One event per round, as :func:`read_events` returns them."""

EVENT_FORMAT = 2
"""The newest format of an event, which new ones have under ``format``. In the first, which had no
number, clients' models were judged by accuracy alone."""

_CHECKSUM = "crc32"


class Sound(NamedTuple):
    """How far events can be relied on.

    Attributes:
        rounds: the newest round up to which none is missing or damaged.
        problem: what is wrong with the first line after it, with its place; empty if there is none,
            or only one that a crash cut short.
        prints: fingerprints of the file after 0, 1, 2 ... of these rounds.
    """

    rounds: int
    problem: str = ""
    prints: tuple[int, ...] = (0,)


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one event; numbers that are not finite become null.

    Raises:
        NeedError: the file cannot be written.
    """
    plain = replace_nan(event)
    line = _text({**plain, _CHECKSUM: _checksum(plain)}) + "\n"
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


def _text(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False)


def _checksum(event: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(_text(event).encode()):08x}"


def replace_nan(value: Any) -> Any:
    """Return nested plain data with None for numbers that are not finite, which JSON lacks.

    >>> replace_nan({"a": float("nan"), 3: (1, float("inf"))})
    {'a': None, '3': [1, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nan(item) for item in value]
    return value


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return all events, without their checksums; a last line that a crash cut short does not
    count.

    Lines without a checksum, which earlier versions wrote, are taken as they are.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object or not as it was written.
    """
    events = []
    for number, line, is_cut in _lines(path):
        try:
            events.append(_upgrade(_event(line, is_checked=False)))
        except ValueError as error:
            if not is_cut:
                raise DataError(
                    f"{path}:{number}: {error}",
                    hint="restore the file from a copy, or let `fp resume` play that round again",
                    where=f"{path}:{number}",
                ) from error
    return events


def _upgrade(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of any format as one of the newest."""
    if event.get("format", 1) == 1 and isinstance(event.get("personal"), dict):
        event["personal"] = {"accuracy": event["personal"]}
        if "local" in event:
            event["personal"]["local_accuracy"] = event.pop("local")
        for mean in ("clients_accuracy", "local_accuracy"):
            event.pop(mean, None)
    return event


def find_sound(path: Path) -> Sound:
    """Return how far events can be relied on, those of rounds 1, 2, 3 and so on.

    Raises:
        DataError: the file cannot be read.
    """
    prints = [0]
    for number, line, is_cut in _lines(path):
        try:
            if _event(line, is_checked=True).get("round") != number:
                raise ValueError(f"not the event of round {number}")
        except ValueError as error:
            problem = "" if is_cut else f"{path}:{number}: {error}"
            return Sound(number - 1, problem, tuple(prints))
        prints.append(zlib.crc32(line + b"\n", prints[-1]))
    return Sound(len(prints) - 1, "", tuple(prints))


def digest_events(path: Path, rounds: int) -> int:
    """Return a checksum of the events of the first rounds, by which those of another run are told.

    Raises:
        DataError: the file cannot be read.
    """
    digest = 0
    for number, line, _ in _lines(path):
        if number <= rounds:
            digest = zlib.crc32(line + b"\n", digest)
    return digest


def keep(path: Path, rounds: int) -> Path | None:
    """Drop every event after those of the first rounds, of which each must be sound.

    Returns:
        Where the file as it was is kept, if something in it was damaged.

    Raises:
        DataError: the file cannot be read.
        NeedError: it cannot be written.
    """
    if not path.exists():
        return None
    lines = [line for _, line, _ in _lines(path)]
    aside = _set_aside(path) if find_sound(path).problem else None
    write_atomic(path, b"".join(line + b"\n" for line in lines[:rounds]))
    return aside


def _set_aside(path: Path) -> Path:
    """Copy a damaged file beside itself, once, and never over an earlier one."""
    data, number = path.read_bytes(), 1
    while True:
        aside = path.with_name(f"{path.name}.damaged" + f"-{number}" * (number > 1))
        if not aside.exists():
            write_atomic(aside, data)
        if aside.is_file() and aside.read_bytes() == data:
            return aside
        number += 1


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number and content of every line, and whether a crash may have cut it short."""
    try:
        *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise cannot_read(path, error) from error
    yield from ((number, line, False) for number, line in enumerate(lines, start=1))
    if last:
        yield len(lines) + 1, last, True


def _event(line: bytes, *, is_checked: bool) -> dict[str, Any]:
    """Return the event of a line.

    Args:
        is_checked: demand a checksum; otherwise a wrong one is refused only.

    Raises:
        ValueError: there is none, or it is not as it was written.
    """
    try:
        event = json.loads(line)
        stored_sum = event.pop(_CHECKSUM, None)
        true_sum = _checksum(event)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError("not an event") from error
    if not isinstance(event, dict) or (stored_sum is None and is_checked):
        raise ValueError("not an event with a checksum")
    if stored_sum not in (None, true_sum):
        raise ValueError("damaged: its checksum differs")
    return event
