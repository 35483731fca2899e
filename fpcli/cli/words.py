"""Words of a command line that several commands read alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from fpcli import plugins
from fpcli.errors import UsageError


def split_overrides(words: Iterable[str] | None) -> list[tuple[str, str]]:
    """Return key and text of every ``--set``.

    Raises:
        UsageError: a word is not of the form KEY=VALUE.
    """
    pairs = []
    for word in words or ():
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--set {word}: not of the form KEY=VALUE",
                hint=f"write `--set {word.replace(':', '=', 1)}`"
                if ":" in word
                else "for example `--set local.momentum=0.9`",
                where="--set",
            )
        pairs.append((key.strip(), value.strip()))
    return pairs


def make_importable(values: Iterable[object]) -> None:
    """Let ``module:function`` name a file of the current folder, if any of the values is one."""
    here = str(Path.cwd())
    if any(plugins.is_code(str(value)) for value in values) and here not in sys.path:
        sys.path.insert(0, here)


def new_files(flag: str, path: Path, *suffixes: str, force: bool) -> list[Path]:
    """Return what will be written under a name: a file with each of the suffixes.

    Args:
        path: ends in the first of them.
        force: files that are there may be replaced.

    Raises:
        UsageError: the name ends otherwise, has no folder, or is taken.
    """
    if path.suffix != suffixes[0]:
        raise UsageError(
            f"{flag} {path}: not a name that ends in {suffixes[0]}",
            hint=f"for example `{flag} NAME{suffixes[0]}`",
            where=flag,
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"{flag} {path}: there is no folder {path.parent}", hint="make it", where=flag
        )
    files = [path.with_suffix(suffix) for suffix in suffixes]
    for file in files:
        if file.exists() and not force:
            raise UsageError(
                f"{file} exists", hint="choose another name, or replace it with --force", where=flag
            )
    return files
