from __future__ import annotations

import ast
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import fpcli
from fpcli.cli.app import build_parser
from fpcli.settings.flags import describe_default
from fpcli.settings.keys import collect_flags, list_leaves
from fpcli.settings.recipes import RECIPE_KINDS

SOURCES = sorted(Path(fpcli.__file__).parent.rglob("*.py"))


def commands(group: Any = None) -> dict[str, Any]:
    """Return the commands of `fp` and of its groups, by all their words."""
    found = {}
    for name, command in (group or build_parser()).commands.items():
        if hasattr(command, "commands"):
            found |= {f"{name} {word}": inner for word, inner in commands(command).items()}
        else:
            found[name] = command
    return found


@pytest.mark.parametrize("kind", RECIPE_KINDS)
def test_the_options_of_a_command_are_those_of_its_recipe(kind: str) -> None:
    recipe = RECIPE_KINDS[kind]
    parameters = {item.name: item for item in commands()[kind].params}
    defaults = list_leaves(recipe)
    for key, flag in collect_flags(recipe).items():
        parameter = parameters[flag.parameter]
        assert flag.name in parameter.opts and parameter.default is None
        if key in defaults and (said := describe_default(flag, defaults[key].default)):
            assert parameter.help.endswith(f" (default: {said}).")


def test_every_option_has_help_and_a_panel() -> None:
    for words, command in commands().items():
        for parameter in command.params:
            if parameter.name != "help":
                assert parameter.help and parameter.help.endswith("."), (words, parameter.name)
    panels = {p.rich_help_panel for p in commands()["train"].params}
    assert panels == {"Task", "Method", "Training", "Fleet", "Run", "Output"}


def flags_in(path: Path) -> list[tuple[str, str]]:
    """Return usage and help of every ``Flag(...)`` that a file writes; of a field without a help
    the literal under it, or where it has none either, the whole call."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for statement, following in pairwise([*node.body, ast.Pass()]):
                calls = [] if hasattr(statement, "body") else list(ast.walk(statement))
                for call in calls:
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "Flag":
                        is_literal = isinstance(following, ast.Expr)
                        below = ast.unparse(following if is_literal else call)
                        found.append(tuple([*map(ast.unparse, call.args), below][:2]))
    return found


def test_no_option_is_declared_twice() -> None:
    """Whatever sets the same thing is written once; the words of its help say that it is so."""
    times = Counter(flag for path in SOURCES for flag in flags_in(path))
    assert len(times) > 100
    assert not {flag: number for flag, number in times.items() if number > 1}


def test_what_a_default_is_stands_in_one_place() -> None:
    """No help text says it by hand."""
    hand = [path for path in SOURCES if "(default: " in path.read_text("utf-8")]
    assert {path.name for path in hand} <= {"build_command.py"}
