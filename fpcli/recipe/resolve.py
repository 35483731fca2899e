"""From single settings, each of which knows where it was written, to a checked Recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fpcli import plugins
from fpcli.data.normalise import read_normalise
from fpcli.errors import FpError, RecipeError, UsageError, suggest
from fpcli.fleet.server_hardware import find_server
from fpcli.models.names import find_model_name
from fpcli.settings.declared import describe
from fpcli.settings.fields import describe_type, is_share
from fpcli.settings.flags import Flag
from fpcli.settings.keys import Leaf, collect_flags, list_leaves, list_sections
from fpcli.settings.learning import MethodChoice
from fpcli.settings.metrics import find_metric, parse_target
from fpcli.settings.recipes import RECIPE_FORMAT, RECIPE_KINDS, AnyRecipe, PruneRecipe, Recipe
from fpcli.units import parse_share, share_hint

SECTIONS = tuple(
    dict.fromkeys(name for cls in RECIPE_KINDS.values() for name in list_sections(cls))
)
_MAY_BE_CODE = ("task.model", "task.data", "method.name")
_ALL_KEYS = "`fp recipe schema` lists all keys"
_FINITE = ConfigDict(allow_inf_nan=False)
_RANGES = {
    "greater_than_equal": ">= {ge:g}",
    "greater_than": "> {gt:g}",
    "less_than_equal": "<= {le:g}",
    "less_than": "< {lt:g}",
}


@dataclass(frozen=True)
class Setting:
    """A value as it was written, and where.

    Attributes:
        value: text, None, or lists and mappings of these; from a flag also a typed value.
        place: ``FILE:LINE``, or the option on the command line.
        is_in_file: False for the command line.
    """

    value: Any
    place: str
    is_in_file: bool

    def error(self, message: str, hint: str = "") -> FpError:
        """Return the error for a wrong setting; it starts with its place."""
        kind = RecipeError if self.is_in_file else UsageError
        return kind(f"{self.place}: {message}", hint=hint, where=self.place)


def resolve(
    settings: Mapping[str, Setting], default_models: Mapping[str, str], cls: type[AnyRecipe]
) -> AnyRecipe:
    """Check settings by dotted key, and fill in everything that was not said.

    Args:
        settings: dotted key -> setting.
        default_models: data set -> network, for when no network was said.
        cls: kind of recipe.

    Raises:
        RecipeError: a setting from a file is wrong.
        UsageError: a setting from the command line is wrong.
    """
    _check_format(settings.get("recipe"))
    _refuse_code(settings, collect_flags(cls))
    leaves = list_leaves(cls)
    usual: dict[str, Setting] = {}
    if "method.name" in leaves:
        kind = "pruners" if cls is PruneRecipe else "methods"
        method = _method(kind, settings.get("method.name"), leaves["method.name"].default)
        leaves |= list_leaves(method.Options, "method.")
        usual = {
            key: Setting(value, f"default of `{method.__name__}`", is_in_file=False)
            for key, value in getattr(method, "defaults", {}).items()
        }
    values = _check({**usual, **settings}, leaves)
    _check_names(settings, values)
    if not values["task.model"]:
        values["task.model"] = _default_model(values["task.data"], settings, default_models)
    recipe: AnyRecipe = _build(cls, "", values)
    if isinstance(recipe, Recipe):
        _check_counts(settings, values)
    if isinstance(recipe, Recipe | PruneRecipe):
        _check_options(method.Options, recipe.method, settings)
    return recipe


def _check_format(setting: Setting | None) -> None:
    # Before anything else: a newer recipe may hold keys that this version cannot know.
    text = "" if setting is None else str(setting.value)
    if setting is not None and text.isdecimal() and int(text) > RECIPE_FORMAT:
        raise setting.error(
            f"recipe format {text} is newer than this version reads ({RECIPE_FORMAT})",
            "update with `pip install -U fpcli`",
        )


def _refuse_code(settings: Mapping[str, Setting], flags: Mapping[str, Flag]) -> None:
    """Refuse a file that names code, which runs only where the command line names it.

    Whatever option a method has may be a name that it looks up, so all of them are read.
    """
    for key, setting in settings.items():
        if not setting.is_in_file or not (key in _MAY_BE_CODE or key.startswith("method.")):
            continue
        for value in setting.value if isinstance(setting.value, list) else [setting.value]:
            if plugins.is_code(str(value)):
                flag = f"{flags[key].name} " if key in flags else f"--set {key}="
                raise setting.error(
                    f"a recipe may not name code: `{value}`",
                    f"if you trust it, say it on the command line: `{flag}{value}`",
                )


def _method(kind: str, setting: Setting | None, default: str) -> Any:
    if setting is None:
        return describe(kind, default)
    name = _name(kind, setting)
    method = describe(kind, name)
    if not is_dataclass(getattr(method, "Options", None)):
        raise setting.error(f"`{name}` is not a method: it has no data class `Options`")
    return method


def _check(settings: Mapping[str, Setting], leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    values = {key: leaf.default for key, leaf in leaves.items()}
    for key, setting in settings.items():
        if key in SECTIONS:
            raise setting.error(f"`{key}` is a section, not a value", f"name a key: {key}.KEY")
        if key not in leaves:
            raise setting.error(f"unknown key `{key}`", _suggestion(key, leaves) or _ALL_KEYS)
        values[key] = check_value(key, leaves[key], setting)
    for key, value in values.items():
        if value is MISSING:
            raise RecipeError(f"`{key}` must be given", hint=f"`--set {key}=VALUE`", where=key)
    return values


def check_value(key: str, leaf: Leaf, setting: Setting) -> Any:
    """Convert what was written to the type of its key; a share may be written in percent.

    Raises:
        RecipeError: in a file, a value of the wrong type or out of range.
        UsageError: the same on the command line.
    """
    raw = setting.value
    if get_origin(leaf.hint) is Mapping:
        return read_target(key, setting)
    if raw in ("null", "none", "~") and type(None) in get_args(leaf.hint):
        return None
    try:
        value = _without_percent(raw) if is_share(leaf.hint) else raw
        return TypeAdapter(leaf.hint, config=_FINITE).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
    text = describe_type(leaf.hint)
    wanted = f"a {text}" if text.startswith(("number", "whole", "list")) else text
    if problem["type"] in _RANGES and not problem["loc"]:
        wanted = _RANGES[problem["type"]].format(**problem["ctx"])
    shown = "null" if raw is None else "a mapping" if isinstance(raw, Mapping) else raw
    hint = suggest(str(raw), text.removeprefix("one of ").split(", ")) if "one of" in text else ""
    if isinstance(raw, str) and re.fullmatch(r"\d+,\d+", raw):
        hint = f"write `{raw.replace(',', '.')}`"
    elif is_share(leaf.hint) and not isinstance(raw, list | tuple | Mapping):
        hint = hint or share_hint(str(raw))
    raise setting.error(f"`{key}` must be {wanted}, got {shown}", hint)


def read_target(key: str, setting: Setting) -> dict[str, float]:
    """Return metric -> value of a mapping, or of text such as ``acc=0.9,mrr=0.1``.

    Raises:
        RecipeError: it is neither, from a file.
        UsageError: the same on the command line.
    """
    raw, target, hint = setting.value, {}, ""
    try:
        raw = {} if raw in (None, "null", "none") else raw
        pairs = parse_target(raw) if isinstance(raw, str) else dict(raw)
        for name, text in pairs.items():
            metric = find_metric(str(name))
            hint = share_hint(str(text)) if metric.is_share else ""
            value = parse_share(text) if isinstance(text, str) and "%" in text else float(text)
            if not math.isfinite(value) or (metric.is_share and not 0 < value <= 1):
                raise ValueError
            target[metric.name] = value
    except UsageError as error:
        raise setting.error(f"`{key}`: {error.message}", error.hint) from error
    except (TypeError, ValueError) as error:
        hint = hint or "metrics with values, `accuracy=0.9`; shares are above 0 and at most 1"
        raise setting.error(f"`{key}` must be a metric and a number, got {raw}", hint) from error
    return target


def _without_percent(raw: Any) -> Any:
    """Return a share, or shares, in percent as fractions, and everything else as it is."""
    if isinstance(raw, list | tuple):
        return [_without_percent(item) for item in raw]
    try:
        return parse_share(raw) if isinstance(raw, str) and "%" in raw else raw
    except ValueError:
        return raw


def _suggestion(key: str, leaves: Mapping[str, Leaf]) -> str:
    section, _, last = key.rpartition(".")
    names = [*reversed([*leaves])]  # the first of a name wins
    groups = [
        {word.rpartition(".")[2]: word for word in names if word.startswith(f"{section}.")},
        {word.rpartition(".")[2]: word for word in names},
        {word: word for word in SECTIONS},
    ]
    parts = [hint for words in groups if (hint := suggest(last, words, words))][:1]
    if section == "method":
        parts.append("`fp methods NAME` lists the options of a method")
    return " ".join(parts)


def _name(kind: str, setting: Setting) -> str:
    value = str(setting.value)
    try:
        plugins.find_reference(kind, value)
    except UsageError as error:
        raise setting.error(error.message, error.hint) from error
    return value


def _check_names(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> None:
    if "task.data" in settings and not plugins.split_path(values["task.data"])[0]:
        _name("datasets", settings["task.data"])
    if values["task.model"]:
        _check_model(settings["task.model"])
    if "task.normalise" in settings:
        _check_normalise(settings["task.normalise"])
    if "fleet.profile" in settings and not values["fleet.devices"]:
        _name("fleets", settings["fleet.profile"])
    if "fleet.server" in settings:
        _check_server(settings["fleet.server"], values)
    for key in ("wire.codec", "wire.down", "wire.up"):
        if key in settings and settings[key].value is not None:
            _name("codecs", settings[key])


def _check_model(setting: Setting) -> None:
    value = str(setting.value)
    if plugins.is_code(value) or value.startswith(plugins.TORCHVISION):
        return
    try:
        find_model_name(value)
    except UsageError as error:
        raise setting.error(error.message, error.hint) from error


def _check_normalise(setting: Setting) -> None:
    try:
        read_normalise(str(setting.value))
    except ValueError as error:
        raise setting.error(f"`task.normalise`: {error}") from error


def _check_server(setting: Setting, values: Mapping[str, Any]) -> None:
    try:
        find_server(values["fleet.server"], values["fleet.profile"], values["fleet.devices"])
    except RecipeError as error:
        raise setting.error(error.message, error.hint) from error


def _check_counts(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> None:
    limits = (
        ("clients_per_round", values["task.clients"], "task.clients"),
        (
            "min_clients",
            values["clients_per_round"] or values["task.clients"],
            "clients_per_round" if values["clients_per_round"] else "task.clients",
        ),
    )
    if values["task.server_share"] and values["task.server_samples"]:
        raise settings["task.server_samples"].error(
            "`task.server_share` and `task.server_samples` exclude each other",
            "set one of them to 0",
        )
    for key, limit, name in limits:
        if values[key] > limit:
            setting = settings.get(key) or settings[name]
            raise setting.error(
                f"`{key}` is {values[key]}, but `{name}` is {limit}",
                f"lower `{key}` or raise `{name}`",
            )


def _default_model(
    data: str, settings: Mapping[str, Setting], default_models: Mapping[str, str]
) -> str:
    if usual := default_models.get(data) or default_models.get(f"{plugins.split_path(data)[0]}:"):
        return usual
    raise settings["task.data"].error(
        f"`task.model` must be given: data `{data}` has no usual network",
        "for example `--model lenet5` (one channel), `resnet20` (three) or `tabular-mlp` (tables)",
    )


def _check_options(cls: Any, choice: MethodChoice, settings: Mapping[str, Setting]) -> None:
    try:
        cls(**choice.options)
    except ValueError as error:
        options = [item for key, item in settings.items() if key.startswith("method.")]
        setting = options[-1] if options else Setting(None, "method", True)
        raise setting.error(f"options of method `{choice.name}`: {error}") from error


def _build(cls: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    if issubclass(cls, MethodChoice):
        by_section = {
            key.removeprefix(prefix): value
            for key, value in values.items()
            if key.startswith(prefix)
        }
        return cls(by_section.pop("name"), by_section)
    hints = get_type_hints(cls)
    return cls(
        **{
            item.name: _build(hints[item.name], f"{prefix}{item.name}.", values)
            if is_dataclass(hints[item.name])
            else values[prefix + item.name]
            for item in fields(cls)
        }
    )
