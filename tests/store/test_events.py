from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fpcli.errors import DataError, NeedError
from fpcli.store.events import append, digest_events, find_sound, keep, read_events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    for number in range(1, 5):
        append(path, {"event": "round", "round": number, "loss": 0.1 * number})
    return path


def spoil(path: Path, line: int, old: bytes, new: bytes) -> bytes:
    """Change a line, counted from 1, and return the whole file as it was before."""
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_bytes(b"".join(lines))
    return before


def test_append_and_read(path: Path) -> None:
    events = read_events(path)
    assert [event["round"] for event in events] == [1, 2, 3, 4]
    assert events[2] == {"event": "round", "round": 3, "loss": 0.1 * 3}
    assert path.read_bytes().count(b"\n") == 4
    assert find_sound(path)[:2] == (4, "")
    assert find_sound(path).prints == tuple(digest_events(path, rounds) for rounds in range(5))
    assert len(set(find_sound(path).prints)) == 5


def test_order_special_values_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "e"
    append(path, {"z": math.nan, "a": [math.inf, (1.0, -math.inf)], "m": {"x": math.nan}, "u": "ü"})
    found = json.loads(path.read_text("utf-8"))
    assert list(found.items())[:4] == [
        ("z", None), ("a", [None, [1.0, None]]), ("m", {"x": None}), ("u", "ü"),
    ]  # fmt: skip
    assert len(bytes.fromhex(found["crc32"])) == 4


def test_no_file(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == []
    assert find_sound(tmp_path / "none")[:2] == (0, "")
    assert keep(tmp_path / "none", 3) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    for action in (read_events, find_sound):
        with pytest.raises(DataError, match=f"cannot read {tmp_path}: Is a directory"):
            action(tmp_path)


@pytest.mark.parametrize("tail", [b"{", b'{"round": 4, "x', b"\x00\xff\x00", b"[1]", b"[" * 9999])
def test_a_last_line_cut_short(path: Path, tail: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert len(read_events(path)) == 4
    assert find_sound(path)[:2] == (4, "")
    assert keep(path, 4) is None
    assert path.read_bytes() == whole
    path.write_bytes(whole + tail + b"\n")  # no crash does that
    with pytest.raises(DataError, match="jsonl:5: not an event"):
        read_events(path)
    assert "jsonl:5: not an event" in find_sound(path).problem


def test_every_cut_leaves_the_events_before_it(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        # A last line without its line break is complete all the same.
        num_lines = whole[: length + 1].count(b"\n")
        assert len(read_events(path)) == num_lines
        assert find_sound(path)[:2] == (num_lines, "")


def test_every_flipped_bit_is_noticed_in_its_line(path: Path) -> None:
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    end = whole.index(b"\n", start) + 1
    for place in range(start, end):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            found = find_sound(path)
            assert found.rounds == 1, (place, bit)
            assert f"{path}:2: " in found.problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"0.2", b"0.3", "damaged: its checksum differs"),
        (b'"round": 2', b'"rouNd": 2', "damaged: its checksum differs"),
        (b"{", b"[", "not an event"),
        (b'"loss"', b'"\xffoss"', "not an event"),
    ],
)
def test_a_damaged_line(path: Path, old: bytes, new: bytes, problem: str) -> None:
    before = spoil(path, 2, old, new)
    damaged = path.read_bytes()
    with pytest.raises(DataError) as caught:
        read_events(path)
    assert caught.value.message == f"{path}:2: {problem}"
    assert "fp resume" in caught.value.hint
    assert find_sound(path)[:2] == (1, f"{path}:2: {problem}")
    aside = keep(path, 1)
    assert aside == path.with_name("events.jsonl.damaged")
    assert aside.read_bytes() == damaged
    assert path.read_bytes() == before[: before.index(b"\n") + 1]


def test_nothing_that_was_set_aside_is_lost(path: Path) -> None:
    names = ["events.jsonl.damaged", "events.jsonl.damaged", "events.jsonl.damaged-2"]
    before = spoil(path, 4, b"{", b"[")
    for name, write in zip(names, (path.read_bytes(), path.read_bytes(), b"x\n"), strict=True):
        path.write_bytes(write)
        aside = keep(path, 0)
        assert aside is not None
        assert (aside.name, aside.read_bytes(), path.read_bytes()) == (name, write, b"")
    assert path.with_name(names[0]).read_bytes() != before


@pytest.mark.parametrize(
    ("rounds", "num_sound"), [((2, 3), 0), ((1, 3), 1), ((1, 2, 2), 2), ((1, 2, 1), 2)]
)
def test_a_round_that_is_missing_or_twice(
    tmp_path: Path, rounds: tuple[int, ...], num_sound: int
) -> None:
    path = tmp_path / "e"
    for number in rounds:
        append(path, {"round": number})
    line = num_sound + 1
    assert find_sound(path)[:2] == (num_sound, f"{path}:{line}: not the event of round {line}")


def test_lines_of_earlier_versions_can_be_read_but_not_relied_on(path: Path) -> None:
    path.write_text('{"round": 1}\n')
    assert read_events(path) == [{"round": 1}]
    assert find_sound(path)[:2] == (0, f"{path}:1: not an event with a checksum")


def test_keep(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    keep(path, 3)
    assert path.read_bytes() == b"".join(lines[:3])
    append(path, {"event": "round", "round": 4, "loss": 0.1 * 4})
    assert path.read_bytes() == b"".join(lines)
    keep(path, 0)
    assert path.read_bytes() == b""


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="cannot write"):
        append(tmp_path / "none" / "e", {})
