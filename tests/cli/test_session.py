from __future__ import annotations

import json

import pytest
import typer

from fpcli.cli.session import Session, error_text, to_json
from fpcli.errors import CheckError, NeedError


def test_read_from_the_words() -> None:
    session = Session.of(["train", "--json", "--method", "fedmp"])
    assert (session.command, session.is_json, session.is_lines, session.is_debug) == (
        "train",
        True,
        False,
        False,
    )
    assert Session.of(["--help"]).command == ""


def test_a_finding_comes_with_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session("train", is_json=True, warnings=["odd"])
    with pytest.raises(typer.Exit) as stopped:
        session.finish({"accuracy": float("nan")}, "text", CheckError("missed", hint="more"))
    assert stopped.value.exit_code == 8
    assert json.loads(capsys.readouterr().out) == {
        "format": 1,
        "command": "train",
        "status": "findings",
        "data": {"accuracy": None},
        "warnings": ["odd"],
        "error": {"code": "F801", "message": "missed", "hint": "more", "where": ""},
    }


def test_people_get_text(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session("train")
    session.finish({}, "text")
    session.hint("more")
    assert capsys.readouterr() == ("text\n", "\nhint: more\n")


def test_one_error_is_one_line() -> None:
    assert error_text(NeedError("a\nb\x1b[31m c")) == "error[F501]: a b[31m c"
    assert error_text(NeedError("a", hint="b\nc")) == "error[F501]: a\n\nhint: b c"


def test_json_has_no_odd_numbers() -> None:
    assert to_json({"a": [float("inf"), 1.5], 2: ()}) == '{"a": [null, 1.5], "2": []}'
