from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fpcli.errors import DataError, NeedError
from fpcli.run.events import append, read, truncate_after


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    append(path, {"type": "start", "seed": 0})
    for number in range(1, 4):
        append(path, {"type": "round", "round": number, "loss": 0.1 * number})
    return path


def test_append_and_read(path: Path) -> None:
    events = read(path)
    assert [event.get("round") for event in events] == [None, 1, 2, 3]
    assert events[3]["loss"] == 0.1 * 3
    assert path.read_bytes().count(b"\n") == 4


def test_order_and_special_values(tmp_path: Path) -> None:
    path = tmp_path / "e"
    append(path, {"z": math.nan, "a": [math.inf, (1.0, -math.inf)], "m": {"x": math.nan}, "u": "ü"})
    line = '{"z": null, "a": [null, [1.0, null]], "m": {"x": null}, "u": "ü"}\n'
    assert path.read_text("utf-8") == line


def test_no_file(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []
    truncate_after(tmp_path / "none", 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", [b"{", b'{"round": 4, "x', b"\x00\xff\x00", b"[1]", b"[" * 9999])
def test_a_last_line_cut_short(path: Path, tail: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert len(read(path)) == 4
    truncate_after(path, 9)
    assert path.read_bytes() == whole


def test_every_cut_leaves_the_events_before_it(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        # A last line without its line break is complete all the same.
        assert len(read(path)) == whole[: length + 1].count(b"\n")


def test_a_damaged_line_in_the_middle(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"[1]\n", *lines[2:]]))
    for action in (lambda: read(path), lambda: truncate_after(path, 1)):
        with pytest.raises(DataError, match="jsonl:2: not an event"):
            action()
    assert path.read_bytes().splitlines()[1] == b"[1]"


def test_truncate_after(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    truncate_after(path, 2)
    assert path.read_bytes() == b"".join(lines[:3])
    append(path, json.loads(lines[3]))
    assert path.read_bytes() == b"".join(lines)
    truncate_after(path, 0)
    assert path.read_bytes() == lines[0]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="cannot write"):
        append(tmp_path / "none" / "e", {})
