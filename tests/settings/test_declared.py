from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from fpcli import plugins
from fpcli.engine.traits import Traits
from fpcli.settings.declared import Declared, read_class
from fpcli.settings.fields import default_of


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_the_source_of_a_method_says_what_the_class_does(name: str) -> None:
    method, told = plugins.lookup("methods", name), read_class(plugins.reference("methods", name))
    assert told.values["source"] == method.source
    assert Traits(**told.values["traits"]) == method.traits
    assert told.values["defaults"] == method.defaults
    options = read_class(told.values["Options"]).values
    assert options == {item.name: default_of(item) for item in fields(method.Options)}


@pytest.mark.parametrize("name", plugins.names("pruners"))
def test_the_source_of_a_pruner_does_too(name: str) -> None:
    pruner, told = plugins.lookup("pruners", name), read_class(plugins.reference("pruners", name))
    assert (told.values["source"], told.values["is_structured"]) == (
        pruner.source, pruner.is_structured,
    )  # fmt: skip
    options = read_class(told.values["Options"]).values
    assert options == {item.name: default_of(item) for item in fields(pruner.Options)}


def test_what_is_not_plain_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """'''One line
that goes on.

More.'''
raise RuntimeError("this must not run")
class Base:
    kept = 1
    lost = 2
class Child(Base):
    lost = compute(3)
    bare: int
    words: tuple = ("a", "b")
"""
    (tmp_path / "read_only_as_text.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    told = read_class("read_only_as_text:Child")
    assert told == Declared("One line that goes on.", {"kept": 1, "words": ("a", "b")})


@pytest.mark.parametrize("reference", ["", "nothing:There", "json:Nothing", "math:floor"])
def test_no_source_says_nothing(reference: str) -> None:
    assert read_class(reference).values == {}
