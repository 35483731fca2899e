"""All keys of a recipe, as a table for people and as a JSON schema for editors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from fpcli import plugins
from fpcli.errors import FpError
from fpcli.settings.declared import describe
from fpcli.settings.fields import OptionRow, list_options, read_docs
from fpcli.settings.learning import MethodChoice
from fpcli.settings.recipes import Recipe


def list_keys(recipe: type = Recipe, options: type | None = None) -> list[OptionRow]:
    """Return every dotted key of a recipe with its type, default and meaning.

    Args:
        options: of a method, which stand under ``method`` too.
    """
    rows = list(_rows(recipe))
    if options is None:
        return rows
    position = 1 + next(n for n, row in enumerate(rows) if row.name == "method.name")
    mine = [row._replace(name=f"method.{row.name}") for row in list_options(options)]
    return [*rows[:position], *mine, *rows[position:]]


def _rows(cls: type, prefix: str = "") -> Iterator[OptionRow]:
    hints = get_type_hints(cls, include_extras=True)
    for item, row in zip(fields(cls), list_options(cls), strict=True):
        hint = hints[row.name]
        if is_dataclass(hint):
            yield from _rows(hint, f"{prefix}{row.name}.")  # type: ignore[arg-type]
        elif not item.metadata.get("is_open"):
            yield row._replace(name=prefix + row.name)


def make_json_schema() -> dict[str, Any]:
    """Return a JSON schema of recipes, with the options of every registered method.

    Keys that no recipe has are refused, and every key carries its meaning.
    """
    schema = _describe(Recipe)
    definitions = schema["$defs"]
    choices = []
    for name in plugins.list_names("methods"):
        try:
            options = _describe(describe("methods", name).Options)
        except FpError:  # of another package that is broken
            continue
        definitions |= options.pop("$defs", {})
        options["properties"] = {"name": {"const": name}} | options.get("properties", {})
        # A recipe that names no method means the default one.
        options["required"] = ["name"] if name != MethodChoice.name else []
        choices.append(options | {"title": name})
    definitions["MethodChoice"] = {"anyOf": choices}
    schema["title"] = "Recipe of fpcli"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe(cls: type) -> dict[str, Any]:
    """Return the schema of a data class and of those in it, closed and with the fields' docs."""
    schema = TypeAdapter(cls).json_schema()
    _close(schema, cls)
    hints = get_type_hints(cls)
    for item in fields(cls):
        hint = hints[item.name]
        if is_dataclass(hint):
            for name, part in _parts(hint):  # type: ignore[arg-type]
                _close(schema["$defs"][name], part)
    return schema


def _parts(cls: type) -> Iterator[tuple[str, type]]:
    yield cls.__name__, cls
    for hint in get_type_hints(cls).values():
        if is_dataclass(hint):
            yield from _parts(hint)  # type: ignore[arg-type]


def _close(schema: dict[str, Any], cls: type) -> None:
    schema["additionalProperties"] = False
    docs = read_docs(cls)
    for name, about in schema.get("properties", {}).items():
        about.pop("title", None)
        about["description"] = docs.get(name, "")
