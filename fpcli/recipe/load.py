"""Read and write recipes: YAML, ``--set`` and flags in, a checked Recipe out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

from fpcli import models
from fpcli.errors import RecipeError, UsageError, suggest
from fpcli.recipe.fleet_file import is_fleet_file, read_fleet
from fpcli.recipe.resolve import SECTIONS, Setting, resolve
from fpcli.recipe.yaml_file import compose, construct, is_null, iterate_pairs, to_plain
from fpcli.settings.keys import collect_flags
from fpcli.settings.recipes import RECIPE_KINDS, AnyRecipe, FitRecipe, PruneRecipe, Recipe

_R = TypeVar("_R", Recipe, FitRecipe, PruneRecipe)

NOT_IN_DIGEST = frozenset(
    {
        "executor.kind",
        "executor.workers",
        "executor.client_timeout_s",
        "task.data_dir",
        "checkpoint_every",
        "eval_clients",
        "rounds",
        "target",
    }
)
"""Keys that decide where and how long a run computes, but not what."""

_OLD_TARGET = "target_accuracy"

_NOT_WHILE_USUAL: Mapping[str, Any] = {
    "task.kind": "auto",
    "task.loss": "auto",
    "task.sampled_negatives": 0,
    "task.normalise": "auto",
    "local.optimizer": "sgd",
    "fit.optimizer": "sgd",
    "retrain.optimizer": "sgd",
    "task.start": "",
    "task.head": "kept",
    "task.withhold": [],
    "task.server_share": 0.0,
    "task.server_samples": 0,
    "fleet.server": "server",
}
"""Keys that are no part of a digest while they have this value, since digests of earlier versions
lack them."""


def load_recipe(
    path: Path | None,
    overrides: Sequence[tuple[str, str]] = (),
    flags: Mapping[str, Any] = MappingProxyType({}),
    *,
    cls: type[_R] = Recipe,  # type: ignore[assignment]
    overlay: Path | None = None,
) -> _R:
    """Return the recipe that a file, ``--set`` and flags describe together.

    A flag wins over ``--set``, that over the file, the file over the defaults. When the command
    line names another method than the file does, the file's method options are left out. A fleet
    file is read, from the recipe's folder if the recipe names it.

    Args:
        path: the recipe file, or None for the defaults.
        overrides: dotted key and text of each ``--set``.
        flags: dotted key -> value, or a setting where the flag has a name of its own; None means
            that it was not given.
        cls: kind of recipe.
        overlay: a second file whose method, number of rounds and keys of ``local`` win over those
            of the first; the rest of it does not count.

    Raises:
        RecipeError: something in the file is wrong; the message starts with ``FILE:LINE``.
        UsageError: something on the command line is wrong; the message starts with the option.
    """
    written = read_settings(path) if path is not None else {}
    if overlay is not None:
        written = _overlay(written, read_settings(overlay))
    overridden = _rename({key: _override(key, text) for key, text in overrides})
    options = collect_flags(cls)
    for key, value in flags.items():
        if isinstance(value, Setting):
            overridden[key] = value
        elif value is not None:
            text = str(value) if isinstance(value, Path) else value
            place = options[key].name if key in options else f"--set {key}"
            overridden[key] = Setting(text, place, is_in_file=False)
    if {"method.name"} <= written.keys() & overridden.keys() and (
        written["method.name"].value != overridden["method.name"].value
    ):
        written = {key: item for key, item in written.items() if not key.startswith("method.")}
    if "fleet.profile" in overridden:
        written.pop("fleet.devices", None)
    settings = written | overridden
    fleet = settings.get("fleet.profile")
    if fleet is not None and is_fleet_file(fleet.value) and "fleet.devices" not in settings:
        folder = path.parent if fleet.is_in_file and path is not None else Path()
        file = folder / Path(fleet.value).expanduser()
        # The recipe holds what stands in the file, which may change or go.
        settings["fleet.devices"] = dataclasses.replace(fleet, value=read_fleet(file))
        settings["fleet.profile"] = dataclasses.replace(fleet, value=file.name)
    recipe = resolve(settings, models.DEFAULT_MODEL, cls)
    assert isinstance(recipe, cls)
    return recipe


def _overlay(below: dict[str, Setting], above: Mapping[str, Setting]) -> dict[str, Setting]:
    if "method.name" in above:
        below = {key: item for key, item in below.items() if not key.startswith("method.")}
    wanted = {
        k: v for k, v in above.items() if k == "rounds" or k.startswith(("method.", "local."))
    }
    return below | wanted


def find_command(path: Path) -> str:
    """Return the command that a recipe file is for: its section ``fit`` or ``prune``, or ``train``.

    Raises:
        RecipeError: it cannot be read.
    """
    return choose_command(read_settings(path))


def choose_command(keys: Iterable[str]) -> str:
    """Return the command that a recipe with some dotted keys is for."""
    sections = {key.partition(".")[0] for key in keys}
    return next((command for command in ("fit", "prune") if command in sections), "train")


def load_any(path: Path) -> tuple[str, AnyRecipe]:
    """Return the command that a recipe file is for, and the recipe.

    Raises:
        RecipeError: something in the file is wrong.
    """
    command = find_command(path)
    return command, load_recipe(path, cls=RECIPE_KINDS[command])  # type: ignore[type-var]


def _override(key: str, text: str) -> Setting:
    setting = Setting(text, f"--set {key}={text}", is_in_file=False)
    if not text.startswith("["):
        return setting
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return dataclasses.replace(setting, value=to_plain(node, setting.place))
    except (yaml.YAMLError, RecipeError, RecursionError) as error:
        raise setting.error(f"`{key}` is not a list", "write it like `[1, 0.5]`") from error


def read_settings(path: Path) -> dict[str, Setting]:
    """Return dotted key -> what a file says, unchecked; no code in it runs.

    Raises:
        RecipeError: the file cannot be read, or is no mapping of plain values.
    """
    root = compose(path, "recipe")
    return {} if root is None else _rename(_read(root, path))


def _rename(settings: dict[str, Setting]) -> dict[str, Setting]:
    """Return settings with old keys under their new names."""
    if (old := settings.pop(_OLD_TARGET, None)) is not None:
        warnings.warn(
            f"{old.place}: `{_OLD_TARGET}` is `target: {{accuracy: X}}` now; the old key is read "
            "until version 0.3.0",
            FutureWarning,
            stacklevel=2,
        )
        settings.setdefault("target", dataclasses.replace(old, value=_new_target(old.value)))
    return settings


def _new_target(value: Any) -> dict[str, Any]:
    return {} if value in (None, "null") else {"accuracy": value}


def _read(root: yaml.Node, path: Path) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for key, setting in _settings(root, path):
        if key in settings:
            raise setting.error(f"key `{key}` stands twice", "keep one of them")
        settings[key] = setting
    return settings


def _settings(node: yaml.Node, path: Path, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield dotted key and setting of every value below a section."""
    section = prefix.removesuffix(".")
    if not isinstance(node, yaml.MappingNode):
        if prefix and is_null(node):
            return
        place = f"{path}:{node.start_mark.line + 1}"
        name = f"`{section}`" if section else "a recipe"
        raise RecipeError(
            f"{place}: {name} must be a mapping of `key: value` lines",
            where=place,
            hint=f"for example `{section or 'task'}: {{KEY: VALUE}}`",
        )
    for key, value, line in iterate_pairs(node, str(path)):
        dotted = prefix + key
        if dotted in SECTIONS:
            yield from _settings(value, path, f"{dotted}.")
        else:
            yield dotted, Setting(to_plain(value, str(path)), f"{path}:{line}", is_in_file=True)


