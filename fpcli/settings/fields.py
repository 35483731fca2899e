"""What the fields of a class of settings say: type, range, default and meaning, as text."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt


class OptionRow(NamedTuple):
    """One field of an options class, as text for a table."""

    name: str
    type: str
    default: str
    doc: str


def field_docs(cls: type) -> dict[str, str]:
    """Return the text literal under each field of a class, inherited ones too, in one line each.

    >>> from fpcli.settings.hardware import WireChoice
    >>> field_docs(WireChoice)["codec"][:28]
    '`dense` sends every value of'
    """
    inherited = [field_docs(base) for base in cls.__bases__ if is_dataclass(base)]
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    docs = {name: text for found in inherited for name, text in found.items()}
    body = node.body if isinstance(node, ast.ClassDef) else []
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[statement.target.id] = " ".join(following.value.value.split())
    return docs


def default_of(item: Field[Any]) -> Any:
    """Return a data class field's default, or ``MISSING`` where it has none."""
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default


def options_table(cls: type) -> list[OptionRow]:
    """Return name, type with range, default and doc of every field of a data class.

    >>> from fpcli.settings.hardware import FleetChoice
    >>> options_table(FleetChoice)[1][:3]
    ('variation', 'number >= 0', '0.1')
    """
    docs = field_docs(cls)
    hints = get_type_hints(cls, include_extras=True)
    return [
        OptionRow(
            item.name,
            type_text(hints[item.name]),
            _default_text(default_of(item)),
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


def type_text(hint: Any) -> str:
    """Describe a type in words.

    >>> type_text(Annotated[float, Ge(0), Lt(1)])
    'number >= 0 and < 1'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [text for item in arguments[1:] for text in _bounds(item)]
        return " ".join([type_text(arguments[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(choice) for choice in arguments)
    if origin in (list, tuple):
        return f"list of {type_text(arguments[0])}"
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
