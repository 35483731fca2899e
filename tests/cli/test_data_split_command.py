from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpcli.data.partition import split_digest
from fpcli.recipe.load import load_recipe
from fpcli.train.setup import prepare_run

Fp = Callable[..., Any]


@pytest.fixture
def toys(tmp_path: Path) -> str:
    """Return data without a usual network: 8 training images of 2 classes, 5 + 1 test images."""
    images = np.zeros((8, 8, 8), dtype=np.uint8)
    np.savez(
        tmp_path / "toys.npz",
        train_images=images, train_labels=[0, 1] * 4,
        val_images=images[:2], val_labels=[0, 1],
        test_images=images[:6], test_labels=[0, 0, 0, 0, 0, 1],
    )  # fmt: skip
    return "npz:toys.npz"


def test_the_table(fp: Fp, toys: str) -> None:
    """With one of two classes each, the two clients have four images and their own test images."""
    done = fp("data", "split", toys, "--clients", 2, "--by", "classes",
              "--set", "task.partition.classes_per_client=1")  # fmt: skip
    assert done.status == 0
    title, words, head, _, *rows, sizes, test = done.out.splitlines()
    assert title == "npz:toys.npz: 8 training samples of 1x8x8, 2 classes"
    assert words.startswith("split: classes (classes per client 1), 2 clients, seed 0, digest ")
    assert head.split() == ["client", "train", "test", "classes", "0", "1"]
    assert {tuple(row.split()[1:]) for row in rows} == {
        ("4", "5", "1", "4", "0"),
        ("4", "1", "1", "0", "4"),
    }
    assert sizes == "min 4, median 4, max 4 samples; every sample used once"
    assert test.startswith("test: the test samples of a client's own classes")
    assert done.err == ""


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--by", "dirichlet", "--alpha", "0.3", "--min-size", "10", "--seed", "3"],
         {"kind": "dirichlet", "alpha": 0.3, "min_size": 10}),
        (["--partition", "quantity", "--set", "task.partition.imbalance=4", "--seed", "3"],
         {"kind": "quantity", "imbalance": 4}),
    ],
)  # fmt: skip
def test_it_is_the_split_of_training(
    fp: Fp, tmp_path: Path, words: list[str], settings: dict[str, Any]
) -> None:
    shown = json.loads(fp("data", "split", "digits", "--clients", 5, *words, "--json").out)
    data = shown["data"]
    flags = {f"task.partition.{key}": value for key, value in settings.items()}
    setup = prepare_run(load_recipe(None, flags={"task.clients": 5, "seed": 3} | flags), tmp_path)
    assert data["sha256"] == split_digest(setup.parts)
    assert [client["train"] for client in data["clients"]] == list(setup.fed.num_examples)
    assert data["used"] == sum(map(len, setup.parts))
    assert data["partition"] | settings == data["partition"]


def test_withheld_classes_are_left_out(fp: Fp, tmp_path: Path) -> None:
    """Of eight clients with two shards each one has nothing else, and never trains."""
    words = ["digits", "--clients", 8, "--by", "shards", "--set", "task.withhold=[0,1,2]"]
    done = fp("data", "split", *words)
    assert done.status == 0
    assert (
        "withheld: class 0, 1, 2; without other samples and never asked: 1 of 8 clients" in done.out
    )
    data = json.loads(fp("data", "split", *words, "--json").out)["data"]
    flags = {"task.clients": 8, "task.partition.kind": "shards", "task.withhold": (0, 1, 2)}
    setup = prepare_run(load_recipe(None, flags=flags), tmp_path)
    assert data["withheld"] == [0, 1, 2]
    assert [client["train"] for client in data["clients"]] == list(setup.fed.num_examples)
    assert all(client["labels"][:3] == [0, 0, 0] for client in data["clients"])
    assert data["used"] == sum(setup.fed.num_examples)


def test_the_server_stands_last(fp: Fp, toys: str, tmp_path: Path) -> None:
    """A quarter of 4 + 4 images is one of each class."""
    words = [toys, "--clients", 2, "--set", "task.server_share=0.25"]
    done = fp("data", "split", *words)
    row = next(line.split() for line in done.out.splitlines() if line.startswith("server"))
    assert row == ["server", "2", "2", "1", "1"]
    assert "min 3, median 3, max 3 samples; every sample used once" in done.out
    data = json.loads(fp("data", "split", *words, "--json").out)["data"]
    assert data["server"] == {"train": 2, "classes": 2, "labels": [1, 1]}
    assert (data["used"], [client["train"] for client in data["clients"]]) == (8, [3, 3])
    flags = {"task.data": toys, "task.model": "digits-cnn", "task.clients": 2}
    setup = prepare_run(load_recipe(None, flags=flags | {"task.server_share": 0.25}), tmp_path)
    assert data["sha256"] == split_digest(setup.parts)
    assert setup.fed.server_side.label_counts.tolist() == [1, 1]


