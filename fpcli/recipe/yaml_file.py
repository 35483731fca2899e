"""Read YAML files of strangers: small, flat, without tags, and with the line of every value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fpcli.errors import RecipeError

_LIMIT_BYTES = 64 * 1024
_LIMIT_DEPTH = 8


def compose(path: Path, kind: str, limit_bytes: int = _LIMIT_BYTES) -> yaml.Node | None:
    """Return the root of a YAML file, None if it is empty; nothing is built from it yet.

    Args:
        path: the file.
        kind: what it should be, for messages: ``recipe``.
        limit_bytes: length of the longest file that is read.

    Raises:
        RecipeError: unreadable, too large or deep, not YAML, or with anchors, aliases or tags.
    """
    try:
        data = path.read_bytes()[: limit_bytes + 1]
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(
            f"cannot read {kind} {path}: {error.strerror}", hint="give a YAML file", where=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not text in UTF-8", hint="save the file as UTF-8", where=str(path)
        ) from error
    if len(data) > limit_bytes:
        raise RecipeError(
            f"{path}: larger than {limit_bytes // 1024} KiB", hint=f"is this a {kind}?"
        )
    try:
        loader = _CarefulLoader(text, path, kind)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise RecipeError(
            f"{place}: not valid YAML: {problem}", hint="check indentation and quotes", where=place
        ) from error


class _CarefulLoader(yaml.SafeLoader):
    """Refuses a node before it is built, since it could be large, deep or of any class."""

    def __init__(self, text: str, path: Path, kind: str) -> None:
        super().__init__(text)
        self.path, self.kind, self.depth = path, kind, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        place = f"{self.path}:{event.start_mark.line + 1}"
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
        inner = int(isinstance(event, yaml.CollectionStartEvent))
        self.depth += inner
        if self.depth > _LIMIT_DEPTH:
            raise RecipeError(f"{place}: nested deeper than any {self.kind}", where=place)
        node = super().compose_node(parent, index)
        self.depth -= inner
        return node


def iterate_pairs(node: yaml.MappingNode, name: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """Yield key, value and line of a mapping.

    Args:
        name: of the file or option, for messages.

    Raises:
        RecipeError: a key is not a word, or stands twice.
    """
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{name}:{line}: a key must be a word", where=f"{name}:{line}")
        if key.value in lines:
            raise RecipeError(
                f"{name}:{line}: key `{key.value}` stands twice, first in line {lines[key.value]}",
                hint="keep one of them",
                where=f"{name}:{line}",
            )
        lines[key.value] = line
        yield key.value, value, line


def to_plain(node: yaml.Node | None, name: str) -> Any:
    """Return text, None, or lists and mappings of these.

    Scalars stay text: the key's type decides whether `1e-3` is a number and `no` a boolean.
    Arguments and errors as in :func:`iterate_pairs`.
    """
    if isinstance(node, yaml.MappingNode):
        return {key: to_plain(value, name) for key, value, _ in iterate_pairs(node, name)}
    if isinstance(node, yaml.SequenceNode):
        return [to_plain(value, name) for value in node.value]
    return None if node is None or is_null(node) else node.value


def construct(root: yaml.Node, path: Path) -> Any:
    """Return what a composed file says, with numbers, truth values and dates as YAML knows them.

    Raises:
        RecipeError: a value is not what it looks like, such as a date that does not exist.
    """
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise RecipeError(
            f"{path}: a value cannot be read: {str(error).splitlines()[0]}",
            hint="put quotes around a text that looks like a number or a date",
            where=str(path),
        ) from error
    finally:
        loader.dispose()


def is_null(node: yaml.Node) -> bool:
    """Tell an empty or null value."""
    return node.tag == "tag:yaml.org,2002:null"
