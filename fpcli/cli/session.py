"""What all commands share: how `fp` was called, its one result on stdout, its errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from fpcli.errors import CheckError, FpError
from fpcli.store.events import replace_nan

JSON_FORMAT = 1
"""Format number of the envelope that ``--json`` prints."""


@dataclass
class Session:
    """One call of `fp`.

    Attributes:
        command: its words without options, such as `train` or `data list`.
        is_json: stdout gets one JSON object, also for errors.
        is_lines: stdout gets events as JSON lines, and that object as the last line.
        is_quiet: nobody wants to be told what is going on.
        is_debug: errors come with a traceback.
        warnings: what was warned of so far.
        log: file of the run that is going on, where errors are kept too.
        again: the command that goes on with it; empty means `fp resume`.
    """

    command: str
    is_json: bool = False
    is_lines: bool = False
    is_quiet: bool = False
    is_debug: bool = False
    warnings: list[str] = field(default_factory=list)
    log: Path | None = None
    again: str = ""

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Session:
        """Read from the plain words, since they must be known before a parser can fail."""
        words = [word for word in arguments if not word.startswith("-")]
        return cls(
            command=words[0] if words else "",
            is_json="--json" in arguments,
            is_lines="--json-lines" in arguments,
            is_quiet=bool({"-q", "--quiet"} & set(arguments)),
            is_debug="--debug" in arguments,
        )

    def envelope(self, data: Mapping[str, Any], error: FpError | None = None) -> str:
        """Return the one JSON object of ``--json`` as text."""
        status = "findings" if isinstance(error, CheckError) else "error" if error else "ok"
        return to_json(
            {
                "format": JSON_FORMAT,
                "command": self.command,
                "status": status,
                "data": data,
                "warnings": self.warnings,
                "error": error
                and {
                    "code": error.code,
                    "message": error.message,
                    "hint": error.hint,
                    "where": error.where,
                },
            }
        )

    def finish(self, data: Mapping[str, Any], text: str, error: FpError | None = None) -> None:
        """Put the result on stdout, as JSON or as text.

        Args:
            data: fields of the envelope's ``data``.
            text: the same for people.
            error: what was found wrong although there is a result.

        Raises:
            typer.Exit: with the status of ``error``.
        """
        if self.is_json or self.is_lines:
            emit(self.envelope(data, error))
        else:
            emit(text)
        if error:
            if not (self.is_json or self.is_lines):
                tell(error)
            raise typer.Exit(error.exit_status)

    def note(self, text: str) -> None:
        """Say what begins now, to people who want to know."""
        if not (self.is_json or self.is_lines or self.is_quiet):
            print(text, file=sys.stderr, flush=True)

    def hint(self, text: str) -> None:
        """Say what to do next, to people."""
        if not (self.is_json or self.is_lines):
            print(f"\nhint: {text}", file=sys.stderr, flush=True)

    def warn(self) -> None:
        """Write all warnings to stderr, to people."""
        if not (self.is_json or self.is_lines):
            for text in self.warnings:
                print(f"warning: {join_lines(text)}", file=sys.stderr, flush=True)

    def fail(self, error: FpError) -> None:
        """Report an error that left no result."""
        if self.is_json or self.is_lines:
            emit(self.envelope({}, error))
        else:
            tell(error)


def tell(error: FpError) -> None:
    """Write an error and its hint to stderr."""
    print(error_text(error), file=sys.stderr, flush=True)


def error_text(error: FpError) -> str:
    """Return one line with code and message, and the hint below a blank line."""
    hint = f"\n\nhint: {join_lines(error.hint)}" if error.hint else ""
    return f"error[{error.code}]: {join_lines(error.message)}{hint}"


def join_lines(text: str) -> str:
    """Return a text without line breaks and control characters.

    >>> join_lines("a\\n  b\\x1b[0m")
    'a b[0m'
    """
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())


def emit(text: str) -> None:
    """Write a line to stdout; once nobody reads it any more, do so in silence."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        close_stdout()


def close_stdout() -> None:
    """Point stdout to nowhere, so that the interpreter's last flush cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def to_json(value: Any) -> str:
    """Return a value as JSON in one line, numbers that are not finite as null.

    >>> to_json({"a": float("nan"), "b": (1,)})
    '{"a": null, "b": [1]}'
    """
    return json.dumps(replace_nan(value), allow_nan=False, default=str)
