"""Read images from folders, one per class; decoded once, then kept in the user's cache.

::

    PATH/CLASS/picture.png                      test data is a fixed fifth of each class
    PATH/{train,val,test}/CLASS/picture.png     val and test may be left out
    .../clients/CLIENT/CLASS/picture.png        where classes would be: who owns a training sample

A folder that holds nothing but `clients` cannot hold classes, of which there are two or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fpcli.data.pictures import read_pictures
from fpcli.data.place import NUMBER, split_place
from fpcli.data.split import OWNERS, SPLIT_PARTS, cut_test
from fpcli.errors import DataError

_IGNORED = {"thumbs.db", "desktop.ini"}


class PictureFile(NamedTuple):
    """A file, its class, and the client it belongs to (empty if nobody says)."""

    path: Path
    label: str
    client: str


def read_folder(place: str) -> dict[str, Any]:
    """Return the arrays of a folder of images.

    Images are grey if all files are, of 16 bits if all have so many, else RGB; transparency is left
    out.

    Args:
        place: ``PATH``, whose images have one size; or ``PATH,size=N``, which makes all NxN.

    Raises:
        DataError: the folder is arranged otherwise, a file is no image or leads out of the folder,
            the sizes differ, or there are too many pixels.
    """
    root, options = split_place(place, {"size": [NUMBER]})
    if not root.is_dir():
        raise DataError(f"no folder {root}", hint="give it as folder:PATH", where=str(root))
    files = {part: list(_pictures(top, root)) for part, top in _tops(root).items()}
    for part, pictures in files.items():
        if not pictures:
            raise DataError(
                f"{root}: no images for {part}",
                hint="one sub-folder per class: PATH/CLASS/picture.png",
                where=str(root),
            )
    size = int(options["size"]) if options else None
    images = read_pictures(root, {part: [p.path for p in files[part]] for part in files}, size)
    return _arrays(files, images, root)


def _arrays(
    files: Mapping[str, Sequence[PictureFile]], images: Mapping[str, Any], root: Path
) -> dict[str, Any]:
    """Return images, labels, owners and names under the keys of ``data.DATASETS``."""
    classes = sorted({picture.label for pictures in files.values() for picture in pictures})
    number = {name: position for position, name in enumerate(classes)}
    arrays: dict[str, Any] = {}
    for part, pictures in files.items():
        arrays[f"{part}_images"] = torch.from_numpy(images[part])
        arrays[f"{part}_labels"] = torch.tensor([number[picture.label] for picture in pictures])
    names: dict[str, Any] = {"class_names": classes}
    clients = sorted({picture.client for picture in files["train"]})
    if clients != [""]:
        owner = {name: position for position, name in enumerate(clients)}
        arrays[OWNERS] = torch.tensor([owner[picture.client] for picture in files["train"]])
        names["owner_names"] = clients
    if "test" not in files:
        train = {key: value for key, value in arrays.items() if key.startswith("train_")}
        arrays |= cut_test(train, "folder", str(root))
    return arrays | names


def _tops(root: Path) -> dict[str, Path]:
    """Return for each part of the data the folder that holds its classes."""
    names = [path.name for path in _entries(root, root)]
    if "train" not in names:
        return {"train": root}
    for name in names:
        if name not in SPLIT_PARTS:
            raise DataError(
                f"{root}: `{name}` stands beside the folder `train`",
                hint="only `val` and `test` may; if `train` is a class, put all classes into a "
                "folder `train`",
                where=str(root / name),
            )
    return {part: root / part for part in SPLIT_PARTS if part in names}


def _pictures(top: Path, root: Path) -> Iterator[PictureFile]:
    classes = _folders(top, root)
    if [folder.name for folder in classes] == ["clients"]:
        for client in _folders(classes[0], root):
            for folder in _folders(client, root):
                yield from _files(folder, root, client.name)
        return
    for folder in classes:
        pictures = list(_files(folder, root, ""))
        if not pictures:
            raise DataError(
                f"{folder}: no images of this class",
                hint="put some there, or delete the folder",
                where=str(folder),
            )
        yield from pictures


def _folders(folder: Path, root: Path) -> list[Path]:
    entries = _entries(folder, root)
    for path in entries:
        if not path.is_dir():
            raise DataError(
                f"{path} stands where only folders are expected",
                hint="put images into the folder of their class, and move other files away",
                where=str(path),
            )
    return entries


def _files(folder: Path, root: Path, client: str) -> Iterator[PictureFile]:
    for path in _entries(folder, root):
        if not path.is_file():
            raise DataError(
                f"{path} stands among the images of a class and is no file",
                hint="folders of clients belong into a folder `clients`",
                where=str(path),
            )
        yield PictureFile(path, folder.name, client)


def _entries(folder: Path, root: Path) -> list[Path]:
    """Return what a folder holds, by name, without what operating systems leave behind."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}",
            hint="it must be a folder that you may read",
            where=str(folder),
        ) from error
    entries = [folder / name for name in names if name[0] != "." and name.lower() not in _IGNORED]
    for path in entries:
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise DataError(
                f"{path} is a link that leads out of {root}",
                hint="copy what it leads to, or give the real folder",
                where=str(path),
            )
    return entries