def to_yaml(recipe: AnyRecipe) -> str:
    """Return a recipe with every key written out; loading it gives an equal recipe."""
    # ASCII only: PyYAML loses line breaks such as U+0085 when it writes them as they are.
    return yaml.safe_dump(_nest(recipe), sort_keys=False, width=10_000)


def _nest(recipe: AnyRecipe) -> dict[str, Any]:
    nested = dataclasses.asdict(recipe)
    if isinstance(recipe, Recipe | PruneRecipe):
        nested["method"] = {"name": recipe.method.name} | nested["method"]["options"]
    plain: dict[str, Any] = json.loads(json.dumps(nested))
    return plain


def flatten(recipe: AnyRecipe) -> dict[str, Any]:
    """Return dotted key -> plain value (lists for tuples), in the order of the schema."""
    return dict(_walk(_nest(recipe), ""))


def _walk(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        dotted = f"{prefix}{key}"  # a key of a stranger's file may be a number
        if dotted in SECTIONS and isinstance(value, Mapping):
            yield from _walk(value, f"{dotted}.")
        else:
            yield dotted, value


def read_stored(path: Path) -> dict[str, Any]:
    """Return dotted key -> plain value of a run's recipe, of whatever version of fpcli.

    Nothing is looked up or checked against the schema, so that runs of methods, models or data
    that are not installed here can be read too.

    Raises:
        RecipeError: the file is no recipe at all.
    """
    root = compose(path, "recipe")
    if root is None:
        return {}
    _read(root, path)  # refuses what has no sections
    settings = dict(_walk(construct(root, path), ""))
    if _OLD_TARGET in settings:
        settings.setdefault("target", _new_target(settings.pop(_OLD_TARGET)))
    return settings


def compare_recipes(a: AnyRecipe, b: AnyRecipe) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> both values where two recipes differ; None where one has no such key."""
    left, right = flatten(a), flatten(b)
    keys = [*left, *(key for key in right if key not in left)]
    return {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}


def digest_recipe(recipe: AnyRecipe) -> str:
    """Return the hex SHA-256 of everything in a recipe that decides the trained bits."""
    deciding = {
        key: value
        for key, value in flatten(recipe).items()
        if key not in NOT_IN_DIGEST
        and not (key in _NOT_WHILE_USUAL and value == _NOT_WHILE_USUAL[key])
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _find_shipped() -> Path | None:
    package = Path(__file__).parents[1]
    if (package / "recipes").is_dir():
        return package / "recipes"
    # An editable install; the check keeps a stranger's `site-packages/recipes` out.
    beside = package.parent / "recipes"
    return beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else None


def list_shipped() -> list[Path]:
    """Return the recipes that come with fpcli, sorted."""
    root = _find_shipped()
    return sorted(root.rglob("*.yaml")) if root else []


def name_shipped() -> dict[str, Path]:
    """Return name (``fedmp/digits``) -> file of the recipes that come with fpcli."""
    root = _find_shipped() or Path()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in list_shipped()}


def find_recipe(name_or_path: str) -> Path:
    """Return an existing file, or the shipped recipe of that name (``fedmp/digits``), of which the
    part behind the slash will do where only one ends so (``tiny``).

    Raises:
        UsageError: neither exists.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = name_shipped()
    name = name_or_path.removesuffix(".yaml")
    meant = [name] if name in names else [full for full in names if full.endswith(f"/{name}")]
    if len(meant) == 1:
        return names[meant[0]]
    listed = f"shipped: {', '.join(names)}" if names else "give the path of a YAML file"
    raise UsageError(
        f"no recipe `{name_or_path}`: neither a file nor a shipped recipe",
        hint=suggest(name, names) or listed,
        where=name_or_path,
    )
