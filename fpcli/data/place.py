"""Paths of data with one option behind them, as ``folder:PATH,size=32``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fpcli.errors import DataError


def split_place(place: str, key: str, options_known: Sequence[str]) -> tuple[Path, str | None]:
    """Return the path, ``~`` resolved, and the value of ``PATH,KEY=VALUE``, or None without one.

    Args:
        options_known: values that may be, as regular expressions.

    Raises:
        DataError: the value is another.

    >>> split_place("rows.csv,missing=mean", "missing", ["mean", "drop"])[1]
    'mean'
    """
    match = re.fullmatch(rf"(.+),{key}=([^,=/]*)", place)
    if match is None:
        return Path(place).expanduser(), None
    path, value = match.groups()
    if not any(re.fullmatch(pattern, value) for pattern in options_known):
        words = " or ".join(f"`{key}={pattern}`" for pattern in options_known)
        raise DataError(f"{place}: `{key}` is `{value}`", hint=f"give {words}", where=place)
    return Path(path).expanduser(), value
