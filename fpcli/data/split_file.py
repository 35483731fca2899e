"""A split as a file: which client has which samples, for other programs and other runs.

One JSON object::

    {"format": 1, "data": "digits", "samples": 1297, "labels_sha256": "...",
     "clients": [[0, 5, 9], [1, 2]]}

``samples`` counts the training samples and ``labels_sha256`` is the SHA-256 of their labels as
64-bit numbers (whole ones, or floating point where they are to be predicted), lowest byte first,
both after the validation samples were set aside. ``clients``
has a list of indices, counted from 0, for each client. Where the server has samples of its own,
``server`` lists them for other programs; a run draws them itself (:mod:`fpcli.data.set_aside`), so
that this key and all others are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fpcli.data.arrays import Indices
from fpcli.data.set_aside import NO_SAMPLES
from fpcli.errors import DataError

SPLIT_FORMAT = 1
"""Format number of the files that this version writes and reads."""


def digest_labels(labels: Tensor) -> str:
    """Return the hex SHA-256 of labels, ``[n]``."""
    dtype = "<f8" if labels.is_floating_point() else "<i8"
    return hashlib.sha256(labels.numpy().astype(dtype).tobytes()).hexdigest()


def split_json(
    data: str, labels: Tensor, parts: Sequence[Tensor], server: Tensor = NO_SAMPLES
) -> str:
    """Return the text of the file for a split of training samples with these labels.

    Args:
        server: indices of the samples that the server has.
    """
    content = {
        "format": SPLIT_FORMAT,
        "data": data,
        "samples": len(labels),
        "labels_sha256": digest_labels(labels),
        "clients": [part.tolist() for part in parts],
    }
    if len(server):
        content["server"] = server.tolist()
    return json.dumps(content) + "\n"


def read_split(
    path: Path, data: str, labels: Tensor, num_clients: int, reserved: Tensor = NO_SAMPLES
) -> list[Indices]:
    """Return each client's indices, as an untrusted file names them.

    Args:
        data: name of the data.
        labels: of its training samples, ``[n]``.
        reserved: indices of the samples that the server has.

    Raises:
        DataError: the file is missing, too large, not of the format, of other data or another
            number of clients, or names a sample that does not exist, that was named before or that
            the server has.
    """
    content = _content(path, limit_bytes=2**20 + 64 * len(labels))
    for key, wanted, hint in (
        ("format", SPLIT_FORMAT, "write it anew with `fp data split`"),
        ("data", data, "a split belongs to one data set"),
        ("samples", len(labels), "use the seed and task.validation_fraction it was made with"),
        (
            "labels_sha256",
            digest_labels(labels),
            "use the seed and task.validation_fraction it was made with",
        ),
    ):
        if content.get(key) != wanted:
            shown = _shorten(content.get(key))
            raise _wrong(path, f"`{key}` is {shown}, here it is {wanted}", hint)
    clients = content.get("clients")
    if not isinstance(clients, list) or not all(isinstance(part, list) for part in clients):
        raise _wrong(path, "`clients` is no list of lists", "one list of indices per client")
    if len(clients) != num_clients:
        raise _wrong(
            path, f"has {len(clients)} clients, {num_clients} were asked for", "set task.clients"
        )
    is_taken = np.zeros(len(labels), dtype=np.bool_)
    parts = [_indices(path, client, part, is_taken) for client, part in enumerate(clients)]
    for client, part in enumerate(parts):
        if len(common := np.intersect1d(part, reserved)):
            raise _wrong(
                path,
                f"client {client} has sample {common[0]}, which the server has",
                "write it anew with the same seed and task.server_share (or task.server_samples), "
                "or leave that out",
            )
    return parts


def _content(path: Path, limit_bytes: int) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"no split file `{path}`",
            hint="name one with task.partition.file; `fp data split -o FILE` writes it",
            where=str(path),
        )
    try:
        with path.open("rb") as file:
            text = file.read(limit_bytes + 1)
        if len(text) > limit_bytes:
            raise _wrong(path, f"is larger than {limit_bytes} bytes", "is this a split?")
        content = json.loads(text)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}", "check its rights") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"is no JSON: {error}", "`fp data split -o FILE` writes one") from error
    if not isinstance(content, dict):
        raise _wrong(path, "is no JSON object", "`fp data split -o FILE` writes one")
    return content


def _indices(path: Path, client: int, part: list[Any], is_taken: np.ndarray[Any, Any]) -> Indices:
    """Return one client's indices and mark them as taken."""
    for index in part:
        # JSON's true and 1.0 are equal to 1, so the type counts.
        if type(index) is not int or not 0 <= index < len(is_taken):
            raise _wrong(
                path,
                f"client {client} has the index {_shorten(index)}",
                f"indices go from 0 to {len(is_taken) - 1}",
            )
        if is_taken[index]:
            raise _wrong(
                path,
                f"client {client} has sample {index}, which is named before",
                "a sample belongs to one client at most",
            )
        is_taken[index] = True
    return np.array(part, dtype=np.int64)


def _shorten(value: Any) -> str:
    """Return a short text for a value of any kind and depth."""
    return str(value)[:80] if isinstance(value, str | int | float) else type(value).__name__


def _wrong(path: Path, problem: str, hint: str) -> DataError:
    return DataError(f"{path}: {problem}", hint=hint, where=str(path))
