from __future__ import annotations

import gc
import gzip
import threading
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Serve a folder from this machine, and return it and its address."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
    # A request that failed is not closed by torchvision, which would be told to a later test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def mirror(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve a small MNIST from this machine, and let torchvision look for it there."""
    folder, address = server
    write_mnist(folder, ("train", "t10k"), np.arange(40) % 10)
    resources = []
    for path in sorted(folder.iterdir()):
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((packed.name, md5(packed)))
        path.unlink()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return folder


@pytest.fixture
def films(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve a small MovieLens 100K from this machine, and let the catalogue look for it there."""
    folder, address = server
    lines = (
        f"{user}\t{item}\t3\t{time}\n" for user in range(6) for time, item in enumerate("abcdef")
    )
    path = folder / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", "".join(lines))
        archive.writestr("ml-100k/u.item", "a|Alien (1979)|x\n")
        archive.writestr("ml-100k/README", "not needed\n")
    entry = replace(CATALOGUE["ml-100k"], url=f"{address}ml-100k.zip", md5=md5(path))
    monkeypatch.setitem(CATALOGUE, "ml-100k", entry)  # type: ignore[arg-type]
    return path


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


FILMS = ["ml-100k/u.data", "ml-100k/u.item"]


def test_an_archive_of_the_catalogue(films: Path, data_dir: Path) -> None:
    told: list[str] = []
    assert list(fetch_dataset("ml-100k", data_dir, told.append)) == FILMS
    assert files(data_dir) == ["SHA256SUMS", *FILMS]
    assert sorted(read_record(data_dir)) == FILMS
    assert verify_files("ml-100k", data_dir)
    assert load_dataset("ml-100k", data_dir, seed=0).item_names[0] == "Alien (1979)"
    films.unlink()
    fetch_dataset("ml-100k", data_dir, told.append)
    assert told == [
        f"downloading ml-100k to {data_dir}",
        f"ml-100k is in {data_dir}: nothing to fetch",
    ]
    (data_dir / FILMS[1]).write_text("b|Brazil (1985)|x\n")
    with pytest.raises(DataError, match=r"u\.item is damaged"):
        verify_files("ml-100k", data_dir)


def test_an_archive_that_was_put_there_is_read_and_recorded(films: Path, tmp_path: Path) -> None:
    (tmp_path / films.name).write_bytes(films.read_bytes())
    assert fetch_dataset("ml-100k", tmp_path, ignore) == ("ml-100k.zip",)
    assert verify_files("ml-100k", tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    (tmp_path / films.name).write_bytes(films.read_bytes()[:99])
    with pytest.raises(DataError, match=r"ml-100k\.zip cannot be read"):
        fetch_dataset("ml-100k", tmp_path, ignore)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"md5": "0" * 32}, "File not found or corrupted"),
        ({"files": ("ml-100k/v.data",)}, "the archive has no ml-100k/v.data"),
    ],
)
def test_an_archive_that_is_another(
    films: Path,
    data_dir: Path,
    change: dict[str, Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = replace(CATALOGUE["ml-100k"], **change)
    monkeypatch.setitem(CATALOGUE, "ml-100k", entry)  # type: ignore[arg-type]
    with pytest.raises(NeedError, match=f"`ml-100k` cannot be downloaded: {reason}"):
        fetch_dataset("ml-100k", data_dir, ignore)
    assert files(data_dir) == []


def test_nothing_to_fetch(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    assert fetch_dataset("digits", data_dir, told.append) == ()
    assert fetch_dataset("markov", data_dir, told.append) == ()
    assert told == [
        "digits comes with scikit-learn: nothing to fetch",
        "markov is made from a seed: nothing to fetch",
    ]
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
