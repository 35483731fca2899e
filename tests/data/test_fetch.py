from __future__ import annotations

import gc
import gzip
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from datafiles import md5, write_mnist
from filelock import FileLock
from torchvision import datasets

from fpcli.data.catalogue import CATALOGUE
from fpcli.data.datasets import load_dataset
from fpcli.data.fetch import fetch_dataset, read_record, verify_files
from fpcli.errors import DataError, NeedError, UsageError

FILES = sorted(CATALOGUE["mnist"].files)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a small MNIST from this machine, and let torchvision look for it there."""
    folder = tmp_path / "mirror"
    write_mnist(folder, ("train", "t10k"), np.arange(40) % 10)
    resources = []
    for path in sorted(folder.iterdir()):
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((packed.name, md5(packed)))
        path.unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()
    # A request that failed is not closed by torchvision, which would be told to a later test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def files(folder: Path) -> list[str]:
    """Return all files but the lock, which may stay."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.relative_to(folder).as_posix() for path in found)


def ignore(text: str) -> None:
    pass


def test_fetch_once(mirror: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    assert sorted(fetch_dataset("mnist", data_dir, told.append)) == FILES
    assert told == [f"downloading mnist to {data_dir}"]
    assert capfd.readouterr() == ("", "")
    assert files(data_dir) == [*FILES, "SHA256SUMS"]
    assert sorted(read_record(data_dir)) == FILES
    assert verify_files("mnist", data_dir)
    assert len(load_dataset("mnist", data_dir, seed=0).test) == 40
    for path in mirror.iterdir():
        path.unlink()
    assert sorted(fetch_dataset("mnist", data_dir, told.append)) == FILES
    assert told[1:] == [f"mnist is in {data_dir}: nothing to fetch"]


def test_damage_is_noticed(mirror: Path, data_dir: Path) -> None:
    fetch_dataset("mnist", data_dir, ignore)
    path = data_dir / FILES[2]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for noticed in (
        lambda: verify_files("mnist", data_dir),
        lambda: fetch_dataset("mnist", data_dir, ignore),
    ):
        with pytest.raises(DataError) as caught:
            noticed()
        assert caught.value.message == f"{path} is damaged: it is not what was fetched"
        assert "delete it" in caught.value.hint
    path.unlink()
    fetch_dataset("mnist", data_dir, ignore)
    assert verify_files("mnist", data_dir)


def test_a_file_that_is_there_is_kept_or_refused(mirror: Path, data_dir: Path) -> None:
    path = data_dir / FILES[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=f"{path} is damaged"):
        fetch_dataset("mnist", data_dir, ignore)
    assert files(data_dir) == [FILES[0]]
    assert path.read_bytes() == b"something else"


def test_files_put_there_by_hand_are_recorded_once_they_were_read(
    mirror: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw, ("train", "t10k"), np.arange(40) % 10)
    assert not verify_files("mnist", tmp_path)
    fetch_dataset("mnist", tmp_path, ignore)
    assert verify_files("mnist", tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    (raw / "train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        fetch_dataset("mnist", tmp_path, ignore)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "HTTP Error 404"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "File not found or corrupted"),
    ],
)
def test_nothing_half_is_left(mirror: Path, data_dir: Path, spoil: object, reason: str) -> None:
    spoil(mirror / "train-labels-idx1-ubyte.gz")  # type: ignore[operator]
    with pytest.raises(NeedError, match=f"`mnist` cannot be downloaded: {reason}") as caught:
        fetch_dataset("mnist", data_dir, ignore)
    assert caught.value.exit_status == 5
    assert FILES[0] in caught.value.hint
    assert "\n" not in caught.value.message
    assert files(data_dir) == []


def test_no_network(mirror: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(NeedError, match=r"cannot be downloaded: \[Errno \d+\] Connection refused"):
        fetch_dataset("mnist", data_dir, ignore)


def test_what_a_killed_process_left_is_deleted(mirror: Path, data_dir: Path) -> None:
    left = data_dir / ".fetch-MNIST" / "MNIST" / "raw" / "half.gz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    fetch_dataset("mnist", data_dir, ignore)
    assert not left.exists()


def test_one_process_at_a_time(mirror: Path, data_dir: Path) -> None:
    data_dir.mkdir(parents=True)
    with (
        FileLock(data_dir / ".fetch-MNIST.lock"),
        pytest.raises(NeedError, match="another process is fetching MNIST"),
    ):
        fetch_dataset("mnist", data_dir, ignore)


def test_one_archive_may_hold_several_data_sets(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(self: datasets.EMNIST) -> None:
        for split in ("letters", "digits"):
            prefixes = (f"emnist-{split}-train", f"emnist-{split}-test")
            write_mnist(Path(self.raw_folder), prefixes, np.arange(52) % 26 + 1)

    monkeypatch.setattr(datasets.EMNIST, "download", unpack)
    fetch_dataset("emnist-letters", data_dir, ignore)
    assert verify_files("emnist-letters", data_dir)
    assert verify_files("emnist-digits", data_dir)
    assert not verify_files("emnist", data_dir)


def test_nothing_to_fetch(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    assert fetch_dataset("digits", data_dir, told.append) == ()
    assert told == ["digits comes with scikit-learn: nothing to fetch"]
    with pytest.raises(UsageError, match="unknown data set `minst`") as caught:
        fetch_dataset("minst", data_dir, ignore)
    assert "mnist" in caught.value.hint
    monkeypatch.setattr("fpcli.plugins.list_names", lambda kind: {"theirs": "a:b"})
    with pytest.raises(UsageError, match="`theirs` is of another package"):
        fetch_dataset("theirs", data_dir, ignore)


@pytest.mark.parametrize("text", [b"abc  MNIST/raw/x\n", b"\xff\xfe"])
def test_a_record_that_cannot_be_read(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(text)
    with pytest.raises(DataError, match="SHA256SUMS cannot be read") as caught:
        verify_files("mnist", tmp_path)
    assert "delete it" in caught.value.hint
