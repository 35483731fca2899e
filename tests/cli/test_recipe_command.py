from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fpcli.recipe import load
from fpcli.recipe.load import list_shipped, load_recipe, name_shipped


def test_the_list(fp: Callable) -> None:
    done = fp("recipe", "list", "--method", "fedmp")
    assert done.status == 0
    head, _, *rows = done.out.splitlines()
    assert head.split() == ["recipe", "command", "paper", "expected", "minutes", "machine"]
    names = [row.split()[0] for row in rows]
    assert names == ["fedmp/digits", "fedmp/mnist", "fedmp/mnist_printed"]
    envelope = json.loads(fp("recipe", "list", "--json").out)
    items = envelope["data"]["items"]
    assert len(items) == len(list_shipped())
    assert list(items[0]) == [
        "name", "kind", "command", "method", "data", "model", "about", "paper", "result", "measure",
        "expected", "tolerance", "machine", "minutes",
    ]  # fmt: skip
    assert {item["kind"] for item in items} == {"recipe", "smoke"}


@pytest.mark.parametrize(
    ("expected", "tolerance", "text"),
    [
        ("accuracy 0.983", "0.01", "98.3% ± 1.0"),
        ("clients_accuracy 0.9", "0.05", "90.0% ± 5.0 (clients)"),
        ("best_hr@10 0.21", "0.02", "hr@10 21.0% ± 2.0 (best)"),
        ("mae 44.5", "2", "mae 44.5 ± 2"),
    ],
)
def test_what_is_expected(
    fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    expected: str, tolerance: str, text: str,
) -> None:  # fmt: skip
    recipe = name_shipped()["fedavg/digits"].read_text("utf-8")
    recipe = re.sub(r"(?<=# expected: ).*", expected, recipe)
    recipe = re.sub(r"(?<=# tolerance: ).*", tolerance, recipe)
    (tmp_path / "a.yaml").write_text(recipe)
    monkeypatch.setattr(load, "name_shipped", lambda: {"mine/a": tmp_path / "a.yaml"})
    assert f"  {text}  " in fp("recipe", "list").out


def test_one_recipe(fp: Callable) -> None:
    done = fp("recipe", "show", "fedmp/digits")
    assert done.out == name_shipped()["fedmp/digits"].read_text("utf-8")
    resolved = fp("recipe", "show", "fedmp/digits", "--resolved").out
    assert "  ratio_max: 0.8\n" in resolved and "#" not in resolved
    data = json.loads(fp("recipe", "show", "fedmp/digits", "--json").out)["data"]
    assert data["recipe"]["method.ratio_max"] == 0.8
    assert data["text"] == done.out


def test_a_copy_is_the_same_recipe(fp: Callable, tmp_path: Path) -> None:
    assert fp("recipe", "copy", "fedmp/digits").out == "wrote fedmp-digits.yaml\n"
    copied = tmp_path / "fedmp-digits.yaml"
    assert load_recipe(copied) == load_recipe(name_shipped()["fedmp/digits"])
    copied.write_text("mine")
    done = fp("recipe", "copy", "fedmp/digits")
    assert done.status == 2 and "exists" in done.err and "--force" in done.err
    assert copied.read_text() == "mine"
    assert fp("recipe", "copy", "fedmp/digits", "--force").status == 0
    (tmp_path / "mine").mkdir()
    assert fp("recipe", "copy", "fedmp/digits", "mine").out == "wrote mine/fedmp-digits.yaml\n"
    assert fp("recipe", "copy", "fedmp/digits", "mine/a.yaml").out == "wrote mine/a.yaml\n"
    done = fp("recipe", "copy", "fedmp/digits", "no/a.yaml")
    assert done.status == 2 and "there is no folder no" in done.err


def test_checking(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("recipe: 1\nrounds: 3\n")
    (tmp_path / "bad.yaml").write_text("recipe: 1\nlocal:\n  batchsize: 3\n")
    (tmp_path / "worse.yaml").write_text("rounds: 0\n")
    done = fp("recipe", "check", "good.yaml", "smoke/tiny")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0].split(maxsplit=2) == [
        "good.yaml", "ok", "fp train, fedavg, digits, digits-cnn, 10 clients, 3 rounds",
    ]  # fmt: skip
    done = fp("recipe", "check", "good.yaml", "bad.yaml")
    assert done.status == 3
    assert "error[F301]: bad.yaml:3: unknown key `local.batchsize`" in done.err
    assert "did you mean `local.batch_size`?" in done.err
    done = fp("recipe", "check", "bad.yaml", "worse.yaml", "--json")
    envelope = json.loads(done.out)
    assert (done.status, envelope["status"]) == (3, "error")
    assert envelope["error"]["message"] == "2 of 2 recipes are wrong"
    assert [item["where"] for item in envelope["data"]["items"]] == ["bad.yaml:3", "worse.yaml:1"]


def test_the_keys(fp: Callable) -> None:
    done = fp("recipe", "schema", "task.partition")
    assert [line.split()[0] for line in done.out.splitlines()[2:]][:2] == [
        "task.partition.kind", "task.partition.alpha",
    ]  # fmt: skip
    assert "method.ratio_max" in fp("recipe", "schema", "method", "--method", "fedmp").out
    assert json.loads(fp("recipe", "schema", "--json").out)["data"]["keys"][0]["name"] == "recipe"
    schema = json.loads(fp("recipe", "schema", "--editor").out)
    assert schema["properties"]["rounds"]["minimum"] == 1


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["list", "--method", "fedmpp"], "unknown method `fedmpp`", "did you mean `fedmp`?"),
        (["show", "fedmp/digit"], "no recipe `fedmp/digit`", "did you mean `fedmp/digits`?"),
        (["copy"], "missing argument 'NAME'", "fp recipe copy --help"),
        (["schema", "locl"], "starts with `locl`", "did you mean `local`?"),
    ],
)
def test_wrong_words(fp: Callable, words: list[str], message: str, hint: str) -> None:
    done = fp("recipe", *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err and hint in done.err
