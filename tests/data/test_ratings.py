from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from fpcli.data import ratings
from fpcli.data.catalogue import CATALOGUE
from fpcli.data.datasets import Dataset, load_dataset
from fpcli.errors import DataError

LOG = [
    # user, item, time: user 10 in the order 7, 30, 8, 9, 7; the items 30 and 8 have one time
    (10, 30, 5), (9, 7, 1), (10, 8, 5), (10, 7, 2), (9, 30, 2), (9, 8, 2), (10, 9, 6), (10, 7, 7),
    (9, 9, 9),
]  # fmt: skip


def lines(between: str) -> str:
    return "".join(between.join(map(str, (u, i, 3, t))) + "\n" for u, i, t in LOG)


def load(path: Path | str, options: str = ",core=1,length=3", **more: int) -> Dataset:
    return load_dataset(f"ratings:{path}{options}", None, seed=0, **more)  # type: ignore[arg-type]


def check(data: Dataset) -> None:
    """Users are 9 and 10, items 7, 8, 9 and 30, which get the ids 1 to 4."""
    assert data.owner_names == ("9", "10")
    assert (data.task.kind, data.task.num_outputs, data.input_shape) == ("rank", 4, (3,))
    assert (data.scale, data.mean, data.std) == (1.0, (), ())
    train, validation, test = (
        [(s.images.tolist(), s.labels.tolist(), s.owners) for s in (data.train,)],
        data.validation,
        data.test,
    )
    ((images, labels, owners),) = train
    assert images == [[0, 0, 1], [0, 0, 1], [0, 1, 4]]
    assert labels == [3, 3, 1]
    assert owners is not None and owners.tolist() == [0, 1, 1]
    assert validation.images.tolist() == [[0, 1, 4], [1, 4, 2]]
    assert validation.labels.tolist() == [1, 2]
    assert test.images.tolist() == [[1, 4, 2], [4, 2, 3]]
    assert test.labels.tolist() == [2, 0]
    assert test.owners is not None and test.owners.tolist() == [0, 1]
    assert data.train.images.dtype == torch.int16
    assert data.normalise(data.train.images).dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.data", lines("\t")),
        ("ratings.dat", lines("::")),
        ("ratings.csv", "userId,movieId,rating,timestamp\n" + lines(",")),
        ("plays.csv", "Time;user_id;item;who\n" + "".join(f"{t};{u};{i};x\n" for u, i, t in LOG)),
        ("plays.tsv", "product\tUSER\ttime\n\n" + "".join(f"{i}\t{u}\t{t}.5\n" for u, i, t in LOG)),
        ("quoted.csv", '"user","item","time"\n' + "".join(f'"{u}",{i},{t}\n' for u, i, t in LOG)),
    ],
)
def test_every_format_gives_the_same_data(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    data = load(tmp_path / name)
    check(data)
    assert data.item_names == ("7", "8", "9", "30")
    assert data.class_names == ()
    assert data.notes == ("core=1: 2 of 2 users, 4 of 4 items and 9 of 9 interactions are left",)


def test_a_folder_and_an_archive_of_movielens(tmp_path: Path) -> None:
    """Item 8 has no title; 7 and 30 have the same one."""
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "u.data").write_text(lines("\t"))
    titles = [
        "7|Chasing Amy (1997)|x|y",
        "9|Misérables, Les (1995)||",
        "30|Chasing Amy (1997)|",
        "",
    ]
    (folder / "u.item").write_text("\n".join(titles), "latin-1")
    names = ("Chasing Amy (1997) [7]", "8", "Misérables, Les (1995)", "Chasing Amy (1997) [30]")
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"ml-100k/{path.name}")
    for path in (folder, folder / "u.data", tmp_path / "ml-100k.zip"):
        data = load(path)
        check(data)
        assert data.item_names == names
    (folder / "u.item").write_text("7|A\n9\n")
    with pytest.raises(DataError, match=r"u\.item:2: no title"):
        load(folder)


