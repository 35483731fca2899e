from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fpcli
from fpcli import plugins


def test_all_methods(fp: Callable) -> None:
    done = fp("methods", "--json")
    items = json.loads(done.out)["data"]["items"]
    assert [item["name"] for item in items] == list(plugins.names("methods"))
    for item in items:
        assert item["paper"]
        assert item["summary"].endswith(".")
        assert item["runs"] == ["pool", "inline"]
    table = fp("methods")
    assert table.out.splitlines()[0].split() == [
        "method",
        "kind",
        "paper",
        "clients",
        "differ",
        "runs",
        "today",
    ]
    assert all(name in table.out for name in plugins.names("methods"))
    assert table.err.startswith("\nhint: ")


def test_one_kind(fp: Callable) -> None:
    items = json.loads(fp("methods", "--kind", "dense", "--json").out)["data"]["items"]
    assert {item["kind"] for item in items} == {"dense"}


def test_one_method(fp: Callable) -> None:
    (item,) = json.loads(fp("methods", "fedmp", "--json").out)["data"]["items"]
    options = {row["name"]: row for row in item["options"]}
    assert options["ratio_max"]["default"] == "0.8"
    assert all(row["doc"] for row in options.values())
    done = fp("methods", "fedmp")
    assert "ratio_max" in done.out
    assert "recipes/fedmp/README.md" in done.err
    assert "no options" in fp("methods", "fedavg").out


def test_a_method_of_the_current_folder(
    fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    lines = "from fpcli.methods.uniform import Uniform", "class Mine(Uniform): ..."
    (tmp_path / "shown_methods.py").write_text("\n".join(lines))
    (item,) = json.loads(fp("methods", "shown_methods:Mine", "--json").out)["data"]["items"]
    assert [row["name"] for row in item["options"]] == ["ratio", "score"]
    (tmp_path / "older_methods.py").write_text("from fpcli.engine.method import Bygone")
    for words in (("methods",), ("train", "--dry-run", "--method")):
        done = fp(*words, "older_methods:Mine")
        assert (done.status, done.out) == (5, "")
        message, _, hint = done.err.splitlines()
        assert message == (
            "error[F501]: `older_methods` was written for another version of fpcli: `Bygone` of "
            f"`fpcli.engine.method` is not in {fpcli.__version__}"
        )
        assert hint.startswith("hint: CHANGELOG.md tells what changed, README.md (Adding a method)")


def test_a_broken_method_of_another_package_is_left_out(
    fp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"fedavg": "fpcli.methods.fedavg:FedAvg", "odd": "no_such_module:Odd"}
    monkeypatch.setattr("fpcli.plugins.names", lambda kind: table)
    done = fp("methods")
    assert done.status == 0
    assert "odd" not in done.out
    assert "warning: method `odd`: cannot import `no_such_module`" in done.err
