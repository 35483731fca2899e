"""Where code of the user's own failed: the line of it, in place of a traceback of ours."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from fpcli.errors import first_line

_WRONG_CALL = re.compile(r"(?P<name>[\w.]+)\(\) (takes|missing|got an unexpected)")


def locate_failure(error: BaseException) -> str:
    """Return ``FILE:LINE: `source` `` of the user's code that an error comes from, or "".

    That is the deepest line of a traceback that is neither ours nor a library's; of a file that is
    no Python the line that says so; and of a function that does not take what it is called with
    its ``def``.
    """
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return _show(error.filename, error.lineno or 1)
    frames = traceback.extract_tb(error.__traceback__)
    if (code := _find_called(error)) and not (frames and _is_users(frames[-1].filename)):
        return _show(code.co_filename, code.co_firstlineno)
    lines = [(frame.filename, frame.lineno or 1) for frame in frames if _is_users(frame.filename)]
    return _show(*lines[-1]) if lines else ""


def describe_failure(error: Exception) -> str:
    """Return kind and text of an error in one line, and where the user's code caused it.

    >>> describe_failure(ValueError("no"))
    'ValueError: no'
    """
    place = locate_failure(error)
    return f"{type(error).__name__}: {first_line(error)}{f', in {place}' if place else ''}"


def is_wrong_call(error: BaseException) -> bool:
    """Tell whether a function of the user's does not take what fpcli calls it with."""
    frames = traceback.extract_tb(error.__traceback__)
    is_ours = bool(frames) and not _is_users(frames[-1].filename)
    return is_ours and _find_called(error) is not None


def _find_called(error: BaseException) -> CodeType | None:
    """Return the code of the user's function that an error of its call is about."""
    call = _WRONG_CALL.match(str(error)) if isinstance(error, TypeError) else None
    if call is None:
        return None
    for module in [*sys.modules.values()]:
        thing: Any = module
        for name in call["name"].split("."):  # what stands there; no `__getattr__` runs
            thing = getattr(thing, "__dict__", {}).get(name)
        if isinstance(thing, FunctionType) and _is_users(thing.__code__.co_filename):
            return thing.__code__
    return None


def _show(filename: str, line: int) -> str:
    path = Path(filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{line}: `{linecache.getline(filename, line).strip()}`"


@cache
def _is_users(filename: str) -> bool:
    paths = sysconfig.get_paths()
    others = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots = [Path(__file__).parent, *map(Path, others)]
    path = Path(filename)
    return path.is_absolute() and not any(path.is_relative_to(root) for root in roots)
