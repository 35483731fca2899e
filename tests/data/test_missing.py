from __future__ import annotations

from pathlib import Path

import pytest

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.errors import DataError

HOLES = (
    "x,word,split,y\n"
    "1,a,train,0\n3,b,train,1\nNA,a,train,0\n8,b,train,1\n"
    "100,a,test,0\n,b,test,1\n200,a,val,0\nnan,b,val,1\n"
)


def opened(path: Path, text: str, option: str = "") -> Dataset:
    (path / "t.csv").write_text(text)
    return load_dataset(f"csv:{path / 't.csv'}{option}", None, seed=0)


def test_means_are_those_of_the_training_rows(tmp_path: Path) -> None:
    """(1 + 3 + 8) / 3 = 4, whatever test and validation rows hold."""
    data = opened(tmp_path, HOLES, ",missing=mean")
    assert data.train.images[:, 0].tolist() == [1, 3, 4, 8]
    assert data.test.images.tolist() == [[100, 1, 0], [4, 0, 1]]
    assert data.validation.images[:, 0].tolist() == [200, 4]
    assert data.notes == (
        "missing=mean: 3 numbers missing in 3 of 8 rows, put at the mean of their column's "
        "training rows",
    )


def test_rows_that_are_drawn_for_testing_have_no_say_in_the_mean(tmp_path: Path) -> None:
    """The mean of ten rows but the two for testing; each row has a value of its own."""
    rows = "".join(f"{2**number},{number % 2}\n" for number in range(10))
    data = opened(tmp_path, f"x,y\n{rows},0\n,1\n", ",missing=mean")
    others = [*data.train.images.flatten().tolist(), *data.validation.images.flatten().tolist()]
    present = [value for value in others if value in {2.0**number for number in range(10)}]
    filled = {*others, *data.test.images.flatten().tolist()} - {2.0**n for n in range(10)}
    assert [*filled] == [pytest.approx(sum(present) / len(present))]
    assert data.notes[0].startswith("missing=mean: 2 numbers missing in 2 of 12 rows")


def test_rows_are_left_out(tmp_path: Path) -> None:
    data = opened(tmp_path, HOLES, ",missing=drop")
    assert data.train.images.tolist() == [[1, 1, 0], [3, 0, 1], [8, 0, 1]]
    assert (len(data.test), len(data.validation)) == (1, 1)
    assert data.notes == ("missing=drop: 3 of 8 rows left out, 3 numbers missing",)


def test_nothing_missing_is_nothing_to_tell(tmp_path: Path) -> None:
    text = "x,y\n" + "1,0\n2,1\n" * 5
    for option in ("", ",missing=mean", ",missing=drop"):
        assert opened(tmp_path, text, option).notes == ()


@pytest.mark.parametrize(
    ("text", "option", "where", "message", "hint"),
    [
        (HOLES, "", ":4", "column `x` is `NA`, a missing number", "missing=mean` puts the mean"),
        ("x,y\n1,0\n,1\n", "", ":3", "column `x` is empty", "csv:PATH,missing=drop`"),
        ("x,y\na,0\n,1\n", ",missing=mean", ":3", "is empty, and words have no mean", "drop`"),
        ("x,y\n1,0\n2,\n", ",missing=mean", ":3", "column `y` is empty", "fill it in"),
        ("x,y\n1,0\n2,NA\n", ",missing=drop", ":3", "is `NA`, a missing label", "fill it in"),
        ("x,y\n1,0\ninf,1\n", ",missing=mean", ":3", "column `x` is `inf`", "finite"),
        ("x,y\nnan,0\n,1\n", ",missing=drop", "", "every row misses a value", "leave out the col"),
        (
            "x,split,y\n,train,0\n,train,1\n3,test,0\n", ",missing=mean", "",
            "`x` has no number in any training row", "leave the column out",
        ),
        ("x,y\n1,0\n", ",missing=median", "", "`missing` is `median`", "`missing=mean` or"),
    ],
)  # fmt: skip
def test_what_stays_refused(
    tmp_path: Path, text: str, option: str, where: str, message: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        opened(tmp_path, text, option)
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{tmp_path / 't.csv'}{where}")
    assert hint in caught.value.hint


def test_names_among_words_are_not_missing(tmp_path: Path) -> None:
    text = "x,y\n" + "na,0\nnone,1\nde,0\n" * 5
    assert opened(tmp_path, text, ",missing=drop").input_shape == (3,)
