"""Paths of data with options behind them, as ``folder:PATH,size=32``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fpcli.errors import DataError

NUMBER = "[1-9][0-9]{0,3}"
"""Whole numbers from 1 to 9999, as a value that may be."""


def split_place(place: str, known: Mapping[str, Sequence[str]]) -> tuple[Path, dict[str, str]]:
    """Return the path, ``~`` resolved, and the options of ``PATH,KEY=VALUE,KEY=VALUE``.

    What follows no known key is part of the path.

    Args:
        known: key -> values that may be, as regular expressions.

    Raises:
        DataError: a value is another.

    >>> split_place("rows.csv,missing=mean", {"missing": ["mean", "drop"]})[1]
    {'missing': 'mean'}
    """
    path = place
    options: dict[str, str] = {}
    while (match := re.fullmatch(r"(.+),(\w+)=([^,=/]*)", path)) and match[2] in known:
        path, key, value = match.groups()
        if not any(re.fullmatch(pattern, value) for pattern in known[key]):
            shown = ("N" if pattern == NUMBER else pattern for pattern in known[key])
            words = " or ".join(f"`{key}={word}`" for word in shown)
            raise DataError(f"{place}: `{key}` is `{value}`", hint=f"give {words}", where=place)
        options.setdefault(key, value)
    return Path(path).expanduser(), options
