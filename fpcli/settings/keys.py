"""The dotted keys of a recipe: type and default of each, and the option that sets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from fpcli.settings.fields import default_of
from fpcli.settings.flags import Flag, default_text


@dataclass(frozen=True)
class Leaf:
    """A key that takes a value: its type, its default, and the option that sets it."""

    hint: Any
    default: Any
    flag: Flag | None = None


def leaves(cls: type, prefix: str = "") -> dict[str, Leaf]:
    """Return every dotted key of a data class that takes a value."""
    hints = get_type_hints(cls, include_extras=True)
    found: dict[str, Leaf] = {}
    for item in fields(cls):
        key, hint = prefix + item.name, hints[item.name]
        if is_dataclass(hint):
            found |= leaves(hint, f"{key}.")  # type: ignore[arg-type]
        elif not item.metadata.get("is_open"):
            plain, flag = split_flag(hint)
            found[key] = Leaf(plain, default_of(item), flag)
    return found


def sections(cls: type, prefix: str = "") -> list[str]:
    """Return the dotted name of every section of a recipe, outer ones first."""
    found = []
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            found += [f"{prefix}{name}", *sections(hint, f"{prefix}{name}.")]  # type: ignore[arg-type]
    return found


def split_flag(hint: Any) -> tuple[Any, Flag | None]:
    """Return a type without the option that its annotation brings, and that option."""
    base, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    flag = None
    for item in metadata:
        if isinstance(item, Flag):
            flag = item
        else:
            base = Annotated[base, item]
    return base, flag


def flags_of(recipe: type) -> dict[str, Flag]:
    """Return dotted key -> option of every key of a recipe that has one, in the order of the help.

    What the recipe's ``flags`` say of a key goes before what its field says; None there means that
    it has no option.

    >>> from fpcli.settings.recipes import Recipe
    >>> found = flags_of(Recipe)["fleet.deadline_s"]
    >>> found.name, found.parameter, found.default
    ('--deadline', 'deadline', 'none')
    """
    own: Mapping[str, Flag | None] = getattr(recipe, "flags", {})
    found: dict[str, Flag] = {}
    for key, leaf in leaves(recipe).items():
        if flag := own.get(key, leaf.flag):
            found[key] = replace(
                flag,
                default=default_text(flag, leaf.default),
                known=flag.known
                or (get_args(leaf.hint) if get_origin(leaf.hint) is Literal else ()),
                is_list=get_origin(leaf.hint) is tuple,
            )
    found |= {key: flag for key, flag in own.items() if flag and key not in found}
    for key, flag in list(found.items()):
        if flag.before:
            rest = {other: found[other] for other in found if other != key}
            place = next(n for n, other in enumerate(rest.values()) if other.name == flag.before)
            items = [*rest.items()]
            found = dict([*items[:place], (key, flag), *items[place:]])
    return found
