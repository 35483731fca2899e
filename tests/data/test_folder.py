from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpcli.data.datasets import load_dataset
from fpcli.data.folder import read_folder
from fpcli.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr("fpcli.data.pictures.user_cache_path", lambda name: folder)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "imgs"


def paint(path: Path, value: int, *, size: tuple[int, int] = (5, 4), mode: str = "L") -> None:
    """Write an image of one colour; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def fill(top: Path, classes: Sequence[str], count: int, start: int = 0) -> None:
    for number, name in enumerate(classes):
        for index in range(count):
            paint(top / name / f"{index:02d}.png", start + 10 * number + index)


def everything(root: Path) -> np.ndarray:
    arrays = read_folder(str(root))
    return np.concatenate([arrays["train_images"], arrays["test_images"]])


def test_one_folder_per_class(root: Path) -> None:
    fill(root, ["cat", "ant"], 10)
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "Thumbs.db").write_bytes(b"x")
    data = load_dataset(f"folder:{root}", None, seed=0)
    assert (data.input_shape, data.class_names, data.owner_names) == ((1, 4, 5), ("ant", "cat"), ())
    assert [len(split) for split in (data.train, data.validation, data.test)] == [14, 2, 4]
    for split in (data.train, data.validation, data.test):
        is_ant = split.images[:, 0, 0, 0] >= 10
        assert split.labels.tolist() == (~is_ant).long().tolist()
    again = load_dataset(f"folder:{root}", None, seed=1)
    assert again.test.images.equal(data.test.images)


def test_given_parts(root: Path) -> None:
    fill(root / "train", ["a", "b"], 3)
    fill(root / "val", ["a", "b"], 1, start=100)
    fill(root / "test", ["a", "b"], 2, start=200)
    data = load_dataset(f"folder:{root}", None, seed=0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [6, 2, 4]
    assert data.test.images[:, 0, 0, 0].tolist() == [200, 201, 210, 211]
    assert data.test.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("is_split", [False, True])
def test_clients_own_their_training_images(root: Path, is_split: bool) -> None:
    top = root / "train" if is_split else root
    for client, start in (("zoe", 0), ("bob", 100)):
        fill(top / "clients" / client, ["a", "b"], 5, start=start)
    (top / "clients" / "bob" / "c").mkdir()
    if is_split:
        fill(root / "test", ["a", "b"], 1)
    data = load_dataset(f"folder:{root}", None, seed=0)
    assert (data.class_names, data.owner_names) == (("a", "b"), ("bob", "zoe"))
    assert data.train.owners is not None
    is_zoe = data.train.images[:, 0, 0, 0] < 100
    assert data.train.owners.tolist() == is_zoe.long().tolist()
    assert data.test.owners is None


def test_colour_comes_last_and_transparency_goes(root: Path) -> None:
    fill(root, ["a", "b"], 5)
    paint(root / "a" / "00.png", 7, mode="RGB")
    Image.new("RGBA", (5, 4), (1, 2, 3, 0)).save(root / "a" / "01.png")
    images = np.concatenate(
        [read_folder(str(root))[f"{part}_images"] for part in ("train", "test")]
    )
    assert images.shape == (10, 4, 5, 3)
    corners = {tuple(image[0, 0].tolist()) for image in images}
    assert {(7, 0, 255), (1, 2, 3), (2, 2, 2)} <= corners


def test_sizes_must_agree_unless_one_is_asked_for(root: Path) -> None:
    fill(root, ["a", "b"], 5)
    paint(root / "b" / "03.png", 9, size=(8, 6))
    with pytest.raises(DataError, match=r"b/03.png is 6x8, .*a/00.png is 4x5") as caught:
        load_dataset(f"folder:{root}", None, seed=0)
    assert ",size=32" in caught.value.hint
    data = load_dataset(f"folder:{root},size=3", None, seed=0)
    assert data.input_shape == (1, 3, 3)
    parts = (data.train, data.validation, data.test)
    values = {value for part in parts for value in part.images[:, 0, 1, 1].tolist()}
    assert values == {0, 1, 2, 3, 4, 9, 10, 11, 12, 14}


def test_decoded_once(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, ["a", "b"], 5)
    first = read_folder(str(root))
    (entry,) = cache.rglob("*.*")
    monkeypatch.setattr("PIL.Image.open", lambda *words, **more: 1 / 0)
    again = read_folder(str(root))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    os.utime(root / "a" / "00.png", (1, 1))
    with pytest.raises(DataError, match="division by zero"):
        read_folder(str(root))
    monkeypatch.undo()
    monkeypatch.setattr("fpcli.data.pictures.user_cache_path", lambda name: cache)
    paint(root / "a" / "00.png", 99)
    assert 99 in everything(root)
    (newer,) = cache.rglob("*.*")
    assert newer.name[:17] == entry.name[:17]
    assert newer != entry


@pytest.mark.parametrize("spoil", ["damaged", "shorter", "not writable"])
def test_the_cache_may_fail(root: Path, cache: Path, spoil: str) -> None:
    fill(root, ["a", "b"], 5)
    if spoil == "not writable":
        cache.write_bytes(b"a file where the folder should be")
    first = read_folder(str(root))
    for entry in cache.rglob("*.npz"):
        if spoil == "damaged":
            entry.write_bytes(entry.read_bytes()[:-100])
        else:
            np.savez(entry, train_images=np.zeros((3, 4, 5), np.uint8))
    again = read_folder(str(root))
    assert all(np.array_equal(first[key], again[key]) for key in first)


def text_file(root: Path) -> Path:
    path = root / "a" / "notes.txt"
    path.write_text("no image")
    return path


def truncated(root: Path) -> Path:
    path = root / "a" / "00.png"
    path.write_bytes(path.read_bytes()[:-20])
    return path


def deep_colour(root: Path) -> Path:
    path = root / "a" / "00.png"
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(path)
    return path


def bomb(root: Path) -> Path:
    path = root / "b" / "big.png"
    Image.new("1", (12_000, 9_000)).save(path)
    return path


def link_out(root: Path) -> Path:
    paint(root.parent / "secret.png", 1)
    path = root / "a" / "link.png"
    path.symlink_to(root.parent / "secret.png")
    return path


def folder_link_out(root: Path) -> Path:
    fill(root.parent / "others", ["x"], 1)
    path = root / "c"
    path.symlink_to(root.parent / "others" / "x")
    return path


def dangling(root: Path) -> Path:
    path = root / "a" / "link.png"
    path.symlink_to(root / "nothing.png")
    return path


def pipe(root: Path) -> Path:
    path = root / "a" / "pipe.png"
    os.mkfifo(path)
    return path


def stray(root: Path) -> Path:
    path = root / "stray.png"
    paint(path, 1)
    return path


def too_deep(root: Path) -> Path:
    fill(root / "a", ["deeper"], 1)
    return root / "a" / "deeper"


def no_class_images(root: Path) -> Path:
    (root / "c").mkdir()
    return root / "c"


def beside_train(root: Path) -> Path:
    fill(root, ["train"], 1)
    return root / "a"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (text_file, "is no usable image"),
        (truncated, "is no usable image"),
        (deep_colour, "has 16 bits per channel, "),
        (bomb, "exceeds limit"),
        (link_out, "is a link that leads out of"),
        (folder_link_out, "is a link that leads out of"),
        (dangling, "is no file"),
        (pipe, "is no file"),
        (stray, "where only folders are expected"),
        (too_deep, "is no file"),
        (no_class_images, "no images of this class"),
        (beside_train, "stands beside the folder `train`"),
    ],
)
def test_what_does_not_belong_is_named(root: Path, spoil: object, message: str) -> None:
    fill(root, ["a", "b"], 2)
    path = spoil(root)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        read_folder(str(root))
    assert message in caught.value.message
    assert path.name in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_links_inside_are_followed(root: Path) -> None:
    fill(root, ["a", "b"], 5)
    (root / "a" / "link.png").symlink_to(root / "a" / "00.png")
    assert len(read_folder(str(root))["train_images"]) + 2 == 11


def test_no_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"no folder {root}"):
        read_folder(str(root))
    root.mkdir()
    with pytest.raises(DataError, match="no images for train"):
        read_folder(str(root))
    fill(root, ["a", "b"], 2)
    monkeypatch.setattr("fpcli.data.pictures.MAX_BYTES", 79)
    with pytest.raises(DataError, match="4 images of 4x5 need more than"):
        read_folder(str(root))


def deepen(path: Path, value: int, size: tuple[int, int] = (5, 4)) -> None:
    """Write a grey image of one value of 16 bits; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint16)).save(path)


