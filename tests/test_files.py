from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fpcli.errors import NeedError
from fpcli.files import cannot_write, write_atomic


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
