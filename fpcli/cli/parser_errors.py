"""What the parser of the command line says, in our words and with a remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpcli.errors import UsageError, suggest
from fpcli.plugins import list_names

_NAMED_BY = {"--method": "methods", "--model": "models", "--data": "datasets"}


def explain_parser_error(error: Any, command: str) -> UsageError:
    """Translate an error of the parser.

    Args:
        error: an exception of the parser's, which knows the command that it was reading.
        command: words of it without options, such as ``data list``.
    """
    called = f"fp {command}".strip()
    parameters = error.ctx.command.params if error.ctx else ()
    options = [name for item in parameters for name in item.opts if name.startswith("-")]
    message = error.format_message().rstrip(".")
    option = getattr(error, "option_name", None) or ""
    hint = ""
    if hasattr(error, "possibilities"):
        message = f"unknown option `{option}`"
        hint = suggest(option, options)
    elif extra := re.fullmatch(r"Got unexpected extra argument\(?s?\)? \((\S+).*\)", message):
        message = f"unexpected word `{extra[1]}`"
        hint = _suggest_option(extra[1], options, called)
    return UsageError(
        message[:1].lower() + message[1:],
        hint=hint or f"`{called} --help` lists the options",
        where=option,
    )


def _suggest_option(word: str, options: Sequence[str], called: str) -> str:
    """Return a hint on the option that a word lacks, among those of the command."""
    from fpcli.recipe.load import name_shipped

    written = {
        name: f"{called} {option} {name}"
        for option, kind in _NAMED_BY.items()
        if option in options
        for name in list_names(kind)
    }
    if "--recipe" in options:
        files = [word] if word.endswith((".yaml", ".yml")) else []
        written |= {name: f"{called} -c {name}" for name in (*name_shipped(), *files)}
    if "--set" in options and "=" in word:
        written[word] = f"{called} --set {word}"
    if "--resume" in options and (Path(word) / "recipe.yaml").is_file():
        written[word] = f"{called} --resume {word}"
    return suggest(word, written, written)
