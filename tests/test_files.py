from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fpcli.errors import NeedError
from fpcli.files import cannot_write, replace_folder, write_atomic


def test_write_atomic_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a b ä.txt"
    (tmp_path / ".a b ä.txt.tmp").write_text("what a crash left behind, longer than the rest")
    write_atomic(path, "längst")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomic_leaves_the_old_file_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NeedError) as caught:
        write_atomic(path, "new")
    assert caught.value.exit_status == 5
    assert str(path) in str(caught.value)
    assert "free some disk space" in caught.value.hint
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (OSError(errno.EROFS, "x"), "cannot write f: Read-only file system", "--runs"),
        (OSError(errno.EFBIG, "x"), "cannot write f: File too large", "ulimit -f"),
        (RuntimeError("io: (os error 28)"), "cannot write f: No space left on device", "free"),
        (RuntimeError("what"), "cannot write f: what", "--runs"),
    ],
)
def test_cannot_write(error: Exception, message: str, hint: str) -> None:
    found = cannot_write(Path("f"), error)
    assert str(found) == message
    assert hint in found.hint


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x"
    with replace_folder(path) as fresh:
        (fresh / "first").touch()
        assert not path.exists()
    for left in ("tmp", "old"):  # by a crash
        (path.parent / f".x.{left}").mkdir()
        (path.parent / f".x.{left}" / "left").touch()
    with replace_folder(path) as fresh:
        (fresh / "second").touch()
        assert names(path) == ["first"]
    assert names(tmp_path) == ["deep", "deep/x", "deep/x/second"]


@pytest.mark.parametrize("failing", ["the body", "x", ".x.tmp"])
def test_a_folder_stays_where_its_replacement_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Let the filling fail, or the renaming of either folder."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mark").touch()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == failing:
            raise OSError(errno.ENOSPC, "no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(NeedError, match="x: No space left"), replace_folder(tmp_path / "x"):
        if failing == "the body":
            raise OSError(errno.ENOSPC, "no space")
    assert names(tmp_path) == ["x", "x/mark"]


def test_the_end_of_a_process_between_two_renames_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mark").touch()
    rename = Path.rename

    def end(self: Path, target: Path) -> Path:
        if self.name == ".x.tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", end)
        with pytest.raises(KeyboardInterrupt), replace_folder(tmp_path / "x"):
            pass
    assert names(tmp_path) == [".x.old", ".x.old/mark"]
    with replace_folder(tmp_path / "x") as fresh:
        (fresh / "new").touch()
    assert names(tmp_path) == ["x", "x/new"]
