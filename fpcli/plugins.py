"""Look things up by name: tables of ours, entry points of other packages, and a user's code."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from fpcli.errors import FpError, NeedError, UsageError, suggest
from fpcli.user_code import describe_failure, locate_failure
from fpcli.version import __version__

TABLES: Mapping[str, str] = {
    "methods": "fpcli.methods:METHODS",
    "pruners": "fpcli.pruning:PRUNERS",
    "audits": "fpcli.audit:AUDITS",
    "models": "fpcli.models:MODELS",
    "datasets": "fpcli.data:DATASETS",
    "scores": "fpcli.scores:SCORES",
    "codecs": "fpcli.wire:CODECS",
    "fleets": "fpcli.fleet:FLEETS",
}
"""Kind of thing -> where its table of ``name -> "module:attribute"`` lives."""

OF_USERS = frozenset({"methods", "pruners", "models", "datasets", "scores"})
"""Kinds that a command line may name code for. Others are never code, whoever names them: codecs
come with the bytes of messages, audits with the result of an earlier call."""

_SINGULAR = {"datasets": "data set", "pruners": "pruning method"}

PATH_PREFIXES = ("npz:", "folder:", "csv:", "ratings:")
"""What a data set starts with that is a path and no name."""

PATH_SUFFIXES: Mapping[str, str] = {
    ".npz": "npz:",
    ".csv": "csv:",
    ".tsv": "csv:",
    ".data": "ratings:",
    ".dat": "ratings:",
}
"""End of a file's name -> which of these it is most likely."""

TORCHVISION = "torchvision:"
"""What a network starts with that is one of torchvision's."""


def is_code(name: str) -> bool:
    """Tell whether a name is code of the user's own, which runs only where a command line names it.

    That is ``module:attribute``: a dotted module and something in it, in Python's letters, with a
    single colon and no space. What starts like a path or a network of torchvision's never is.
    Nothing else decides this, and what is no code by this rule is only ever looked up in a table.

    >>> is_code("nets:small"), is_code("my.nets:small")
    (True, True)
    >>> [is_code(name) for name in ("resnet20-gn@0.5", "torchvision:resnet18", "csv:rows.csv")]
    [False, False, False]
    >>> [is_code(name) for name in ("./nets.py:small", "C:/nets", "a:b:c", "a: b", ":b", "a:0.5")]
    [False, False, False, False, False, False]
    """
    module, _, attribute = name.partition(":")
    is_other = name.startswith((*PATH_PREFIXES, TORCHVISION))
    return not is_other and all(map(str.isidentifier, [*module.split("."), attribute]))


def split_path(name: str) -> tuple[str, str]:
    """Return the kind of a data set that is a path, and the path; of any other "" and its name.

    >>> split_path("folder:pets,size=32"), split_path("digits"), split_path("mine:make")
    (('folder', 'pets,size=32'), ('', 'digits'), ('', 'mine:make'))
    """
    kind, _, path = name.partition(":")
    return (kind, path) if name.startswith(PATH_PREFIXES) else ("", name)


def list_names(kind: str) -> dict[str, str]:
    """Return ``name -> "module:attribute"`` of one kind, ours first, sorted within each."""
    ours: Mapping[str, str] = load_reference(TABLES[kind])
    theirs = _of_other_packages(kind)
    return dict(ours) | {name: theirs[name] for name in sorted(theirs) if name not in ours}


def is_shipped(kind: str, name: str) -> bool:
    """Tell whether a name is one of ours, and neither of another package nor code."""
    return name in load_reference(TABLES[kind])


@cache
def _of_other_packages(kind: str) -> dict[str, str]:
    # Scanning all installed packages takes 10 ms, which plans cannot afford, and importing what
    # scans them as long, which the command line cannot.
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=f"fpcli.{kind}")}


def load_reference(target: str) -> Any:
    """Import ``module:attribute``.

    Raises:
        UsageError: the module cannot be imported, has no such attribute, or raises one itself.
        NeedError: it needs something of fpcli that this version has not.
    """
    module, _, attribute = target.partition(":")
    try:
        thing = getattr(importlib.import_module(module), attribute, None)
    except UsageError:  # a class body that ours refuses says itself what is wrong
        raise
    except Exception as error:  # a user's module may fail in any way
        raise _unusable(target, module, error) from error
    if thing is None:
        written = {name: f"{module}:{name}" for name in vars(sys.modules[module]) if name[0] != "_"}
        raise UsageError(
            f"module `{module}` has no `{attribute}`",
            hint=suggest(attribute, written, written) or f"in `{target}`",
        )
    return thing


