from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datafiles import write_mnist
from PIL import Image

from fpcli import plugins

TABLE = "size,client,colour\n" + "".join(
    f"{number},{'ab'[number % 2]},{('red', 'blue')[number // 10]}\n" for number in range(20)
)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Return a data folder with 20 training and test images of MNIST's layout."""
    write_mnist(tmp_path / "data" / "MNIST" / "raw", ("train", "t10k"), np.arange(20) % 10)
    return tmp_path / "data"


def items(fp: Callable, *words: str | Path) -> list[dict]:
    done = fp("data", *words, "--json")
    envelope = json.loads(done.out)
    assert (done.status, envelope["command"], envelope["error"]) == (0, f"data {words[0]}", None)
    return envelope["data"]["items"]


def test_all_names(fp: Callable, mnist: Path) -> None:
    found = items(fp, "list", "--data-dir", mnist)
    assert [item["name"] for item in found] == list(plugins.list_names("datasets"))
    states = {item["name"]: item["state"] for item in found}
    assert (states["digits"], states["mnist"], states["svhn"]) == (
        "bundled",
        "found",
        "not fetched",
    )
    assert found[1] == {
        "name": "breast-cancer",
        "kind": "table",
        "about": "measurements of tumours",
        "samples": 569,
        "input_shape": [30],
        "task": "classify",
        "outputs": 2,
        "state": "bundled",
    }
    about = {item["name"]: (item["kind"], item["task"], item["outputs"]) for item in found}
    assert about["diabetes"] == ("table", "regress", 1)
    assert about["ml-100k"] == ("sequences", "rank", 1349)
    assert states["ml-100k"] == "not fetched"
    assert states["markov"] == states["rec-synth"] == "made from a seed"
    table = fp("data", "list")
    assert "fashion-mnist" in table.out
    assert "1x28x28 images" in table.out
    assert "sequences of 50   rank         1,349" in table.out
    assert table.err.startswith("\nhint: `fp data show NAME`")


def test_a_data_set_of_another_package(fp: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpcli.plugins.list_names", lambda kind: {"theirs": "no_such:module"})
    (item,) = items(fp, "list")
    assert (item["kind"], item["state"]) == (None, "of another package")
    assert "theirs" in fp("data", "list").out


def test_listing_needs_no_torch(spawn: Callable) -> None:
    process = spawn("data", "list", env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    _, err = process.communicate(timeout=60)
    names = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert process.returncode == 0
    assert "fpcli.data.catalogue" in names
    assert not names & {"torch", "torchvision", "sklearn", "numpy"}


def test_show(fp: Callable, tmp_path: Path) -> None:
    (item,) = items(fp, "show", "digits")
    assert item["samples"] == {"train": 1295, "validation": 143, "test": 359}
    assert item["per_class"]["test"] == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert item["class_names"] == list("0123456789")
    assert (item["input_shape"], item["scale"], item["sha256"]) == ([1, 8, 8], 1 / 16, "sha256 ok")
    assert item["owners"] is None
    done = fp("data", "show", "digits", "-o", "sheet.png")
    assert done.out.startswith("digits · 1,797 1x8x8 images · 10 classes · bundled · sha256 ok\n")
    assert "picture             sheet.png" in done.out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_show_a_table(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    (item,) = items(fp, "show", "t.csv")
    assert (item["name"], item["kind"], item["state"]) == ("csv:t.csv", "table", "yours")
    assert item["class_names"] == ["blue", "red"]
    assert sum(item["owners"].values()) == item["samples"]["train"] == 14
    text = fp("data", "show", "csv:t.csv").out
    assert "20 rows of 1 features" in text
    assert "natural clients" in text


def test_show_numbers_to_be_predicted(fp: Callable, tmp_path: Path) -> None:
    """Of 20 rows with 0 to 9.5 a fifth is for testing, of the others a tenth for validation."""
    rows = "".join(f"{number},{number / 2}\n" for number in range(20))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}")
    (item,) = items(fp, "show", "t.csv")
    assert (item["task"], item["predicts"]) == ("regress", "a number to predict")
    assert (item["per_class"], item["class_names"]) == (None, [])
    assert item["samples"] == {"train": 14, "validation": 2, "test": 4}
    parts = item["per_part"].values()
    assert min(part["lowest"] for part in parts) == 0
    assert max(part["highest"] for part in parts) == 9.5
    total = sum(item["samples"][name] * part["mean"] for name, part in item["per_part"].items())
    assert total == pytest.approx(95)
    done = fp("data", "show", "t.csv")
    assert done.out.startswith("csv:t.csv · 20 rows of 1 features · a number to predict · yours\n")
    assert "part         samples   lowest" in done.out
    assert "class" not in done.out


def test_show_sequences(fp: Callable, tmp_path: Path) -> None:
    """Of eight users with six items each three are trained on, and predict five others."""
    text = "".join(f"{user}\t{time}\t5\t{time}\n" for user in range(8) for time in range(6))
    (tmp_path / "u.data").write_text(text)
    (item,) = items(fp, "show", "u.data")
    assert (item["name"], item["kind"], item["task"]) == ("ratings:u.data", "sequences", "rank")
    assert (item["outputs"], item["input_shape"], item["mean"]) == (6, [50], [])
    assert item["per_part"] == {
        "train": {"users": 8, "next items": 3},
        "validation": {"users": 8, "next items": 1},
        "test": {"users": 8, "next items": 1},
    }
    assert item["owners"] == {str(user): 3 for user in range(8)}
    done = fp("data", "show", "ratings:u.data,length=4")
    assert done.out.startswith("ratings:u.data,length=4 · 40 sequences of 4 · 6 items · yours\n")
    assert "train             24       8            3" in done.out
    assert "8 with 3 to 3 training samples" in done.out
    assert "mean" not in done.out
    done = fp("data", "check", "ratings:u.data")
    assert done.out.splitlines() == [
        "ratings:u.data · 40 sequences of 50 · 6 items · yours: ok", *item["notes"],
    ]  # fmt: skip
    assert "made from a seed" in fp("data", "show", "markov").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "-o", "x.jpg"], "x.jpg does not end in .png"),
        (["digits", "-o", "t.png"], "t.png exists"),
        (["digits", "-o", "none/t.png"], "there is no folder none"),
        (["breast-cancer", "-o", "x.png"], "a table has no pictures"),
        (["diabetes", "-o", "x.png"], "a table has no pictures"),
        (["markov", "-o", "x.png"], "sequences have no pictures"),
        (["npz:r.npz", "-o", "x.png"], "and the data's task is `regress`"),
        (["digit"], "unknown data set `digit`"),
    ],
)
def test_wrong_words_of_show(fp: Callable, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "t.png").write_bytes(b"mine")
    images, labels = np.zeros((9, 4, 4), np.uint8), np.arange(9) / 2
    arrays = {"train_images": images, "train_labels": labels}
    np.savez(tmp_path / "r.npz", **arrays, test_images=images, test_labels=labels)
    done = fp("data", "show", *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert (tmp_path / "t.png").read_bytes() == b"mine"
    assert not (tmp_path / "x.png").exists()


def test_check_and_fetch_agree_on_what_is_there(fp: Callable, mnist: Path) -> None:
    done = fp("data", "check", "mnist", "--data-dir", mnist)
    assert done.out == (
        "mnist · 40 1x28x28 images · 10 classes · found · sha256 not recorded: ok\n"
    )
    (item,) = items(fp, "fetch", "mnist", "--data-dir", mnist)
    assert item["files"][0] == "MNIST/raw/train-images-idx3-ubyte"
    assert item["bytes"] == 2 * (16 + 20 * 784 + 8 + 20)
    done = fp("data", "fetch", "mnist", "--data-dir", mnist)
    assert done.out == "mnist · 4 files · 31.4 kB · sha256 ok\n"
    assert done.err == f"mnist is in {mnist}: nothing to fetch\n"
    assert "sha256 ok: ok" in fp("data", "check", "mnist", "--data-dir", mnist).out
    path = mnist / "MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for command in ("check", "show", "fetch"):
        done = fp("data", command, "mnist", "--data-dir", mnist)
        assert (done.status, done.out) == (3, "")
        assert f"{path} is damaged" in done.err
        assert "hint: delete it" in done.err


def test_check_of_files(fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpcli.data.pictures.user_cache_path", lambda name: tmp_path / "cache")
    (tmp_path / "t.csv").write_text(TABLE.replace("17,", ","))
    done = fp("data", "check", tmp_path / "t.csv")
    assert (done.status, done.out) == (3, "")
    assert "t.csv:19: column `size` is empty" in done.err
    for label in "ab":
        for number in range(5):
            path = tmp_path / "imgs" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), number).save(path)
    assert fp("data", "check", "imgs").out.endswith("10 1x4x4 images · 2 classes · yours: ok\n")
    path.write_bytes(b"x")
    done = fp("data", "check", "imgs/")
    assert done.status == 3
    assert f"{path.name} is no usable image" in done.err


