"""Decode image files to arrays, guarded against hostile ones, and keep the result in a cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path

from fpcli.data.npz import MAX_BYTES, read_npz
from fpcli.errors import DataError

PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded; other formats of Pillow would start programs or are too odd to be meant."""

_GREY = {"1", "L", "LA"}
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_VERSION = 1  # of what is in the cache; raise it when images come out otherwise

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Parts = Mapping[str, Sequence[Path]]


def read_pictures(root: Path, parts: Parts, size: int | None) -> dict[str, Pixels]:
    """Return the images of :func:`decode_pictures`, from the cache if no file has changed since.

    A file has changed if its path, length or time has. A cache that cannot be read or written
    costs time, nothing else; it holds one entry per folder and size.

    Args:
        root: the folder that all files are in.
        parts, size: see :func:`decode_pictures`.

    Raises:
        DataError: as :func:`decode_pictures`.
    """
    place = _digest([_VERSION, str(root.resolve()), size])[:16]
    stats = [(path, path.stat()) for paths in parts.values() for path in paths]
    state = _digest([[str(p.relative_to(root)), s.st_size, s.st_mtime_ns] for p, s in stats])[:32]
    path = user_cache_path("fpcli") / "folders" / f"{place}-{state}.npz"
    cached = _recall(path, parts)
    if cached is None:
        cached = decode_pictures(parts, size)
        _keep(path, cached)
    return cached


def decode_pictures(parts: Parts, size: int | None) -> dict[str, Pixels]:
    """Return the images of each part, ``[n, H, W]`` if all files are grey, else ``[n, H, W, 3]``.

    Grey images of 16 bits come as uint16, all others as uint8.

    Args:
        parts: files by part, at least one each.
        size: height and width that every image is resized to; None demands that all are alike.

    Raises:
        DataError: a file is no image, has too many bits per channel or too many pixels, another
            size than the first, or is one of few with 16 bits.
    """
    paths = [path for files in parts.values() for path in files]
    first: tuple[int, int] | None = (size, size) if size else None
    is_grey = True
    by_depth: dict[bool, Path] = {}
    for path in paths:
        with _open(path) as image:
            is_deep = _is_deep(image)
            by_depth.setdefault(is_deep, path)
            is_grey &= is_deep or image.mode in _GREY
            first = first or image.size
            if image.size != first and not size:
                raise DataError(
                    f"{path} is {_by(image.size)}, {paths[0]} is {_by(first)}",
                    hint="make all alike, for example with folder:PATH,size=32",
                    where=str(path),
                )
            if len(by_depth) > 1:
                raise DataError(
                    f"{by_depth[True]} has 16 bits per channel, {by_depth[False]} has not",
                    hint="make all alike: grey with 16 bits, or anything with 8",
                    where=str(by_depth[True]),
                )
    assert first is not None
    dtype = np.dtype(np.uint16 if True in by_depth else np.uint8)
    shape = (first[1], first[0]) if is_grey else (first[1], first[0], 3)
    # Those of 16 bits become float32 later on.
    if len(paths) * int(np.prod(shape)) * dtype.itemsize**2 > MAX_BYTES:
        raise DataError(
            f"{len(paths)} images of {_by(first)} need more than {MAX_BYTES // 2**30} GiB",
            hint="use fewer images, or smaller ones with folder:PATH,size=32",
        )
    made = {}
    for part, files in parts.items():
        made[part] = np.empty((len(files), *shape), dtype)
        for position, path in enumerate(files):
            with _open(path) as image:
                if True in by_depth:  # floats are what Pillow resizes in all its versions
                    plain = Image.fromarray(np.asarray(image).astype(np.float32))
                else:
                    plain = image.convert("L" if is_grey else "RGB")
                if plain.size != first:
                    plain = plain.resize(first, Image.Resampling.BILINEAR)
                made[part][position] = np.asarray(plain).round()
    return made


def _is_deep(image: Image.Image) -> bool:
    # The reader of PGM has only 32 bits for 16.
    return image.mode in _DEEP or (image.mode == "I" and image.format in ("PNG", "PPM"))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open one image; nothing is decoded before its size is known to be harmless."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                if not (_is_deep(image) or image.mode in _GREY | _COLOUR):
                    raise ValueError(f"mode {image.mode} has too many bits per channel")
                yield image
    except DataError:
        raise
    except Exception as error:  # a damaged file makes decoders raise almost anything
        raise DataError(
            f"{path} is no usable image: {error}".splitlines()[0],
            hint=f"readable are {', '.join(PICTURE_FORMATS)} with 8 bits per channel, or grey with "
            "16; move others away",
            where=str(path),
        ) from error


def _recall(path: Path, parts: Parts) -> dict[str, Pixels] | None:
    with contextlib.suppress(DataError, OSError):
        arrays = read_npz(path)
        images = {part: arrays.get(f"{part}_images") for part in parts}
        if all(x is not None and len(x) == len(parts[part]) for part, x in images.items()):
            return images  # type: ignore[return-value]
    return None


def _keep(path: Path, images: Mapping[str, Pixels]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                arrays: dict[str, Any] = {f"{part}_images": x for part, x in images.items()}
                np.savez(file, **arrays)
            for earlier in path.parent.glob(f"{path.name[:17]}*.npz"):
                earlier.unlink(missing_ok=True)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
