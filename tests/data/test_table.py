from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fpcli.data import cells, table
from fpcli.data.datasets import load_dataset
from fpcli.errors import DataError

ROWS = "\n".join(f"{number},{'red' if number % 3 else 'blue'},{number % 2}" for number in range(20))


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding, newline="")
    return f"csv:{path}"


def test_numbers_words_and_the_last_column(tmp_path: Path) -> None:
    """Of 10 rows per class 2 are for testing, and 1 of the other 8 for validation."""
    data = load_dataset(write(tmp_path / "t.csv", f"size,colour,even\n{ROWS}\n"), None, seed=0)
    assert (data.input_shape, data.class_names, data.owner_names) == ((3,), ("0", "1"), ())
    assert [len(split) for split in (data.train, data.validation, data.test)] == [14, 2, 4]
    for split in (data.train, data.validation, data.test):
        for (size, blue, red), label in zip(split.images.tolist(), split.labels, strict=True):
            assert label == size % 2
            assert [blue, red] == ([0, 1] if size % 3 else [1, 0])


def test_label_client_and_split_by_name(tmp_path: Path) -> None:
    text = (
        "label,client,x,split\n"
        'no,10,1.5,train\n\n"yes",9,2,train\nno,9,3e0,train\nyes,10,-4,train\n'
        "yes,11,5,test\nno,9,6,val\nyes,9,7,val\n"
    )
    data = load_dataset(write(tmp_path / "t.csv", text, "utf-8-sig"), None, seed=0)
    assert (data.class_names, data.owner_names) == (("no", "yes"), ("9", "10"))
    assert data.train.images.tolist() == [[1.5], [2.0], [3.0], [-4.0]]
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert data.train.owners is not None
    assert data.train.owners.tolist() == [1, 0, 0, 1]
    assert data.validation.images.tolist() == [[6.0], [7.0]]
    assert (data.test.images.tolist(), data.test.labels.tolist()) == ([[5.0]], [1])


def test_labels_that_are_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = "".join(f"{number},{('10', '9.5', '-1', '10.0')[number % 4]}\n" for number in range(24))
    name = write(tmp_path / "t.csv", f"x,y\n{rows}")
    data = load_dataset(name, None, kind="classify", seed=0)
    assert data.class_names == ("-1", "9.5", "10")


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "", "no rows below a header"),
        ("a,b\n", "", "no rows below a header"),
        ("1,2\n3,4\n", ":1", "must name all columns"),
        ("a,,c\n1,2,3\n", ":1", "must name all columns"),
        ("a,a\n1,2\n", ":1", "each differently"),
        ("label\n1\n", "", "no column with features"),
        ("client,split,y\n1,train,1\n", "", "no column with features"),
        ("a,y\n1,2\n\n1,2,3\n", ":4", "3 cells, the header has 2"),
        ("a,y\n1,0\n ,1\n", ":3", "column `a` is empty"),
        ("a,y\n1,0\n2,\n", ":3", "column `y` is empty"),
        ("a,y\n1,0\n2,1\n1o,1\n", ":4", "column `a` is `1o`, but other rows hold numbers"),
        ("a,y\nx,0\n2,1\nz,1\n", ":3", "column `a` is `2`, but other rows hold words"),
        ("a,y\n1,0\nnan,1\n", ":3", "column `a` is `nan`"),
        ("a,y\n1,0\n1e39,1\n", ":3", "column `a` is `1e39`"),
        ("a,split,y\n1,train,0\n2,dev,1\n", ":3", "column `split` is `dev`"),
        ('a,y\n1,0\n"2,1\n', ":3", "unexpected end of data"),
        ("a,y\nx,0\ny,1\nz,1\nw,0\n", ":2", "column `a` has more than 3 different words"),
        ("a,y\n" + "1,0\n1,1\n1,2\n1,3\n1,4\n" * 2, "", "10 rows, at most 4 classes can be"),
        ("a,y\n1,2024-01-01\n2,2024-01-02\n", "", "too few rows: each of its 2 labels stands"),
        ("a,y\n1,7\n2,7.0\n", "", "column `y` holds one class only, `7`"),
        ("a,y\n1,0\n2,1\n3,nan\n", ":4", "column `y` is `nan`, a missing label"),
        ("a,y\n1,0\n2,1\n3,NAN\n", ":4", "column `y` is `NAN`, a missing label"),
        ("a,y\n1,a\n2,b\n3,-Nan\n", ":4", "column `y` is `-Nan`, a missing label"),
        ("a,y\n1,0\n2,Null\n3,1\n", ":3", "column `y` is `Null`, a missing label"),
        ("a,y\n1,NA\n2,None\n3,1\n", ":2", "column `y` is `NA`, a missing label"),
        ("a,y\n1,0\n2,1\n3,-Inf\n", ":4", "column `y` is `-Inf`, an infinite label"),
        ("a,y\n1,0\n2,1\n3,1e999\n", ":4", "column `y` is `1e999`, an infinite label"),
        ("a,y,split\n1,0,test\n1,1,val\n", ":2", "column `split` never is `train`"),
        ("a,y\n1,0.5\n2,1e39\n3,2\n", ":3", "column `y` is `1e39`"),
        ("a,y\n1,0.5\n", "", "there are not the 2 samples that training and test data need"),
    ],
)
def test_errors_name_line_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, where: str, message: str
) -> None:
    monkeypatch.setattr(table, "MAX_WORDS", 3)
    monkeypatch.setattr(table, "MAX_CLASSES", 4)
    path = tmp_path / "t.csv"
    with pytest.raises(DataError) as caught:
        load_dataset(write(path, text), None, seed=0)
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}{where}")
    assert caught.value.where == f"{path}{where}"
    assert caught.value.hint