def test_own_function(fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "ownrows.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    rows, labels = np.zeros((20, 3)), np.arange(20) % 2\n"
        "    return dict(train_images=rows, train_labels=labels,\n"
        "                test_images=rows, test_labels=labels)\n"
    )
    (item,) = items(fp, "check", "ownrows:make")
    assert (item["input_shape"], item["state"]) == ([3], "yours")


def test_nothing_to_fetch(fp: Callable) -> None:
    done = fp("data", "fetch", "digits", "--data-dir", "x")
    assert done.out == "digits · bundled\n"
    done = fp("data", "fetch", "mnist")
    assert done.status == 3
    assert "give --data-dir FOLDER or set FP_DATA_DIR" in done.err


def test_no_network(fp: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr("torchvision.datasets.SVHN.download", fail)
    done = fp("data", "fetch", "svhn", "--data-dir", "x")
    assert (done.status, done.out) == (5, "")
    first, message, *_ = done.err.splitlines()
    assert first == "downloading svhn to x"
    assert message.startswith("error[F501]: data `svhn` cannot be downloaded: [Errno -2] Name")


def test_completion(spawn: Callable) -> None:
    request = {"_FP_COMPLETE": "complete_bash", "COMP_WORDS": "fp data show emn", "COMP_CWORD": "3"}
    out, _ = spawn(env=os.environ | request).communicate(timeout=60)
    assert out.split() == [
        "emnist",
        *(name for name in plugins.list_names("datasets") if "emnist-" in name),
    ]


def test_what_was_done_to_a_table_is_told(fp: Callable, tmp_path: Path) -> None:
    rows = "".join(f"{number};{number % 2}\n" for number in range(30))
    (tmp_path / "t.csv").write_text(f"x;y\n{rows}NA;0\n")
    name = "csv:t.csv,missing=drop"
    note = "missing=drop: 1 of 31 rows left out, 1 number missing"
    assert note in fp("data", "show", name).out
    assert fp("data", "check", name).out.splitlines()[1] == note
    assert note in fp("data", "split", name, "--clients", "2").out
    (item,) = json.loads(fp("data", "show", name, "--json").out)["data"]["items"]
    assert item["notes"] == [note]
    done = fp("fit", "--data", name, "--model", "tabular-mlp", "--epochs", "1", "--json")
    assert done.status == 0 and note in done.err
    done = fp("data", "show", "csv:t.csv")
    assert (done.status, "csv:PATH,missing=mean" in done.err) == (3, True)