def test_a_written_split_goes_with_the_same_server(fp: Fp, toys: str) -> None:
    share = ("--set", "task.server_share=0.25")
    drawn = fp("data", "split", toys, "--clients", 3, *share, "-o", "split.json")
    assert "--set task.partition.file=split.json --set task.server_share=0.25`" in drawn.err
    assert len(json.loads(Path("split.json").read_text())["server"]) == 2
    other = ("--set", "task.validation_fraction=0.2", "-o", "other.json")
    assert (
        "other.json --set task.validation_fraction=0.2`"
        in fp("data", "split", toys, "--clients", 2, *other).err
    )
    words = (toys, "--clients", 3, "--by", "file", "--set", "task.partition.file=split.json")
    read = fp("data", "split", *words, *share)
    assert read.out.splitlines()[2:8] == drawn.out.splitlines()[2:8]
    refused = fp("data", "split", *words, "--set", "task.server_samples=5")
    assert (refused.status, refused.out) == (3, "")
    assert "which the server has" in refused.err


def test_json(fp: Fp, toys: str) -> None:
    shown = json.loads(fp("data", "split", toys, "--clients", "1", "--json").out)
    assert (shown["command"], shown["status"]) == ("data split", "ok")
    data = shown["data"]
    assert data["clients"] == [{"client": 0, "train": 8, "test": 6, "classes": 2, "labels": [4, 4]}]
    assert (data["samples"], data["used"], data["seed"], data["files"]) == (8, 8, 0, [])
    assert data["server"] == {"train": 0, "classes": 0, "labels": [0, 0]}
    assert len(data["sha256"]) == 64


def test_a_written_split_can_be_used(fp: Fp, toys: str) -> None:
    drawn = fp("data", "split", toys, "--clients", "3", "--seed", "5", "-o", "split.json")
    assert drawn.status == 0
    assert "wrote split.json, split.png, split.svg" in drawn.out
    assert "--partition file --set task.partition.file=split.json" in drawn.err
    assert all(Path(f"split.{kind}").stat().st_size > 150 for kind in ("json", "png", "svg"))
    read = fp("data", "split", toys, "--clients", "3", "--by", "file",
              "--set", "task.partition.file=split.json")  # fmt: skip
    assert read.out.splitlines()[2:7] == drawn.out.splitlines()[2:7]
    digests = {done.out.split("digest ")[1][:16] for done in (drawn, read)}
    assert len(digests) == 1


@pytest.fixture
def plays(tmp_path: Path) -> str:
    """Return histories of 9 users: 8 items each for all but the last, who has 4; of each, all but
    the last two and the first are to be predicted in training: 5, and 1."""
    rows = ((user, item) for user in range(9) for item in range(8 if user < 8 else 4))
    text = "".join(f"{user},{item},{item}\n" for user, item in rows)
    (tmp_path / "p.csv").write_text(f"user,item,time\n{text}")
    return "ratings:p.csv,core=1,length=5"


def test_users_are_clients_or_stay_together(fp: Fp, plays: str) -> None:
    """Nine users on four clients are two each, and the last client has the ninth too."""
    done = fp("data", "split", plays, "--clients", 4, "--by", "natural")
    assert done.status == 0
    title, _, words, head, _, *rows, sizes, test = done.out.splitlines()
    assert title == f"{plays}: 41 training sequences of 5, 8 items"
    assert words.startswith("split: natural, 4 clients, seed 0, digest ")
    assert head.split() == ["client", "train", "test", "owners"]
    assert [row.split() for row in rows] == [
        ["0", "10", "2", "2"], ["1", "10", "2", "2"], ["2", "10", "2", "2"], ["3", "11", "3", "3"],
    ]  # fmt: skip
    assert sizes == "min 10, median 10, max 11 samples; every sample used once"
    assert test.startswith("test: the test samples of a client's own owners")
    each = json.loads(fp("data", "split", plays, "--clients", 9, "--by", "natural", "--json").out)
    data = each["data"]
    assert data["clients"][8] == {"client": 8, "train": 1, "test": 1, "owners": 1}
    assert (data["task"], data["predicts"], data["server"]["train"]) == ("rank", "8 items", 0)


def test_a_split_without_classes_can_be_written_and_used(fp: Fp) -> None:
    words = ("diabetes", "--clients", 3, "--set", "task.server_samples=20")
    drawn = fp("data", "split", *words, "-o", "split.json")
    assert drawn.status == 0
    lines = drawn.out.splitlines()
    assert lines[0] == "diabetes: 319 training samples of 10, a number to predict"
    assert lines[2].split() == ["client", "train", "test"]
    assert [line.split() for line in lines[4:8]] == [
        ["0", "100", "88"], ["1", "100", "88"], ["2", "99", "88"], ["server", "20"],
    ]  # fmt: skip
    assert "test: all test samples" in lines[-2]
    shown = Path("split.svg").read_text()
    assert "samples" in shown and ">class<" not in shown
    read = fp("data", "split", *words, "--by", "file", "--set", "task.partition.file=split.json")
    assert read.out.splitlines()[2:8] == lines[2:8]


