"""The comment block at the top of a shipped recipe: what it is, whose, and what to expect of it.

::

    # A line or more that say what this is.
    # paper: Jiang et al., FedMP, ICDE 2022
    # result: figure 6 (CNN on MNIST); layers and client count are ours
    # expected: accuracy 0.969
    # tolerance: 0.015
    # machine: 2 CPU cores
    # minutes: 0.3
    recipe: 1

A field goes on in lines that are indented by two more spaces. ``expected`` is what this package
was measured to reach, never the paper's number, which belongs to ``result``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fpcli.errors import RecipeError, suggest
from fpcli.settings.metrics import find_measured

FIELDS = ("paper", "result", "expected", "tolerance", "machine", "minutes")
_MEASURES = ("accuracy", "best_accuracy", "clients_accuracy", "local_accuracy", "mae", "hr@10")
"""Some of what ``expected`` may be about; fields of ``fp train --json``, means for clients."""

_FIELD = re.compile(r"# ([a-z]+): (\S.*)")
_NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Header:
    """What a shipped recipe says about itself.

    Attributes:
        about: what it is.
        paper: authors, title, venue and year; ``none`` for a control.
        result: the table or figure it stands for, and how it differs.
        measure: a metric, perhaps with ``best_``, ``clients_`` or ``local_`` before it; None if
            nothing was measured.
        expected: its value, of a share a fraction.
        tolerance: how far other seeds and machines may be from it.
        machine: what it takes to run.
        minutes: how long it takes there; None if nobody has measured it.
    """

    about: str
    paper: str
    result: str
    measure: str | None
    expected: float | None
    tolerance: float | None
    machine: str
    minutes: float | None


def read_header(path: Path) -> Header:
    """Read the header of a recipe.

    Raises:
        RecipeError: it is not as described above; the message starts with ``FILE:LINE``.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}", where=str(path)) from error
    return parse_header(lines, str(path))


def parse_header(lines: Sequence[str], name: str) -> Header:
    """Read a header from the lines of a file.

    Args:
        lines: of the whole file.
        name: of the file, for errors.

    Raises:
        RecipeError: it is not as described above.
    """
    length = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    about: list[str] = []
    fields: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(lines[:length], start=1):
        match = _FIELD.fullmatch(line)
        if match and (match[1] in FIELDS or fields):
            _add(fields, match[1], match[2], f"{name}:{number}")
        elif fields and line.startswith("#   "):
            last = next(reversed(fields))
            fields[last] = (f"{fields[last][0]} {line[1:].strip()}", fields[last][1])
        elif fields:
            raise _error(f"{name}:{number}", "neither a field of the header nor a line of one")
        else:
            about.append(line[1:].strip())
    missing = [field for field in FIELDS if field not in fields]
    if missing:
        raise _error(f"{name}:{length + 1}", f"the header lacks `{missing[0]}`")
    if not about:
        raise _error(f"{name}:1", "the header does not say what the recipe is")
    return _header(" ".join(about), fields, name)


def _add(fields: dict[str, tuple[str, int]], key: str, value: str, place: str) -> None:
    if key not in FIELDS:
        raise _error(place, f"unknown field `{key}`", suggest(key, FIELDS))
    if key in fields:
        raise _error(place, f"field `{key}` stands twice")
    if key != FIELDS[len(fields)]:
        raise _error(place, f"`{key}` stands where `{FIELDS[len(fields)]}` is expected")
    fields[key] = (value.strip(), int(place.rpartition(":")[2]))


def _header(about: str, fields: Mapping[str, tuple[str, int]], name: str) -> Header:
    places = {key: f"{name}:{line}" for key, (_, line) in fields.items()}
    texts = {key: value for key, (value, _) in fields.items()}
    measure, expected, highest = None, None, 1.0
    if texts["expected"] != _NOT_MEASURED:
        measure, _, text = texts["expected"].partition(" ")
        metric = find_measured(measure)
        if metric is None:
            hint = suggest(measure, _MEASURES) or f"`{_NOT_MEASURED}`, or a metric, as {_MEASURES}"
            raise _error(places["expected"], f"unknown measure `{measure}`", hint)
        highest = 1.0 if metric.is_share else 1e12
        expected = _number(text, places["expected"], highest)
    tolerance = None
    if texts["tolerance"] != "none":
        tolerance = _number(texts["tolerance"], places["tolerance"], highest)
    if (tolerance is None) != (expected is None):
        raise _error(places["tolerance"], "`tolerance` is `none` exactly where nothing is expected")
    minutes = None
    if texts["minutes"] != _NOT_MEASURED:
        minutes = _number(texts["minutes"], places["minutes"], highest=1e6)
    return Header(
        about,
        texts["paper"],
        texts["result"],
        measure,
        expected,
        tolerance,
        texts["machine"],
        minutes,
    )


def _number(text: str, place: str, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= highest:
        raise _error(place, f"`{text}` is not a number above 0 and up to {highest:g}")
    return value


def _error(place: str, problem: str, hint: str = "") -> RecipeError:
    order = ", ".join(FIELDS)
    return RecipeError(
        f"{place}: {problem}", hint=hint or f"the fields are, in this order: {order}", where=place
    )
