from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval, Le

from fpcli.engine.server_optimizer import ServerConfig
from fpcli.recipe import schema
from fpcli.wire.headers import LocalConfig

SECTIONS = (
    schema.Partition,
    schema.Task,
    schema.MethodChoice,
    LocalConfig,
    ServerConfig,
    schema.FleetChoice,
    schema.WireChoice,
    schema.ExecutorChoice,
    schema.Recipe,
)


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
    docs = schema.field_docs(cls)
    assert list(docs) == [item.name for item in fields(cls)]
    assert all(text.endswith(".") for text in docs.values())


def test_options_table() -> None:
    assert schema.options_table(Options) == [
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
    assert schema.type_text(hint) == text
