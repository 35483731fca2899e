"""Read arrays from an untrusted .npz file without running code or filling the memory."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fpcli.data.split import KEYS, OF_ITEMS, OWNERS
from fpcli.errors import DataError

MAX_BYTES = 4 * 2**30
"""Unpacked size of all wanted arrays together."""

SUSPECT_BYTES = 64 * 2**20
SUSPECT_RATIO = 100
"""An array above SUSPECT_BYTES that shrank by more than this is taken for a decompression bomb."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of ``path`` that are named in ``KEYS`` or ``OWNERS``, those of sequences
    and ``task``, no others.

    Raises:
        DataError: the file is missing, truncated, corrupt or no .npz; an array holds objects
            (pickled code), claims another size than is stored, or would not fit in memory.
    """
    if not path.is_file():
        raise DataError(f"no file {path}", hint="give it as npz:PATH", where=str(path))
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: not a readable .npz file: {error}",
            hint="write it anew with numpy.savez",
            where=str(path),
        ) from error
    with archive:
        entries = {
            key: entry
            for entry in archive.infolist()
            if (key := entry.filename.removesuffix(".npy")) in (*KEYS, OWNERS, *OF_ITEMS, "task")
        }
        if sum(entry.file_size for entry in entries.values()) > MAX_BYTES:
            raise DataError(
                f"{path}: unpacks to more than {MAX_BYTES // 2**30} GiB",
                hint="use fewer or smaller images",
                where=str(path),
            )
        return {key: _read_entry(path, archive, key, entry) for key, entry in entries.items()}


def _read_entry(
    path: Path, archive: zipfile.ZipFile, key: str, entry: zipfile.ZipInfo
) -> NDArray[Any]:
    """Return one array, after its header was found to agree with the size of its data."""
    if entry.file_size > SUSPECT_BYTES and entry.file_size > SUSPECT_RATIO * entry.compress_size:
        raise _refusal(path, key, "expands suspiciously far", "store it with numpy.savez")
    try:
        with archive.open(entry) as file:
            version = npy.read_magic(file)
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            shape, _, dtype = header[version](file)
            start = file.tell()
        if dtype.hasobject:
            raise _refusal(path, key, "holds Python objects", "store plain numbers")
        if (
            min(shape, default=0) < 0
            or math.prod(shape) * dtype.itemsize != entry.file_size - start
        ):
            raise _refusal(path, key, "claims another size than it has", "write the file anew")
        with archive.open(entry) as file:
            return np.asarray(npy.read_array(file, allow_pickle=False))
    except DataError:
        raise
    except Exception as error:  # a damaged header makes zipfile and numpy raise almost anything
        raise _refusal(path, key, f"cannot be read: {error}", "write the file anew") from error


def _refusal(path: Path, key: str, problem: str, hint: str) -> DataError:
    return DataError(f"{path}: {key} {problem}", hint=hint, where=str(path))
