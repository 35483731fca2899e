from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fpcli
from fpcli import plugins
from fpcli.engine.method import Traits


def test_all_methods(fp: Callable) -> None:
    done = fp("methods", "--json")
    items = json.loads(done.out)["data"]["items"]
    assert [item["name"] for item in items] == list(plugins.list_names("methods"))
    for item in items:
        assert item["paper"]
        assert item["summary"].endswith(".")
        assert item["runs"] == ["pool", "inline"]
        assert Traits(**item["traits"]) == plugins.lookup("methods", item["name"]).traits
    table = fp("methods")
    heads = ["method", "cuts", "paper", "sub-models differ", "models", "runs"]
    assert columns(table.out.splitlines()[0]) == heads
    rows = {row[0]: row[1:] for row in map(columns, table.out.splitlines()[2:])}
    assert list(rows) == [item["name"] for item in items]
    assert rows["subfedavg"] == [
        "weights", "Vahidian et al., ICDCS Workshops 2021", "yes", "personal", "pool, inline",
    ]  # fmt: skip
    assert rows["fedavg"][0::2] == ["nothing", "no", "pool, inline"]
    assert table.err.startswith("\nhint: ")


def columns(line: str) -> list[str]:
    return re.split(" {2,}", line.strip())


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("dense", "fedavg fedprox flexcom"),
        ("structured", "fedmp heterofl known-speeds pace random-mask uniform"),
        ("masks", "coverage prunefl"),
        ("personalised", "local-only nestfl subfedavg"),
        ("unlearning", "unlearn"),
        ("pruning", "fedprune-ica3pp filters gdp imt"),
    ],
)
def test_one_kind(fp: Callable, kind: str, members: str) -> None:
    items = json.loads(fp("methods", "--kind", kind, "--json").out)["data"]["items"]
    assert {item["kind"] for item in items} == {kind}
    assert {item["name"] for item in items} >= set(members.split())
    differing = {"coverage", "fedmp", "heterofl", "known-speeds", "nestfl", "pace", "subfedavg"}
    assert all(item["clients_differ"] == (item["name"] in differing) for item in items)


def test_an_unknown_kind(fp: Callable) -> None:
    done = fp("methods", "--kind", "control")
    assert (done.status, done.out) == (2, "")
    assert "known: dense, structured, masks, personalised, unlearning, pruning" in done.err


def test_traits_in_words(fp: Callable) -> None:
    """Cuts, sub-models and models are always told, and what is otherwise than with FedAvg."""
    assert facts(fp("methods", "fedavg").out) == {
        "paper": "McMahan et al., AISTATS 2017",
        "cuts": "nothing: clients train the whole model",
        "sub-models": "one for all clients of a round",
        "models": "one for all",
    }
    assert facts(fp("methods", "subfedavg").out) == {
        "paper": "Vahidian et al., ICDCS Workshops 2021",
        "cuts": "single weights: sub-models are sparse",
        "sub-models": "may differ from client to client",
        "models": "one per client, judged on test samples of its classes",
        "masks": "the client's own choice, within what it received",
        "masks travel": "only to clients that may not have them yet",
        "batch norm statistics": "stay with the clients",
        "channel indices": "travel along, so that clients remember by channel",
        "learns": "classes only",
    }
    assert facts(fp("methods", "imt").out)["cuts"] == "weights"


def facts(out: str) -> dict[str, str]:
    """Return the second paragraph of what is shown of a method."""
    pairs = (columns(line) for line in out.split("\n\n")[1].splitlines())
    return dict(pairs)


def test_one_method(fp: Callable) -> None:
    (item,) = json.loads(fp("methods", "fedmp", "--json").out)["data"]["items"]
    options = {row["name"]: row for row in item["options"]}
    assert options["ratio_max"]["default"] == "0.8"
    assert all(row["doc"] for row in options.values())
    done = fp("methods", "fedmp")
    assert "ratio_max" in done.out
    assert "recipes/fedmp/README.md" in done.err
    by_its_class = fp("methods", "fpcli.methods.fedmp:FedMP")
    assert by_its_class.out == done.out and "README.md" not in by_its_class.err
    assert "no options" in fp("methods", "fedavg").out


def test_a_method_of_the_current_folder(
    fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    lines = "from fpcli.methods.uniform import Uniform", "class Mine(Uniform): ..."
    (tmp_path / "shown_methods.py").write_text("\n".join(lines))
    (item,) = json.loads(fp("methods", "shown_methods:Mine", "--json").out)["data"]["items"]
    assert [row["name"] for row in item["options"]] == ["ratio", "score"]
    assert "page" not in fp("methods", "shown_methods:Mine").err, "it has none"
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


def test_what_is_no_method(fp: Callable) -> None:
    for name in ("os:getcwd", "fpcli.errors:FpError"):
        done = fp("methods", name)
        assert (done.status, done.out) == (2, "")
        assert f"`{name}` is no method" in done.err


def test_a_broken_method_of_another_package_is_left_out(
    fp: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"fedavg": "fpcli.methods.fedavg:FedAvg", "odd": "no_such_module:Odd"}
    monkeypatch.setattr("fpcli.plugins.list_names", lambda kind: table)
    done = fp("methods")
    assert done.status == 0
    assert "odd" not in done.out
    assert "warning: method `odd`: cannot import `no_such_module`" in done.err
