"""What no recipe needs and no loader should meet: refused on YAML's event stream."""

from __future__ import annotations

from pathlib import Path

import yaml

from fpcli.errors import RecipeError

_LIMIT_DEPTH = 8


def refuse_unsafe(text: str, path: Path) -> None:
    """Refuse anchors, aliases, tags and deep nesting, before anything is built of a text.

    Raises:
        RecipeError: the text has one of these; the message starts with ``FILE:LINE``.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{path}:{event.start_mark.line + 1 if event.start_mark else 0}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RecipeError(
                f"{place}: anchors and aliases are not allowed",
                hint="write the value out, or quote a text that starts with `&` or `*`",
                where=place,
            )
        if tag := getattr(event, "tag", None):
            raise RecipeError(
                f"{place}: tags such as `{tag}` are not allowed",
                hint="write the plain value, or quote a text that starts with `!`",
                where=place,
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _LIMIT_DEPTH:
            raise RecipeError(f"{place}: nested deeper than any recipe", where=place)
