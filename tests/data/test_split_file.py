from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fpcli.data.partition import partition
from fpcli.data.split_file import digest_labels, split_json
from fpcli.errors import DataError
from fpcli.settings.tasks import Partition

LABELS = torch.tensor([0, 1, 0, 1, 1])


def write(path: Path, **changes: Any) -> Path:
    """Write a good file, or a wrong one; a value ``None`` leaves its key out."""
    content = {
        "format": 1,
        "data": "toys",
        "samples": 5,
        "labels_sha256": digest_labels(LABELS),
        "clients": [[4, 0], [1, 2, 3]],
    } | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def read(path: Path | str, clients: int = 2, **more: Any) -> tuple[Tensor, ...]:
    how = Partition("file", file=str(path), **more)
    return partition(LABELS, clients, how, data="toys", seed=0)


def test_a_file_says_who_has_what(tmp_path: Path) -> None:
    path = write(tmp_path / "split.json", comment="ignored")
    assert [part.tolist() for part in read(path)] == [[0, 4], [1, 2, 3]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    parts = partition(LABELS, 3, Partition(), seed=1)
    path = tmp_path / "split.json"
    path.write_text(split_json("toys", LABELS, parts))
    assert all(a.equal(b) for a, b in zip(parts, read(path, 3), strict=True))


def test_labels_that_are_numbers_have_a_digest_too(tmp_path: Path) -> None:
    labels, path = LABELS + 0.5, tmp_path / "split.json"
    assert len({digest_labels(x) for x in (LABELS, labels, labels + 0.25)}) == 3
    path.write_text(split_json("toys", labels, [torch.arange(3), torch.arange(3, 5)]))
    how = Partition("file", file=str(path))
    parts = partition(labels, 2, how, data="toys", kind="regress", seed=0)
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    with pytest.raises(DataError, match="labels_sha256"):
        partition(labels + 0.25, 2, how, data="toys", kind="regress", seed=0)


def test_a_file_may_leave_samples_out(tmp_path: Path) -> None:
    path = write(tmp_path / "split.json", clients=[[3], [1]])
    assert [part.tolist() for part in read(path)] == [[3], [1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "`format` is 2, here it is 1"),
        ({"format": None}, "`format` is NoneType"),
        ({"data": "mnist"}, "`data` is mnist, here it is toys"),
        ({"samples": 6}, "`samples` is 6, here it is 5"),
        ({"labels_sha256": "0" * 64}, "`labels_sha256` is 000"),
        ({"labels_sha256": [[]]}, "`labels_sha256` is list"),
        ({"clients": {"0": [1]}}, "`clients` is no list of lists"),
        ({"clients": [[1], 2]}, "`clients` is no list of lists"),
        ({"clients": [[1]]}, "has 1 clients, 2 were asked for"),
        ({"clients": [[1], [5]]}, "client 1 has the index 5"),
        ({"clients": [[1], [-1]]}, "client 1 has the index -1"),
        ({"clients": [[1], [True]]}, "client 1 has the index True"),
        ({"clients": [[1], [2.0]]}, "client 1 has the index 2.0"),
        ({"clients": [[1], ["2"]]}, "client 1 has the index 2"),
        ({"clients": [[1], [[2]]]}, "client 1 has the index list"),
        ({"clients": [[1, 2], [2]]}, "client 1 has sample 2, which is named before"),
        ({"clients": [[1], []]}, "client 1 would have 0 samples"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("[", r"\[")) as caught:
        read(write(tmp_path / "split.json", **changes))
    assert caught.value.exit_status == 3
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"3", b"\xff\xfe{}", b"[" * 100_000,
        b'{"format": ' + b"9" * 5000 + b"}", b'{"format": NaN}',
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"split\.json: "):
        read(path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    with path.open("wb") as file:
        file.truncate(2**21)
    with pytest.raises(DataError, match="is larger than 1048896 bytes"):
        read(path)


@pytest.mark.parametrize("name", ["nothing.json", ""])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no split file") as caught:
        read(tmp_path / name if name else "")
    assert "task.partition.file" in caught.value.hint


def test_a_file_and_a_long_tail_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not go with a file"):
        read(write(tmp_path / "split.json"), imbalance=2.0)


def test_a_file_lists_what_the_server_has_and_clients_do_not(tmp_path: Path) -> None:
    path, server = tmp_path / "split.json", torch.tensor([1, 4])
    parts = partition(LABELS, 2, Partition(), reserved=server, seed=1)
    path.write_text(split_json("toys", LABELS, parts, server))
    assert json.loads(path.read_text())["server"] == [1, 4]
    how = Partition("file", file=str(path))
    again = partition(LABELS, 2, how, data="toys", reserved=server, seed=0)
    assert all(a.equal(b) for a, b in zip(parts, again, strict=True))
    assert "server" not in json.loads(split_json("toys", LABELS, parts))


def test_a_file_that_gives_clients_what_the_server_has_is_refused(tmp_path: Path) -> None:
    how = Partition("file", file=str(write(tmp_path / "split.json")))
    with pytest.raises(DataError, match="client 1 has sample 2, which the server has") as caught:
        partition(LABELS, 2, how, data="toys", reserved=torch.tensor([2]), seed=0)
    assert "task.server_share" in caught.value.hint
