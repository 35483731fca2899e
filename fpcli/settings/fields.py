"""What the fields of a class of settings say: type, range, default and meaning, as text."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from fpcli.settings.flags import split_flag


class OptionRow(NamedTuple):
    """One field of an options class, as text for a table."""

    name: str
    type: str
    default: str
    doc: str


def read_docs(cls: type) -> dict[str, str]:
    """Return what is said of each field of a data class, in one line: the text literal under it,
    here or in a base, or else the help of its option.

    >>> from fpcli.settings.hardware import WireChoice
    >>> read_docs(WireChoice)["down"]
    'Codec of what the server sends; null means `codec`.'
    """
    literals: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(cls.__mro__)):
        literals |= _literals(sys.modules[base.__module__]).get(base.__name__, {})
    hints = get_type_hints(cls, include_extras=True)
    flags = {item.name: split_flag(hints[item.name])[1] for item in fields(cls)}
    docs = {name: f"{flag.help}." for name, flag in flags.items() if flag and flag.help}
    return {name: text for name in flags if (text := (docs | literals).get(name))}


@cache
def _literals(module: types.ModuleType) -> dict[str, dict[str, str]]:
    """Return class -> field -> the text literal under it, of all classes of a module."""
    literals: dict[str, dict[str, str]] = {}
    classes = (
        n for n in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(n, ast.ClassDef)
    )
    for node in classes:
        for lines in itertools.pairwise(node.body):
            match lines:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    literals.setdefault(node.name, {})[name] = " ".join(text.split())
    return literals


def find_default(item: Field[Any]) -> Any:
    """Return a data class field's default, or ``MISSING`` where it has none."""
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def list_options(cls: type) -> list[OptionRow]:
    """Return name, type with range, default and doc of every field of a data class.

    >>> from fpcli.settings.hardware import FleetChoice
    >>> list_options(FleetChoice)[1][:3]
    ('variation', 'number >= 0', '0.1')
    """
    docs = read_docs(cls)
    hints = get_type_hints(cls, include_extras=True)
    return [
        OptionRow(
            item.name,
            describe_type(hints[item.name]),
            _default_text(find_default(item)),
            docs.get(item.name, ""),
        )
        for item in fields(cls)
    ]


def _default_text(value: Any) -> str:
    if value is MISSING:
        return ""
    if isinstance(value, str) and value:
        return value
    return json.dumps(value, default=str)


_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
}


def describe_type(hint: Any) -> str:
    """Describe a type in words.

    >>> describe_type(Annotated[float, Ge(0), Lt(1)])
    'number >= 0 and < 1'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [text for item in arguments[1:] for text in _bounds(item)]
        return " ".join([describe_type(arguments[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(choice) for choice in arguments)
    if origin is Mapping:
        return "mapping of names to numbers"
    if origin in (list, tuple):
        return f"list of {describe_type(arguments[0])}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def is_share(hint: Any) -> bool:
    """Tell whether a type is a number from within [0, 1], or None or a word instead, or a list.

    >>> is_share(Annotated[float, Ge(0), Lt(1)] | None), is_share(Annotated[float, Ge(0)])
    (True, False)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is not Annotated:
        return origin is not Literal and any(map(is_share, arguments))
    base, *bounds = arguments
    if base is not float:
        return is_share(base)
    parts = [p for item in bounds for p in (item if isinstance(item, GroupedMetadata) else [item])]
    low: list[Any] = [p.ge if isinstance(p, Ge) else p.gt for p in parts if isinstance(p, Ge | Gt)]
    high: list[Any] = [p.le if isinstance(p, Le) else p.lt for p in parts if isinstance(p, Le | Lt)]
    return bool(low and high) and max(low) >= 0 and min(high) <= 1


def _bounds(item: Any) -> list[str]:
    match item:
        case Ge(ge=bound):
            return [f">= {bound}"]
        case Gt(gt=bound):
            return [f"> {bound}"]
        case Le(le=bound):
            return [f"<= {bound}"]
        case Lt(lt=bound):
            return [f"< {bound}"]
        case GroupedMetadata():
            return [text for part in item for text in _bounds(part)]
    return []
