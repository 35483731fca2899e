"""Copy a `.pt2` file into memory without anything that torch would run already by opening it.

Torch opens such a file trustingly: it falls back to pickles, loads compiled libraries, and lets
sympy evaluate the formulas of sizes. So only what ``torch.export.save`` itself writes is let
through, into a fresh archive, since two readers of one archive may not see the same entries. A
`.pt2` is a program all the same: whoever runs one trusts its author.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

_LIMIT_BYTES = 4 * 2**30
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|"
    r"models/model\.json|data/sample_inputs/model\.pt|"
    r"data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|extra/[\w.]+"
)
_OPERATOR = re.compile(
    r"torch\.ops\.\w+\.[\w.]+|torch\.sym_\w+|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
_FORMULA = re.compile(
    r"(Symbol\('[su]\d+'(, \w+=(True|False))*\)|(Add|Mul|Mod|FloorDiv|Max|Min|Integer)\(|"
    r"[(), \d-])*"
)


def read_archive(path: Path) -> io.BytesIO:
    """Return a graph and its tensors as an archive of their own.

    Raises:
        ValueError: the file is no such archive, or holds something else.
    """
    if path.stat().st_size > _LIMIT_BYTES:
        raise ValueError(f"it is larger than {_LIMIT_BYTES // 2**30} GiB")
    copy, roots, seen = io.BytesIO(), set(), set()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as out:
            for entry in archive.infolist():
                root, _, name = entry.filename.partition("/")
                if entry.compress_type != zipfile.ZIP_STORED or not _KNOWN.fullmatch(name):
                    raise ValueError(f"`{entry.filename}` has no place in it")
                roots.add(root)
                # Without regard to case, as torch looks them up.
                if name.lower() in seen or len(roots) > 1:
                    raise ValueError(f"`{entry.filename}` is there twice")
                seen.add(name.lower())
                data = archive.read(entry)
                _check(name, data)
                out.writestr(zipfile.ZipInfo(entry.filename), data)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is no archive: {error}") from error
    copy.seek(0)
    return copy


def _check(name: str, data: bytes) -> None:
    if name.endswith(".pt"):
        try:
            # The very call by which torch reads them; where it fails, torch runs the pickle.
            torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:  # a wrong file makes the reader raise almost anything
            raise ValueError(f"`{name}` is more than tensors") from error
    elif name.endswith("_config.json"):
        for key, about in json.loads(data)["config"].items():
            is_plain = about["path_name"].startswith(("weight_", "tensor_"))
            if about["use_pickle"] or not is_plain:
                raise ValueError(f"`{key}` is a pickle")
    elif name.endswith(".json"):
        _check_graph(json.loads(data))


def _check_graph(graph: Any) -> None:
    """Make sure that there is nothing in a graph that torch would evaluate, or call, but operators.

    Raises:
        ValueError: there is.
    """
    if isinstance(graph, dict):
        if graph.get("guards_code"):
            raise ValueError("it holds Python code")
        formula = graph.get("expr_str", "")
        if not isinstance(formula, str) or not _FORMULA.fullmatch(formula):
            raise ValueError(f"`{str(formula)[:60]}` is no size")
        target = graph.get("target")
        if {"target", "inputs", "outputs"} <= graph.keys() and not _OPERATOR.fullmatch(str(target)):
            raise ValueError(f"`{str(target)[:60]}` is no operator")
    for item in graph.values() if isinstance(graph, dict) else graph:
        if isinstance(item, dict | list):
            _check_graph(item)