def test_owners_of_a_table_have_no_test_samples_of_their_own(fp: Fp, tmp_path: Path) -> None:
    rows = "".join(f"{number},{number % 3},{number / 2}\n" for number in range(30))
    (tmp_path / "t.csv").write_text(f"x,client,y\n{rows}")
    done = fp("data", "split", "csv:t.csv", "--clients", 3, "--by", "natural")
    assert done.out.splitlines()[2].split() == ["client", "train", "test", "owners"]
    assert {tuple(row.split()[2:]) for row in done.out.splitlines()[4:7]} == {("6", "1")}
    assert "test: all test samples" in done.out


def test_the_hint_says_what_is_learned(fp: Fp, tmp_path: Path) -> None:
    """Labels that are numbers have another digest than labels that are classes."""
    rows = "".join(f"{number},{number % 5}\n" for number in range(40))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}")
    words = ("csv:t.csv", "--clients", 2, "--set", "task.kind=regress")
    drawn = fp("data", "split", *words, "-o", "split.json")
    assert "a number to predict" in drawn.out
    assert "--set task.partition.file=split.json --set task.kind=regress`" in drawn.err
    file = ("--by", "file", "--set", "task.partition.file=split.json")
    assert fp("data", "split", *words, *file).status == 0
    assert fp("data", "split", *words[:3], *file).status == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "dirichlet"], "task.partition.kind is `dirichlet`, which goes by classes"),
        (["--set", "task.partition.imbalance=2"], "task.partition.imbalance is 2, a long tail"),
        (["--set", "task.withhold=[1]"], "no class can be withheld: data `diabetes`"),
        (["--set", "task.server_samples=319"], "the server can have 318, since one stays"),
        (["--set", "task.kind=classify"], "task.kind is `classify`, and the data is for `regress`"),
        (["--set", "task.sampled_negatives=9"], "task.sampled_negatives is 9, and the data's task"),
    ],
)
def test_what_needs_classes_or_items(fp: Fp, words: list[str], message: str) -> None:
    done = fp("data", "split", "diabetes", "--clients", "2", *words)
    assert (done.status, done.out) == (3, "")
    assert message in done.err


def test_nothing_is_replaced_unless_forced(fp: Fp, toys: str) -> None:
    Path("split.svg").write_text("mine")
    refused = fp("data", "split", toys, "--clients", "2", "-o", "split.json")
    assert (refused.status, refused.out) == (2, "")
    assert "split.svg exists" in refused.err
    assert not Path("split.json").exists()
    assert fp("data", "split", toys, "--clients", "2", "-o", "split.json", "--force").status == 0
    assert Path("split.svg").read_text() != "mine"


def test_what_is_left_out_is_said(fp: Fp, toys: str) -> None:
    """Factor 4 leaves 4 of the first class and 1 of the second."""
    done = fp("data", "split", toys, "--clients", "1", "--set", "task.partition.imbalance=4")
    assert "split: iid (imbalance 4.0), 1 clients" in done.out
    assert "5 of 8 samples used, each once" in done.out


def test_many_classes_have_no_columns(fp: Fp, tmp_path: Path) -> None:
    images, labels = np.zeros((42, 8, 8), dtype=np.uint8), list(range(21)) * 2
    keys = {f"{part}_{what}": value for part in ("train", "val", "test")
            for what, value in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "many.npz", **keys)
    done = fp("data", "split", "npz:many.npz", "--clients", 2)
    assert done.out.splitlines()[2].split() == ["client", "train", "test", "classes"]
    assert len(done.out.splitlines()[4].split()) == 4


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--by", "dirichle"], 2, "did you mean `dirichlet`?"),
        (["--alpha", "0"], 2, "`task.partition.alpha` must be > 0"),
        (["--clients", "9"], 3, "there are 8"),
        (["--by", "natural"], 3, "does not say who owns"),
        (["--set", "task.server_samples=7"], 3, "the server can have 6"),
        (["--by", "file"], 3, "task.partition.file"),
        (["-o", "split.txt"], 2, "not a name that ends in .json"),
        (["-o", "none/split.json"], 2, "there is no folder none"),
        (["--set", "task.augment=cut"], 2, "`task.augment` must be one of none, crop, crop-flip"),
    ],
)
def test_errors(fp: Fp, toys: str, words: list[str], status: int, message: str) -> None:
    done = fp("data", "split", toys, "--clients", "2", *words)
    assert (done.status, done.out) == (status, "")
    assert message in done.err
