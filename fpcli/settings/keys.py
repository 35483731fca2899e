"""The dotted keys of a recipe: type and default of each, and the option that sets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fpcli.settings.fields import find_default, read_docs
from fpcli.settings.flags import Flag, describe_default, split_flag


@dataclass(frozen=True)
class Leaf:
    """A key that takes a value: its type, its default, and the option that sets it."""

    hint: Any
    default: Any
    flag: Flag | None = None


def list_leaves(cls: type, prefix: str = "") -> dict[str, Leaf]:
    """Return every dotted key of a data class that takes a value.

    An option says what it does, and where in the help, by its class where it does not by itself.
    """
    return {prefix + key: leaf for key, leaf in _read_leaves(cls).items()}


@cache  # types and texts are read from the source, which takes 20 ms for a recipe
def _read_leaves(cls: type) -> Mapping[str, Leaf]:
    hints, docs = get_type_hints(cls, include_extras=True), read_docs(cls)
    leaves: dict[str, Leaf] = {}
    for item in fields(cls):
        key, hint = item.name, hints[item.name]
        if is_dataclass(hint):
            leaves |= list_leaves(hint, f"{key}.")  # type: ignore[arg-type]
        elif not item.metadata.get("is_open"):
            plain, flag = split_flag(hint)
            if flag:
                text = flag.help or docs[item.name].partition(". ")[0].removesuffix(".")
                panel = flag.panel or (getattr(cls, "panel", None) if flag.names else None)
                flag = replace(flag, help=text, panel=panel)
            leaves[key] = Leaf(plain, find_default(item), flag)
    return leaves


def list_sections(cls: type, prefix: str = "") -> list[str]:
    """Return the dotted name of every section of a recipe, outer ones first."""
    sections = []
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            sections += [f"{prefix}{name}", *list_sections(hint, f"{prefix}{name}.")]  # type: ignore[arg-type]
    return sections


def collect_flags(recipe: type, prefix: str = "") -> dict[str, Flag]:
    """Return dotted key -> option of every key of a recipe, or of a section that stands there by
    the name of ``prefix``, that has one, in the order of the help.

    What the recipe's ``flags`` say of a key goes before what its field says; None there means that
    it has no option.

    >>> from fpcli.settings.recipes import Recipe
    >>> found = collect_flags(Recipe)["fleet.deadline_s"]
    >>> found.name, found.parameter, found.default
    ('--deadline', 'deadline', 'none')
    """
    extra: Mapping[str, Flag | None] = getattr(recipe, "flags", {})
    flags: dict[str, Flag] = {}
    for key, leaf in list_leaves(recipe, prefix).items():
        if flag := extra.get(key, leaf.flag):
            flags[key] = replace(
                flag,
                default=describe_default(flag, leaf.default),
                known=flag.known
                or (get_args(leaf.hint) if get_origin(leaf.hint) is Literal else ()),
                is_list=get_origin(leaf.hint) is tuple,
            )
    flags |= {key: flag for key, flag in extra.items() if flag and key not in flags}
    return in_order(flags)


def in_order(flags: Mapping[str, Flag]) -> dict[str, Flag]:
    """Return options in the order of the help, with what each of them is ``before``."""
    ordered = dict(flags)
    for key, flag in flags.items():
        if flag.before:
            del ordered[key]
            items = [*ordered.items()]
            place = next(n for n, (_, other) in enumerate(items) if flag.before in other.names)
            ordered = dict([*items[:place], (key, flag), *items[place:]])
    return ordered
