"""Settings of runs side by side: what is not written counts as its default, and what sets them
apart."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fpcli import plugins
from fpcli.errors import FpError
from fpcli.recipe.load import choose_command
from fpcli.settings.declared import describe
from fpcli.settings.keys import list_leaves
from fpcli.settings.recipes import RECIPE_KINDS
from fpcli.settings.tasks import FitTask

RunSettings = Mapping[str, Any]


def fill_defaults(settings: RunSettings) -> dict[str, Any]:
    """Return settings with the default of every key that an earlier version did not write, and
    with the ``command`` that they are for."""
    command = choose_command(settings)
    usual = _read_defaults(command)
    method = str(settings.get("method.name", usual.get("method.name")))
    filled = {**usual, **_read_options(command, method), **settings, "command": command}
    if filled.get("task.augment") == "auto":
        task = FitTask(data=str(filled["task.data"]))
        filled["task.augment"] = task.decide_augment()
    return filled


@functools.cache
def _read_defaults(command: str) -> RunSettings:
    return _to_plain(
        {key: leaf.default for key, leaf in list_leaves(RECIPE_KINDS[command]).items()}
    )


@functools.cache
def _read_options(command: str, method: str) -> RunSettings:
    """Return the options of a registered method with their defaults; none of the user's own code,
    nor of another package that is broken."""
    kind = "pruners" if command == "prune" else "methods"
    if method not in plugins.list_names(kind):
        return {}
    try:
        options = list_leaves(describe(kind, method).Options, "method.")
    except FpError:
        return {}
    return _to_plain({key: leaf.default for key, leaf in options.items()})


def _to_plain(values: RunSettings) -> RunSettings:
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def list_differences(rows: Sequence[RunSettings], base: int) -> list[dict[str, Any]]:
    """Return for each row the settings that it does not share with row ``base``, whose own are its
    values of all these.

    Rows for other commands share the task with it, and nothing else: of their own sections they
    have what differs between rows for the same command.

    Args:
        rows: of :func:`fill_defaults`, perhaps less keys that do not count.
    """
    differing: list[dict[str, Any]] = [{} for _ in rows]
    commands = [row["command"] for row in rows]
    for command in dict.fromkeys(commands):
        members = [number for number, other in enumerate(commands) if other == command]
        is_base = commands[base] == command
        first = base if is_base else members[0]
        for number in members:
            differing[number] |= _subtract(rows[number], rows[first], is_task=is_base)
        for number in [base] if is_base else members:
            _mirror(differing, rows[number], number, members)
    for number, row in enumerate(rows):
        if row["command"] != commands[base]:
            shared = {key: value for key, value in row.items() if key in rows[base]}
            shared = {k: v for k, v in shared.items() if k == "command" or k.startswith("task.")}
            others = {key: value for key, value in differing[number].items() if key not in shared}
            differing[number] = {k: v for k, v in shared.items() if rows[base][k] != v} | others
    _mirror(differing, rows[base], base, range(len(rows)))
    return differing


def _mirror(
    differing: Sequence[dict[str, Any]], row: RunSettings, number: int, others: Sequence[int]
) -> None:
    """Give a row its values of all settings in which others differ from it."""
    keys = dict.fromkeys(key for other in others for key in differing[other])
    differing[number].update({key: row[key] for key in keys if key in row})


def _subtract(theirs: RunSettings, ours: RunSettings, *, is_task: bool) -> dict[str, Any]:
    """Return what differs from the reference; of another method's options, what is no default."""
    base = ours
    if ours.get("method.name") != theirs.get("method.name"):
        base = {k: v for k, v in ours.items() if not k.startswith("method.") or k == "method.name"}
        base |= _read_options(theirs["command"], str(theirs.get("method.name")))
    differs = {k: v for k, v in theirs.items() if k not in base or base[k] != v}
    return {k: v for k, v in differs.items() if is_task or not k.startswith("task.")}
