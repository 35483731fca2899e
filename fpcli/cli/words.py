"""Words of a command line that several commands read alike: ``--set`` and names of code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from fpcli.data import PREFIXES
from fpcli.errors import UsageError

CODE = re.compile(rf"(?!{'|'.join(PREFIXES)}|torchvision:)[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""What ``module:function`` looks like."""


def overrides(words: Iterable[str] | None) -> list[tuple[str, str]]:
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
                hint="for example `--set local.momentum=0.9`",
                where="--set",
            )
        pairs.append((key.strip(), value.strip()))
    return pairs


def make_importable(values: Iterable[object]) -> None:
    """Let ``module:function`` name a file of the current folder, if any of the values is one."""
    here = str(Path.cwd())
    if any(CODE.fullmatch(str(value)) for value in values) and here not in sys.path:
        sys.path.insert(0, here)