def test_grey_images_of_16_bits(root: Path, cache: Path) -> None:
    for number, name in enumerate(("a.png", "b.png", "c.tif", "d.ppm", "e.png")):
        deepen(root / "x" / name, 1000 * number)
        deepen(root / "y" / name, 60_000 + number)
    data = load_dataset(f"folder:{root}", None, seed=0)
    again = load_dataset(f"folder:{root}", None, seed=0)
    parts = (data.train, data.validation, data.test)
    values = {value for part in parts for value in part.images[:, 0, 0, 0].tolist()}
    assert values == {1000 * n for n in range(5)} | {60_000 + n for n in range(5)}
    assert again.train.images.equal(data.train.images)
    assert data.scale == 1 / 65535 and 0 < data.mean[0] < 1
    assert data.notes == ("images of 16 bits: 0 to 65535 counts as 0 to 1",)


def test_images_of_16_bits_are_resized_as_such(root: Path) -> None:
    for number in range(4):
        deepen(root / "x" / f"{number}.png", 300, (8, 6))
        deepen(root / "y" / f"{number}.png", 60_001, (6, 6))
    data = load_dataset(f"folder:{root},size=3", None, seed=0)
    assert set(data.train.images.flatten().tolist()) == {300, 60_001}
    with pytest.raises(DataError, match="`size` is `big`") as caught:
        load_dataset(f"folder:{root},size=big", None, seed=0)
    assert "size=N" in caught.value.hint