def labelled(path: Path, labels: Sequence[object], column: str = "y") -> str:
    rows = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
    return write(path, f"x,{column}\n{rows}")


def test_numbers_that_are_not_all_whole_are_predicted(tmp_path: Path) -> None:
    """Of 20 rows a fifth is for testing; of the other 16 a tenth, 2, for validation."""
    name = labelled(tmp_path / "t.csv", [number / 2 for number in range(20)])
    data = load_dataset(name, None, seed=0)
    assert (data.task.kind, data.task.num_outputs, data.class_names) == ("regress", 1, ())
    assert [len(split) for split in (data.train, data.validation, data.test)] == [14, 2, 4]
    for split in (data.train, data.validation, data.test):
        assert split.labels.dtype == torch.float32
        assert split.labels.equal(split.images[:, 0] / 2)
    again, other = (load_dataset(name, None, seed=seed) for seed in (0, 1))
    assert data.validation.labels.equal(again.validation.labels)
    assert not data.validation.labels.equal(other.validation.labels)
    assert data.test.labels.equal(other.test.labels)


def test_the_caller_says_what_whole_numbers_and_fractions_are(tmp_path: Path) -> None:
    """20 different fractions may be classes, 21 are none; whole numbers may be more."""
    path = tmp_path / "t.csv"
    halves = [number / 2 for number in range(20)] * 3
    classes = load_dataset(labelled(path, halves), None, kind="classify", seed=0)
    assert classes.num_classes == 20
    with pytest.raises(DataError, match=r"`y` holds 21 .* from 0 to 10: no classes") as caught:
        load_dataset(labelled(path, [*halves, 10, 10, 10]), None, kind="classify", seed=0)
    assert "--task classify" in caught.value.hint and "the last one is taken" in caught.value.hint
    with pytest.raises(DataError, match=r"`label` holds 4 .* no classes") as caught:
        labels = [0.1, 0.2, 0.3, 0.4, 0.4]
        load_dataset(labelled(path, labels, "label"), None, kind="classify", seed=0)
    assert "the last one" not in caught.value.hint
    name = labelled(path, [*range(50)] * 3)
    assert load_dataset(name, None, seed=0).num_classes == 50
    data = load_dataset(name, None, kind="regress", seed=0)
    assert (data.task.kind, data.train.labels.dtype) == ("regress", torch.float32)
    assert data.train.labels.equal(data.train.images[:, 0] % 50)
    with pytest.raises(DataError, match=r"task\.kind is `rank`, and the data is for `classify`"):
        load_dataset(name, None, kind="rank", seed=0)
    with pytest.raises(DataError, match=r":3: column `y` is `a`, no number"):
        load_dataset(labelled(path, [1, "a", 2, 3]), None, kind="regress", seed=0)


