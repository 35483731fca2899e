from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from annotated_types import Ge, Interval, Le

from fpcli.settings import hardware, learning, recipes, tasks
from fpcli.settings.fields import describe_type, list_options, read_docs

SECTIONS = [
    found
    for module in (tasks, learning, hardware, recipes)
    for found in vars(module).values()
    if is_dataclass(found) and found.__module__ == module.__name__
    if found not in (hardware.DeviceClass, hardware.StepTime)
]


@dataclass(frozen=True)
class Options:
    """Options of a made-up method."""

    ratio: Annotated[float, Ge(0), Le(0.9)]
    """Pruning ratio,
    a fraction."""
    widths: tuple[float, ...] = (1.0, 0.5)
    plain: str = ""
    """Nothing."""


@pytest.mark.parametrize("cls", SECTIONS)
def test_every_field_has_a_doc(cls: type) -> None:
    docs = read_docs(cls)
    assert list(docs) == [item.name for item in fields(cls)]
    assert all(text.endswith(".") for text in docs.values())


def test_options_table() -> None:
    assert list_options(Options) == [
        ("ratio", "number >= 0 and <= 0.9", "", "Pruning ratio, a fraction."),
        ("widths", "list of number", "[1.0, 0.5]", ""),
        ("plain", "text", '""', "Nothing."),
    ]


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "whole number"),
        (bool, "true or false"),
        (Literal["a", "b"], "one of a, b"),
        (Annotated[float, Ge(0)] | None, "number >= 0 or null"),
        (Annotated[float, Interval(gt=0, lt=1)], "number > 0 and < 1"),
        (list[int], "list of whole number"),
        (dict, "dict"),
    ],
)
def test_type_text(hint: Any, text: str) -> None:
    assert describe_type(hint) == text


def test_the_readme_tells_the_partitions_as_they_are() -> None:
    """Its table has a row per kind, with the defaults of the keys that shape it."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    _, table = readme.split("| `--partition` | `--set task.partition.KEY=...` |")
    rows = [row.split(" | ") for row in table.split("\n\n")[0].splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == list(get_args(tasks.PartitionKind))
    said = [pair for row in rows for pair in re.findall(r"`(\w+)` ([\d.]+)", row[1])]
    assert len(said) >= 5
    for key, default in said:
        assert float(default) == getattr(tasks.Partition(), key)
