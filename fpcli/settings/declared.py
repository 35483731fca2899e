"""What code of ours says of itself, without the libraries that only its work needs.

A method's file imports torch, which takes seconds; its paper, traits, defaults and options do not.
So of a file of ours only the statements run that these are made of, whatever else stands in it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType
from typing import Any

from fpcli import plugins

DECLARATIONS = {"source", "traits", "defaults", "is_structured", "Options"}
"""Attributes of a method or pruner that are declarations and no hooks."""


def describe(kind: str, name: str) -> Any:
    """Return a method or pruner, of which ``DECLARATIONS`` and the docstring of its file are there.

    One of ours has nothing else, unless its file is loaded already; any other is imported.

    Raises:
        UsageError: see :func:`plugins.lookup`.
        NeedError: see :func:`plugins.load_reference`.
    """
    if plugins.is_shipped(kind, name):
        return _make(plugins.find_reference(kind, name))
    return plugins.lookup(kind, name)


def arguments_of(reference: str) -> set[str]:
    """Return the names of the arguments of ``module:function`` of ours; nothing of it runs."""
    module, name = _take_apart(reference)
    functions = {
        item.name: item.args
        for item in ast.parse(Path(_file_of(module)).read_bytes()).body
        if isinstance(item, ast.FunctionDef)
    }
    return {argument.arg for argument in functions[name].args}


def _make(reference: str) -> Any:
    """Return ``module:name`` of ours, from its module if that is loaded, or else from its part."""
    module, name = _take_apart(reference)
    for loaded in (module, reference):
        if loaded in sys.modules:
            return getattr(sys.modules[loaded], name)
    loader = _Part(reference, _file_of(module))
    spec = spec_from_loader(reference, loader)
    assert spec is not None, reference
    # By the part's own name there, since types and texts of its classes are looked up by it.
    part = sys.modules[reference] = module_from_spec(spec)
    loader.exec_module(part)
    return getattr(part, name)


def _take_apart(reference: str) -> tuple[str, str]:
    module, _, name = reference.partition(":")
    return module, name


def _file_of(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return spec.origin


class _Part(SourceFileLoader):
    """Runs of a file the statements that one name in it needs; ``module:name`` names the part."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile these statements, which keep their lines."""
        tree = ast.parse(self.get_data(self.path))
        tree.body = list(_needed(tree.body, _take_apart(fullname)[1]))
        return self.source_to_code(tree, self.path)


def _needed(body: Iterable[ast.stmt], wanted: str) -> Iterator[ast.stmt]:
    """Yield the statements that make a name, in their order, with docstring and ``__future__``."""
    statements = [part for statement in body for part in _simplify(statement)]
    makers = {name: item for item in statements for name in _names_made(item)}
    needed, names = set(), {wanted, "annotations"}  # the latter is what `__future__` makes
    while names:
        maker = makers.get(names.pop())
        if maker is not None and maker not in needed:
            needed.add(maker)
            names |= {node.id for node in _names(maker) if isinstance(node.ctx, ast.Load)}
    for item in statements:
        if isinstance(item, ast.Expr) and item is statements[0]:
            yield item
        elif item in needed:
            yield _from_part(item) if isinstance(item, ast.ImportFrom) else item


def _simplify(statement: ast.stmt) -> Iterator[ast.stmt]:
    """Yield an import name by name, and of a class that is no data class its declarations.

    So a name that nothing needs loads nothing, nor does a hook.
    """
    if isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            item = ast.ImportFrom(statement.module, [alias], statement.level)
            yield ast.copy_location(item, statement)
        return
    if isinstance(statement, ast.ClassDef) and not statement.decorator_list:
        kept = [item for item in statement.body if DECLARATIONS & _names_made(item)]
        statement.body = kept or [ast.copy_location(ast.Pass(), statement)]
    yield statement


def _from_part(item: ast.ImportFrom) -> ast.ImportFrom:
    """Let an import of ours that is not loaded yet take a part of its file too."""
    if item.module in sys.modules or not str(item.module).startswith("fpcli."):
        return item
    reference = f"{item.module}:{item.names[0].name}"
    _make(reference)
    return ast.copy_location(ast.ImportFrom(reference, item.names, 0), item)


def _names_made(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    return {node.id for node in _names(statement) if isinstance(node.ctx, ast.Store)}


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (child for child in ast.walk(node) if isinstance(child, ast.Name))