def test_labels_of_single_rows_are_no_classes(tmp_path: Path) -> None:
    """Of 30 labels 20 stand in one row each: most of all 37 rows."""
    path = tmp_path / "t.csv"
    labels = [f"id{number}" for number in range(30)] + [f"id{number}" for number in range(7)]
    with pytest.raises(DataError, match="holds no classes: 30 different labels in 37 rows"):
        load_dataset(labelled(path, labels), None, seed=0)
    assert load_dataset(labelled(path, labels * 2 + labels[7:20]), None, seed=0).num_classes == 30
    with pytest.raises(DataError, match=r"test_labels holds class `c`, of which"):
        load_dataset(
            write(path, "x,split,y\n1,train,a\n2,train,d\n3,test,c\n4,test,c\n"), None, seed=0
        )


def test_among_words_there_may_be_classes_called_na_or_inf(tmp_path: Path) -> None:
    """Namibia's code is `na`; without another word or number beside them they are names too."""
    names = ["de", "inf", "na", "none", "null"]
    assert load_dataset(labelled(tmp_path / "t.csv", names * 4), None, seed=0).class_names == (
        *names,
    )
    names = ["none", "null"]
    assert load_dataset(labelled(tmp_path / "t.csv", names * 4), None, seed=0).class_names == (
        *names,
    )
    names = ["9" * 320, "9" * 321]
    assert load_dataset(labelled(tmp_path / "t.csv", names * 4), None, seed=0).class_names == (
        *names,
    )


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (["a", "b"], "a class needs a row to learn from and one for testing"),
        (["a", "a"], "there must be two or more to learn"),
        ([0.5, 1.5, 2.5], "write words instead, if each is a class"),
        ([f"id{number}" for number in range(21)], "a class is a label that many rows share"),
        ([number for number in range(1001) for _ in range(2)], "join classes"),
    ],
)
def test_hints_know_whether_the_column_is_called_label(
    tmp_path: Path, labels: list[object], remedy: str
) -> None:
    for column in ("label", "y"):
        with pytest.raises(DataError) as caught:
            name = labelled(tmp_path / "t.csv", labels, column)
            load_dataset(name, None, kind="classify", seed=0)
        hint = caught.value.hint
        assert ("call the column that holds classes `label`" in hint) == (column == "y")
        assert remedy in hint or column == "y"


def test_numbers_too_large_to_tell_apart_are_names(tmp_path: Path) -> None:
    name = labelled(tmp_path / "t.csv", [2**53, 2**53 + 1] * 6)
    assert load_dataset(name, None, seed=0).class_names == (str(2**53), str(2**53 + 1))


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path / "t.csv", f"size,colour,even\n{ROWS}\n")
    monkeypatch.setattr(table, "MAX_BYTES", 239)
    with pytest.raises(DataError, match="20 rows of 3 features need more than"):
        load_dataset(name, None, seed=0)
    monkeypatch.setattr(cells, "MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="is larger than"):
        load_dataset(name, None, seed=0)
    with pytest.raises(DataError, match=r"no file .*none\.csv"):
        load_dataset(f"csv:{tmp_path / 'none.csv'}", None, seed=0)


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xff,1\n")
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_dataset(f"csv:{tmp_path / 't.csv'}", None, seed=0)
    assert "UTF-8" in caught.value.hint
