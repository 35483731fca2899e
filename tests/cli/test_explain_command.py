from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fpcli.error_pages import PAGES


def test_a_code_is_explained_in_words(fp: Callable) -> None:
    done = fp("explain", "F301")
    assert (done.status, done.err) == (0, "")
    first, blank, *facts = done.out.splitlines()
    assert first == "F301: A wrong key or value in a recipe."
    assert blank == ""
    causes, remedies, status = facts
    assert causes.startswith("causes ") and "without its unit" in causes
    assert remedies.startswith("remedies ") and "`fp recipe check FILE`" in remedies
    assert status.split() == ["exit", "status", "3"]
    assert fp("explain", "f301") == done


def test_all_codes_are_listed(fp: Callable) -> None:
    lines = fp("explain").out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(PAGES)
    assert lines[-1].split()[1] == "8"
    assert next(line for line in lines if line.startswith("F402")).split()[1] == "-"


def test_as_json(fp: Callable) -> None:
    (item,) = json.loads(fp("explain", "F502", "--json").out)["data"]["items"]
    assert list(item) == ["code", "meaning", "causes", "remedies", "status"]
    assert (item["code"], item["status"]) == ("F502", 5)
    assert len(json.loads(fp("explain", "--json").out)["data"]["items"]) == len(PAGES)


@pytest.mark.parametrize(
    ("code", "hint"), [("F5O2", "did you mean `F502`?"), ("xyz", "`fp explain` lists all")]
)
def test_an_unknown_code(fp: Callable, code: str, hint: str) -> None:
    done = fp("explain", code)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"error[F201]: there is no code `{code}`\n\nhint: {hint}\n"


def test_the_code_of_an_error_is_explained(fp: Callable) -> None:
    done = fp("train", "--set", "local.batchsize=3")
    code = done.err.partition("[")[2].partition("]")[0]
    (item,) = json.loads(fp("explain", code, "--json").out)["data"]["items"]
    assert item["status"] == done.status