def _unusable(target: str, module: str, error: Exception) -> FpError:
    if (lost := _find_lost(error)) and not _is_ours(module):
        return NeedError(
            f"`{module}` was written for another version of fpcli: {lost} is not in {__version__}",
            hint="CHANGELOG.md tells what changed, README.md (Adding a method) what holds now; "
            f"update `{module}`, or install the fpcli that it was written for",
            where=target,
        )
    hint = "the module must be importable from the current folder"
    if locate_failure(error):
        hint = "mend that line; `--debug` shows the whole traceback"
    if module.endswith(".py"):
        hint = f"write `{_rewrite_code(target)}`: a module's name has no suffix"
    return UsageError(
        f"cannot import `{module}` of `{target}`: {describe_failure(error)}",
        hint=hint,
    )


def _find_lost(error: Exception) -> str:
    """Return what of fpcli was not there when it was imported or used, or "" if it was not that."""
    if isinstance(error, ModuleNotFoundError) and _is_ours(error.name):
        return f"`{error.name}`"
    if isinstance(error, ImportError) and _is_ours(error.name):
        name = re.match(r"cannot import name '(\w+)'", str(error))
        return f"`{name[1]}` of `{error.name}`" if name else ""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        module = error.obj.__name__
        return f"`{error.name}` of `{module}`" if _is_ours(module) else ""
    return ""


def _is_ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "fpcli"


def find_reference(kind: str, name: str) -> str:
    """Return the ``module:attribute`` that is registered under ``name``, or ``name`` if it is one.

    Raises:
        UsageError: nothing has that name; the hint gives the nearest one.
    """
    if kind in OF_USERS and is_code(name):
        return name
    table = list_names(kind)
    if name not in table:
        raise UsageError(
            f"unknown {_SINGULAR.get(kind, kind.removesuffix('s'))} `{name}`",
            hint=suggest_name(kind, name, table),
        )
    return table[name]


def suggest_name(
    kind: str, name: str, names: Iterable[str], written: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return a hint on a name that is none of a kind's: code or a path in other words, the nearest
    name, or all names.

    Args:
        names: that could be meant; these and ``written`` as for :func:`errors.suggest`.
    """
    meant = _rewrite_code(name) if kind in OF_USERS else ""
    if kind == "datasets":
        meant = meant or _rewrite_path(name)
    if meant:
        return f"did you mean `{meant}`?"
    return suggest(name, names, written) or f"known: {', '.join(list_names(kind))}"


def _rewrite_code(name: str) -> str:
    """Return ``module:attribute`` for what else names a file of Python in the current folder.

    >>> _rewrite_code("./nets/mine.py:small"), _rewrite_code("a.py:b"), _rewrite_code("lenet")
    ('nets.mine:small', 'a:b', '')
    """
    path, colon, attribute = name.partition(":")
    parts = path.removeprefix("./").removesuffix(".py").replace("/", ".").split(".")
    if not path.endswith(".py") and not _is_file(parts):
        if colon or not _is_file(parts[:-1]):
            return ""
        *parts, attribute = parts
    target = f"{'.'.join(parts)}:{attribute or 'FUNCTION'}"
    return target if is_code(target) else ""


def _is_file(parts: Sequence[str]) -> bool:
    return Path(*parts[:-1], f"{parts[-1]}.py").is_file() if parts else False


def _rewrite_path(name: str) -> str:
    """Return the data set that a bare path names, by its suffix or as the folder that it is.

    >>> _rewrite_path("x.npz"), _rewrite_path("./t.csv,missing=mean"), _rewrite_path("imgs/")
    ('npz:x.npz', 'csv:./t.csv,missing=mean', 'folder:imgs/')
    """
    path = Path(name.partition(",")[0])
    if prefix := PATH_SUFFIXES.get(path.suffix.lower()):
        return f"{prefix}{name}"
    return f"folder:{name}" if "/" in name or path.is_dir() else ""


def lookup(kind: str, name: str) -> Any:
    """Return the object that is registered under ``name``, or that is code (see ``OF_USERS``).

    Raises:
        UsageError: nothing has that name, or it cannot be imported.
        NeedError: see :func:`load_reference`.
    """
    return load_reference(find_reference(kind, name))
