"""What a class says of itself in its source, read as text so that nothing it imports is loaded.

A method's file imports torch, which takes seconds; its paper, its traits and the defaults of its
options are plain words in it.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Declared:
    """A class as its source shows it.

    Attributes:
        about: first paragraph of its module's docstring, in one line.
        values: attribute -> what it is set to in the class or a base of it, as far as that is
            plain: a literal, the keywords of a call (``Traits(cuts="channels")``) as a mapping,
            or the ``module:name`` of another class.
    """

    about: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def read_class(reference: str) -> Declared:
    """Return what stands in the source of ``module:class``; nothing if there is no such source."""
    module, _, name = reference.partition(":")
    tree = _tree(module)
    owners = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    owners |= {known: f"{module}:{known}" for known in classes}
    if name not in classes:
        return Declared()
    values: dict[str, Any] = {}
    for base in classes[name].bases:
        if isinstance(base, ast.Name) and base.id in owners:
            values |= read_class(owners[base.id]).values
    for item in classes[name].body:
        target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
        if isinstance(item, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name):
            values.pop(target.id, None)
            with suppress(ValueError):
                values[target.id] = _value(item.value, owners)
    about = (ast.get_docstring(tree) or "").partition("\n\n")[0]
    return Declared(" ".join(about.split()), values)


def _tree(module: str) -> ast.Module:
    try:
        spec = importlib.util.find_spec(module)
        return ast.parse(Path(spec.origin or "").read_text("utf-8") if spec else "")
    except (ImportError, ValueError, OSError, SyntaxError):  # such as a package without source
        return ast.Module([], [])


def _value(node: ast.expr | None, owners: Mapping[str, str]) -> Any:
    """Return a plain value.

    Raises:
        ValueError: it is none.
    """
    if isinstance(node, ast.Name) and node.id in owners:
        return owners[node.id]
    if isinstance(node, ast.Call) and not node.args:
        return {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "MappingProxyType":
        node = node.args[0]
    if node is None:
        raise ValueError("nothing")
    return ast.literal_eval(node)
