"""Look into a `.pt2` file before torch opens it, since torch would run any pickle inside.

A `.pt2` is a program all the same: whoever runs one trusts its author. But nothing may run already
because a file was opened.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch

_LIMIT_BYTES = 4 * 2**30


def check_archive(path: Path) -> None:
    """Make sure that a file holds a graph and plain tensors, and no object that code would build.

    Raises:
        ValueError: it is no such archive, or holds something else.
    """
    if path.stat().st_size > _LIMIT_BYTES:
        raise ValueError(f"it is larger than {_LIMIT_BYTES // 2**30} GiB")
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                _check_entry(archive, entry)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is no archive: {error}") from error


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"`{entry.filename}` is compressed")  # torch writes none; a bomb would be
    name = entry.filename
    if name.endswith(".pt"):
        try:
            # The very call by which torch reads them; where it fails, torch runs the pickle.
            torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
        except Exception as error:  # a wrong file makes the reader raise almost anything
            raise ValueError(f"`{name}` is more than tensors") from error
    elif name.endswith(("weights_config.json", "constants_config.json")):
        for key, about in json.loads(archive.read(entry))["config"].items():
            is_plain = about["path_name"].startswith(("weight_", "tensor_"))
            if about["use_pickle"] or not is_plain:
                raise ValueError(f"`{key}` is a pickle")
