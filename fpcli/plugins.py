"""Look things up by name: lazy tables of ours, and entry points of other packages."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from fpcli.errors import UsageError, nearest

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


def names(kind: str) -> dict[str, str]:
    """Return ``name -> "module:attribute"`` of one kind, ours first, sorted within each."""
    ours: Mapping[str, str] = load(TABLES[kind])
    theirs = _of_other_packages(kind)
    return dict(ours) | {name: theirs[name] for name in sorted(theirs) if name not in ours}


@cache
def _of_other_packages(kind: str) -> dict[str, str]:
    # Scanning all installed packages takes 10 ms, which plans cannot afford.
    return {point.name: point.value for point in entry_points(group=f"fpcli.{kind}")}


def load(target: str) -> Any:
    """Import ``module:attribute``.

    Raises:
        UsageError: the module cannot be imported or has no such attribute.
    """
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a user's module may fail in any way
        raise UsageError(
            f"cannot import `{module}` of `{target}`: {type(error).__name__}: {error}",
            hint="the module must be importable from the current folder",
        ) from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise UsageError(
            f"module `{module}` has no `{attribute}`", hint=f"in `{target}`"
        ) from error


def reference(kind: str, name: str) -> str:
    """Return the ``module:attribute`` that is registered under ``name``, or ``name`` if it is one.

    Raises:
        UsageError: nothing has that name; the hint gives the nearest one.
    """
    if ":" in name:
        return name
    table = names(kind)
    if name not in table:
        singular = kind.removesuffix("s")
        raise UsageError(
            f"unknown {singular} `{name}`",
            hint=nearest(name, table) or f"known: {', '.join(table)}",
        )
    return table[name]


def lookup(kind: str, name: str) -> Any:
    """Return the object that is registered under ``name``, or that ``module:attribute`` names."""
    return load(reference(kind, name))
