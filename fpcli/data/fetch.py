"""Download data sets, the only place that does, and remember the checksums of their files."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from fpcli import plugins
from fpcli.data.catalogue import CATALOGUE, Entry
from fpcli.errors import DataError, NeedError, UsageError
from fpcli.files import cannot_write, hash_file, write_atomic

RECORD = "SHA256SUMS"
"""File in the data folder that lists what was fetched, as `sha256sum --check` reads it."""

TIMEOUT_S = 60.0
"""Seconds without an answer after which a download has failed."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def fetch_dataset(name: str, data_dir: Path, tell: Callable[[str], None]) -> tuple[str, ...]:
    """Download a data set unless it is there, and return its files below the data folder.

    torchvision downloads and unpacks it in a folder beside the final one (and knows the MD5 of
    every archive that is not of the catalogue); only then are whole files moved to their place.

    Args:
        name: of a data set.
        data_dir: made where it is missing.
        tell: gets a line about what is going on.

    Raises:
        UsageError: no data set has that name, or it is of another package.
        NeedError: the network or the folder cannot be used.
        DataError: a file that is there is damaged.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        plugins.find_reference("datasets", name)
        raise UsageError(
            f"data `{name}` is of another package", hint="see there how it gets its files"
        )
    if not entry.files:
        origin = "is made from a seed" if entry.is_synthetic else "comes with scikit-learn"
        tell(f"{name} {origin}: nothing to fetch")
        return ()
    if held := entry.held(data_dir):
        tell(f"{name} is in {data_dir}: nothing to fetch")
        if not verify_files(name, data_dir):
            plugins.lookup("datasets", name)(data_dir)
            _remember(data_dir, {file: hash_file(data_dir / file) for file in held})
        return held
    with _scratch(data_dir, entry.reader or name) as scratch:
        tell(f"downloading {name} to {data_dir}")
        _download(name, entry, scratch)
        # One archive may hold the files of several data sets.
        siblings = (o for o in CATALOGUE.values() if o is entry or o.reader == entry.reader != "")
        files = {file for other in siblings for file in (*other.files, *other.extras)}
        arrived = sorted(file for file in files if (scratch / file).exists())
        sums = {file: hash_file(scratch / file) for file in arrived}
        _settle(scratch, data_dir, sums)
        _remember(data_dir, sums)
    return entry.held(data_dir)


def verify_files(name: str, data_dir: Path) -> bool:
    """Tell whether all files of a data set are as they were when they were fetched.

    Returns:
        False if nothing is recorded of one of them, so that nobody knows.

    Raises:
        DataError: a file has changed, or the record cannot be read.
    """
    recorded = read_record(data_dir)
    files = CATALOGUE[name].held(data_dir)
    for file in files:
        if file in recorded and hash_file(data_dir / file) != recorded[file]:
            raise _explain_damage(data_dir / file)
    return bool(files) and all(file in recorded for file in files)


def read_record(data_dir: Path) -> Mapping[str, str]:
    """Return the SHA-256 of every fetched file, by its path below the data folder.

    Raises:
        DataError: the record cannot be read.
    """
    path = data_dir / RECORD
    if not path.exists():
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_record(path, str(error)) from error
    sums = {}
    for number, line in enumerate(lines, 1):
        if not (match := _LINE.fullmatch(line)):
            raise _bad_record(path, f"line {number} is no checksum")
        sums[match[2]] = match[1]
    return sums


def _remember(data_dir: Path, sums: Mapping[str, str]) -> None:
    merged = dict(read_record(data_dir)) | dict(sums)
    lines = (f"{merged[file]}  {file}\n" for file in sorted(merged))
    write_atomic(data_dir / RECORD, "".join(lines))


def _settle(scratch: Path, data_dir: Path, sums: Mapping[str, str]) -> None:
    """Move files to their place; those that are there already must be the same.

    Raises:
        DataError: one is another; nothing was moved.
        NeedError: the folder cannot be written.
    """
    new = [file for file in sums if not (data_dir / file).exists()]
    for file in sums.keys() - set(new):
        if hash_file(data_dir / file) != sums[file]:
            raise _explain_damage(data_dir / file)
    for file in new:
        try:
            (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
            (scratch / file).replace(data_dir / file)
        except OSError as error:
            raise cannot_write(data_dir / file, error) from error


@contextlib.contextmanager
def _scratch(data_dir: Path, what: str) -> Iterator[Path]:
    """Lend an empty folder on the same disk, for this process only; it is gone afterwards."""
    # A fixed name: what a killed process leaves behind is deleted by the next one.
    folder = data_dir / f".fetch-{what}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f"{folder.name}.lock", timeout=0):
            try:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise NeedError(
            f"another process is fetching {what} to {data_dir}", hint="wait until it ends"
        ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def _download(name: str, entry: Entry, scratch: Path) -> None:
    from torchvision import datasets

    try:
        with _quietly():
            if entry.url:
                datasets.utils.download_and_extract_archive(entry.url, str(scratch), md5=entry.md5)
            for part in entry.parts if entry.reader else ():
                getattr(datasets, entry.reader)(scratch, download=True, **part)
            if missing := entry.missing(scratch):
                raise FileNotFoundError(f"the archive has no {missing[0]}")
    except Exception as error:  # sockets, archives and parsers raise almost anything
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise cannot_write(scratch, error) from error
        files = ", ".join(entry.files)
        raise NeedError(
            f"data `{name}` cannot be downloaded: {_reason(error)}",
            hint=f"is there a network? otherwise put {files} into the data folder yourself",
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep torchvision's words off stdout, its bar off all but a terminal, and do not wait long."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            if not sys.stderr.isatty():
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    """Return the last line of an error's text; torchvision lists its tries one under another."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"<urlopen error (.*)>", r"\1", lines[-1])


def _explain_damage(path: Path) -> DataError:
    return DataError(
        f"{path} is damaged: it is not what was fetched",
        hint="delete it and fetch it again with `fp data fetch`",
        where=str(path),
    )


def _bad_record(path: Path, problem: str) -> DataError:
    return DataError(
        f"{path} cannot be read: {problem}",
        hint="delete it; the next `fp data fetch` writes it anew",
        where=str(path),
    )