def test_titles_of_movies_dat(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(lines("::"))
    (tmp_path / "movies.dat").write_text("7::A: B|C (1990)::Drama|War\r\n8::D::War\r\n")
    assert load(tmp_path).item_names == ("A: B|C (1990)", "D", "9", "30")


def test_the_named_data_is_read_from_a_folder_or_the_archive(tmp_path: Path) -> None:
    """Every user has each of five items twice, so that nothing leaves."""
    text = "".join(f"{u}\t{i}\t3\t{10 * u + i + 5 * k}\n" for u in range(5)
                   for i in range(5) for k in (0, 1))  # fmt: skip
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        archive.writestr("ml-100k/u.data", text)
    data = load_dataset("ml-100k", tmp_path, seed=0)
    assert (len(data.train), len(data.test), data.input_shape) == (35, 5, (50,))
    (tmp_path / "ml-100k").mkdir()
    with pytest.raises(DataError, match=r"no file ml-100k/u\.data"):
        load_dataset("ml-100k", tmp_path, seed=0)
    (tmp_path / "ml-100k" / "u.data").write_text(text)
    again = load_dataset("ml-100k", tmp_path, seed=0, sampled_negatives=0)
    assert again.train.images.equal(data.train.images)


def test_users_and_items_below_the_core_leave(tmp_path: Path) -> None:
    """Item 8 is met twice and the others more often, user 3 once."""
    (tmp_path / "u.data").write_text(lines("\t") + "3\t7\t1\t0\n9\t9\t1\t10\n10\t30\t1\t11\n")
    data = load(tmp_path, ",core=3,length=3")
    assert (data.owner_names, data.item_names) == (("9", "10"), ("7", "9", "30"))
    assert "2 of 3 users, 3 of 4 items and 9 of 12 interactions" in data.notes[0]
    with pytest.raises(DataError, match="nothing is left when users and items with fewer than 5"):
        load(tmp_path, "")


def test_names_that_are_no_numbers_are_ordered_as_words(tmp_path: Path) -> None:
    text = "user,item,time\n" + "".join(f"u{u},i{i},{t}\n" for u, i, t in LOG)
    (tmp_path / "x.csv").write_text(text)
    data = load(tmp_path / "x.csv")
    assert data.owner_names == ("u10", "u9")
    assert data.item_names == ("i30", "i7", "i8", "i9")


def test_negatives_are_drawn_where_they_are_asked_for(tmp_path: Path) -> None:
    """User 9 has met all four items, and two more that only user 10 has not."""
    more = "10\t11\t3\t0\n10\t12\t3\t1\n"
    (tmp_path / "u.data").write_text(lines("\t") + more)
    with pytest.raises(DataError, match="user 1 has met 6 of 6 items"):
        load(tmp_path, sampled_negatives=1)
    (tmp_path / "u.data").write_text(lines("\t") + more + "8\t13\t3\t0\n8\t14\t3\t1\n")
    data = load(tmp_path, sampled_negatives=2)
    assert data.test.negatives is not None
    names = [{data.item_names[k] for k in row} for row in data.test.negatives.tolist()]
    assert names[1] == {"13", "14"} and names[0] < {"11", "12", "13", "14"}
    assert vars(data.task)["num_sampled"] == 2


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", ":1", "no columns of users in the first line"),
        ("a,b,c\n1,2,3\n", ":1", "no columns of users"),
        ("user,movie,item,time\n1,2,3,4\n", ":1", "2 columns of items"),
        ("user,item\n1,2\n", ":1", "no columns of times"),
        ("1\t2\t3\n", ":1", "no columns of users"),
        ("user,item,time\n1,2,3\n1,2\n", ":3", "2 cells, the first line has 3"),
        ("1::2::3::4\n\n1::2::3\n", ":3", "3 cells, the first line has 4"),
        ("user,item,time\n1,2,3\n1,2,2024-01-01\n", ":3", "the time is `2024-01-01`"),
        ("user,item,time\n1,2,nan\n", ":2", "the time is `nan`"),
        ("user,item,time\n1,2,3\n ,2,3\n", ":3", "no user, or no item"),
        ('user,item,time\n1,2,3\n1,"2,3\n', ":3", "unexpected end of data"),
        ("user,item,time\n", "", "nothing is left"),
        ("user,item,time\n" + "".join(f"{u},1,{u}\n" for u in range(9)), "", "no user has the 4"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, where: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load(path)
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}{where}: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no file .*gone") as caught:
        load(tmp_path / "gone")
    assert "ratings:PATH,length=50,core=5" in caught.value.hint
    with pytest.raises(DataError, match="holds no file of interactions") as caught:
        load(tmp_path)
    assert "u.data, ratings.dat, ratings.csv" in caught.value.hint
    with pytest.raises(DataError, match="`core` is `0`") as caught:
        load(tmp_path, ",core=0")
    assert caught.value.hint == "give `core=N`"
    (tmp_path / "u.data").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
    monkeypatch.setattr(ratings, "MAX_FILE_BYTES", 10)
    (tmp_path / "u.data").write_text(lines("\t"))
    with pytest.raises(DataError, match="is larger than"):
        load(tmp_path)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/u.data", lines("\t") * 50)
    content = bytearray(path.read_bytes())
    for damage in (content[:60], content[:45] + bytes(8) + content[53:]):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"x\.zip.* cannot be read") as caught:
            load(path)
        assert "fetch it anew" in caught.value.hint


@pytest.mark.data
def test_real_movielens(data_dir: Path) -> None:
    """Counts as the papers that use its 5-core give them."""
    if not CATALOGUE["ml-100k"].held(data_dir):
        pytest.skip("put ml-100k/u.data there")
    data = load_dataset("ml-100k", data_dir, seed=0, sampled_negatives=99)
    assert (len(data.owner_names), data.task.num_outputs) == (943, 1349)
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sizes == [99_287 - 3 * 943, 943, 943]
    assert sum(sizes) == CATALOGUE["ml-100k"].num_samples
    assert data.test.negatives is not None and data.test.negatives.shape == (943, 99)
