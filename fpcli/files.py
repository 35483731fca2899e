"""Whole files only: a crash cannot leave a part of one, nor of a folder; and their checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fpcli.errors import DataError, NeedError

_REMEDIES: Mapping[int | None, str] = {
    errno.ENOSPC: "free some disk space, then try again (a run: `fp resume RUN`)",
    errno.EDQUOT: "free some of your disk quota, then try again (a run: `fp resume RUN`)",
    errno.EFBIG: "raise the file size limit (`ulimit -f`)",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
}


def cannot_write(path: Path, error: Exception, *, hint: str = "") -> NeedError:
    """Return the error for a file that could not be written, with its remedy.

    Args:
        hint: the remedy; none means the usual one.
    """
    # Libraries that are not written in Python tell the number in their message only.
    match = re.search(r"os error (\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
    reason = os.strerror(number) if number else str(error)
    hint = hint or _REMEDIES.get(
        number, "choose a folder you may write to (for runs: `--runs DIR`)"
    )
    return NeedError(f"cannot write {path}: {reason}", hint=hint, where=str(path))


def cannot_read(path: Path, error: OSError) -> DataError:
    """Return the error for a file that is there but cannot be read."""
    return DataError(
        f"cannot read {path}: {error.strerror or error}",
        hint="it must be a file that you may read",
        where=str(path),
    )


def sync_folder(path: Path) -> None:
    """Make the entries of a folder survive a power cut (a no-op where the system cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, so that a crash leaves either the old one or the new one.

    Raises:
        NeedError: the folder is read-only or missing, the disk is full, or the like.
    """
    # A fixed name: what a crash leaves behind is overwritten by the next attempt.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Lend an empty folder beside ``path``, and put it there as a whole once it is filled.

    Whatever fails, or ends the process, leaves the folder that was there: by its name, or, between
    two renames, by a hidden one, ``.NAME.old``, which goes when the call is repeated.

    Raises:
        NeedError: it cannot be written.
    """
    # Fixed names: what a crash leaves behind is overwritten by the next attempt.
    fresh, old = (path.with_name(f".{path.name}.{word}") for word in ("tmp", "old"))
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        if is_taken := path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)  # since a folder cannot be renamed over another
        try:
            fresh.rename(path)
        except OSError:
            if is_taken:
                old.rename(path)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def delete_folder(path: Path) -> None:
    """Delete a folder, if it is there, so that a crash leaves all of it or nothing by that name.

    What a crash leaves by a hidden name, ``.NAME.deleted``, goes when the call is repeated.

    Raises:
        NeedError: it cannot be deleted, or is something else.
    """
    doomed = path.with_name(f".{path.name}.deleted")
    try:
        if doomed.exists():
            shutil.rmtree(doomed)
        if path.is_symlink() or path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if path.exists():
            path.rename(doomed)
            shutil.rmtree(doomed)
    except OSError as error:
        raise cannot_write(path, error) from error


def hash_file(path: Path) -> str:
    """Return the hex SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_checksums(folder: Path, files: Sequence[Path]) -> str:
    """Return lines that ``sha256sum --check`` reads when it runs in ``folder``."""
    return "".join(f"{hash_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
