"""Names of runs: what a recipe is called, and what to type where a name is taken."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpcli.errors import RecipeError, UsageError
from fpcli.plugins import split_path
from fpcli.recipe.load import (
    NOT_IN_DIGEST,
    choose_command,
    compare_recipes,
    flatten,
    load_recipe,
    read_stored,
)
from fpcli.settings.recipes import AnyRecipe, FitRecipe, Recipe, code_words

AUTO = "auto"
"""The name that stands for the usual one, numbered if it is taken."""
_LONGEST = 100
_CHOSEN_LATER: Mapping[str, Any] = {"task.augment": "auto", "threads": 0, "method.ratio": "auto"}
"""Values in whose place a begun run has what was chosen when it began."""
_SPELLED_OUT = ("task.partition.kind", "fleet.profile")


def choose_name(recipe: Recipe | FitRecipe) -> str:
    """Return ``METHOD-DATA-MODEL-PARTITION-FLEET-DIGEST-sSEED``, the same for the same recipe.

    Partition and fleet stand there unless they are the usual ones, and six hex digits if anything
    else that decides the trained bits is not. The method of plain training is ``fit``. All are
    letters, digits, ``_``, ``.`` and ``-``, at most 100 of them.
    """
    task, flags = recipe.task, {"task.data": recipe.task.data, "task.model": recipe.task.model}
    method = "fit"
    if isinstance(recipe, Recipe):
        method = flags["method.name"] = recipe.method.name
    usual = load_recipe(None, flags=flags, cls=type(recipe))  # type: ignore[type-var]
    changed = {key: value for key, (value, _) in compare_recipes(recipe, usual).items()}
    others = {
        key: value
        for key, value in changed.items()
        if key not in {*NOT_IN_DIGEST, *_SPELLED_OUT, "seed"}
    }
    kind, data = split_path(task.data)
    head = "-".join(map(_simplify, (method, f"{kind}-{_stem(data)}" if kind else data, task.model)))
    tail = [_simplify(_stem(changed[key]))[:30] for key in _SPELLED_OUT if key in changed]
    if others:
        text = json.dumps(others, sort_keys=True)
        tail.append(hashlib.sha256(text.encode()).hexdigest()[:6])
    end = "-".join(["", *tail, f"s{recipe.seed}"])
    return head[: _LONGEST - len(end)].rstrip("-.") + end


def _stem(path: str) -> str:
    return Path(path).stem


def _simplify(word: str) -> str:
    return re.sub(r"[^\w.]+", "-", word).strip("-.")


def number_name(runs_dir: Path, name: str) -> str:
    """Return a name, or where it is taken the first of ``NAME-2``, ``NAME-3``, ... that is not."""
    number, free = 1, name
    while (runs_dir / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free


def explain_taken(path: Path, recipe: AnyRecipe, command: str = "") -> UsageError:
    """Return the error of a new run whose folder is there already.

    Args:
        path: that folder, of an earlier run or whatever else.
        recipe: of the new run.
        command: the one that goes on with such a run; none means what its recipe says.
    """
    other = f"`--name {number_name(path.parent, path.name)}`"
    hint = f"choose another name, such as {other}"
    stored, wanted = _read_earlier(path), flatten(recipe)
    changed = {
        key: value
        for key, value in wanted.items()
        if key in stored and value not in (stored[key], _CHOSEN_LATER.get(key, stored[key]))
    }
    is_alike = choose_command(stored) == choose_command(wanted)
    if stored and is_alike and changed.keys() <= NOT_IN_DIGEST:
        again = f"fp {command or choose_command(wanted)} --resume {shlex.quote(str(path))}"
        again += f"{_set_words(changed)}{code_words(recipe)}"
        hint = f"it has the same recipe: go on with `{again}`, or make another by {other}"
    elif stored:
        keys = [key for key in changed if key not in NOT_IN_DIGEST]
        shown = ", ".join(keys[:3] + ["..."] * (len(keys) > 3)) if is_alike else "another command"
        hint = (
            f"it has another recipe ({shown}): take {other}, let `--name {AUTO}` find one, "
            "or replace it with `--force`"
        )
    return UsageError(f"run name `{path.name}` is taken: {path} exists", hint=hint, where="--name")


def _read_earlier(path: Path) -> dict[str, Any]:
    """Return the recipe of the run in a folder; empty if there is none that can be read."""
    file = path / "recipe.yaml"
    try:
        return read_stored(file) if file.is_file() else {}
    except RecipeError:
        return {}


def _set_words(changed: Mapping[str, Any]) -> str:
    pairs = (
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in changed.items()
    )
    return "".join(f" --set {shlex.quote(pair)}" for pair in pairs)
