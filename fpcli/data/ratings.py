"""Read who met which item when: MovieLens' files, and tables of user, item and time.

::

    u.data        user, item, rating, time between tabs; u.item beside it names the films
    ratings.dat   user::item::rating::time; movies.dat beside it likewise
    any other     a first line names the columns: user, item and time, perhaps others

What rating was given is not looked at: that there is one says that the user met the item.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fpcli.data.arrays import Indices
from fpcli.data.catalogue import require_files
from fpcli.data.cells import MAX_FILE_BYTES, SEPARATORS
from fpcli.data.next_item import USUAL_LENGTH, filter_core, leave_one_out
from fpcli.data.place import NUMBER, split_place
from fpcli.errors import DataError, first_line
from fpcli.files import cannot_read

USUAL_CORE = 5
"""Interactions that every user and item has at least, unless another number is said."""

_FILES = ("u.data", "ratings.dat", "ratings.csv")
"""What is looked for in a folder."""

_TITLES = {"u.data": "u.item", "ratings.dat": "movies.dat"}
"""File of interactions -> file of titles beside it."""

_ITEMS = ("item", "movie", "product", "book", "song", "track", "article")
_HEADERS = {
    "user": ("user", "userid"),
    "item": (*_ITEMS, *(f"{word}id" for word in _ITEMS)),
    "time": ("time", "timestamp"),
}
"""What a column holds -> its names, without case, blanks and underscores."""

_MOVIELENS = (0, 1, 3)
_DOUBLE = "::"

File = Path | zipfile.Path


class Log(NamedTuple):
    """Interactions in the order of their file, and the names of users and items."""

    users: Indices
    items: Indices
    times: np.ndarray[Any, np.dtype[np.float64]]
    user_names: list[str]
    item_names: list[str]


def read_ratings(place: str) -> dict[str, Any]:
    """Return the arrays of a file of interactions.

    Users and items with fewer than ``core`` interactions leave, again and again. A user's items
    are ordered by time, those of one time as in the file. What then is for training, validation
    and testing, see :func:`next_item.leave_one_out`.

    Args:
        place: a file, or a folder or zip archive with one of MovieLens' names in it; perhaps with
            ``,length=L`` (items of a sequence) and ``,core=N`` behind it.

    Raises:
        DataError: there is no such file, it is damaged, too large or no table of this kind, or
            nothing is left.
    """
    path, options = split_place(place, {"length": [NUMBER], "core": [NUMBER]})
    length, core = int(options.get("length", USUAL_LENGTH)), int(options.get("core", USUAL_CORE))
    with _find_file(path) as file:
        log = _read_log(file)
        titles = _read_titles(file)
    kept = filter_core(log.users, log.items, core)
    if not len(kept):
        raise DataError(
            f"{path}: nothing is left when users and items with fewer than {core} interactions "
            "leave",
            hint=f"take fewer: `ratings:{path},core=1` keeps all",
            where=str(path),
        )
    users, user_names = _number(log.users[kept], log.user_names)
    items, item_names = _number(log.items[kept], log.item_names)
    order = np.lexsort((log.times[kept], users))
    arrays = leave_one_out(str(path), users[order], items[order] + 1, len(item_names), length)
    note = (
        f"core={core}: {len(user_names):,} of {len(log.user_names):,} users, {len(item_names):,} "
        f"of {len(log.item_names):,} items and {len(kept):,} of {len(log.users):,} interactions "
        "are left"
    )
    return arrays | {
        "owner_names": user_names,
        "item_names": _name_items(item_names, titles),
        "notes": (note,),
    }


def ml_100k(data_dir: Path | None) -> dict[str, Any]:
    """Return MovieLens 100K: 943 users, 1,349 films with 5 or more of their 100,000 ratings.

    Source: Harper and Konstan, ACM TiiS 5 (2015).
    """
    folder, (held, *_) = require_files("ml-100k", data_dir)
    return read_ratings(str(folder / Path(held).parts[0]))


@contextmanager
def _find_file(path: Path) -> Iterator[File]:
    """Lend the file of interactions that is meant, open where it is in an archive.

    Raises:
        DataError: there is none, or the archive is damaged.
    """
    if path.is_dir():
        yield _pick(path, path)
    elif not path.is_file():
        hint = "give it as ratings:PATH, or as ratings:PATH,length=50,core=5"
        raise DataError(f"no file {path}", hint=hint, where=str(path))
    elif path.suffix.lower() != ".zip":
        yield path
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise _explain_archive(path, error) from error
        with archive:
            root = zipfile.Path(archive)
            folders = [entry for entry in root.iterdir() if entry.is_dir()]
            yield _pick(folders[0] if len(folders) == 1 else root, path)


def _pick(folder: File, path: Path) -> File:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{path} holds no file of interactions",
        hint=f"name the file itself; known in a folder: {', '.join(_FILES)}",
        where=str(path),
    )


def _open_text(file: File, encoding: str) -> io.TextIOWrapper:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except Exception as error:  # what is damaged in an archive raises almost anything
        if isinstance(file, zipfile.Path):
            raise _explain_archive(file, error) from error
        if isinstance(error, OSError):
            raise cannot_read(file, error) from error
        raise
    if len(content) > MAX_FILE_BYTES:
        raise DataError(
            f"{file} is larger than {MAX_FILE_BYTES // 2**20} MiB",
            hint="leave users out",
            where=str(file),
        )
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def _read_log(file: File) -> Log:
    rows = _split_lines(file, _open_text(file, "utf-8-sig"))
    top = next(rows, (1, []))
    (user_at, item_at, time_at), is_header = _find_columns(file, *top)
    width = len(top[1])
    user_codes: dict[str, int] = {}
    item_codes: dict[str, int] = {}
    users, items, times = array("q"), array("q"), array("d")
    for line, row in rows if is_header else chain([top], rows):
        if len(row) != width:
            problem = f"{len(row)} cells, the first line has {width}"
            raise _wrong(file, line, problem, "mend that line")
        user, item = row[user_at].strip(), row[item_at].strip()
        if not (user and item):
            raise _wrong(file, line, "no user, or no item", "fill it in, or leave the line out")
        users.append(user_codes.setdefault(user, len(user_codes)))
        items.append(item_codes.setdefault(item, len(item_codes)))
        times.append(_read_time(file, line, row[time_at]))
    numbers = np.array(users, np.int64), np.array(items, np.int64), np.array(times, np.float64)
    return Log(*numbers, [*user_codes], [*item_codes])


def _split_lines(file: File, text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of every line that is not empty, and its number.

    Raises:
        DataError: a line cannot be read.
    """
    number = 0
    try:
        first = next((line for line in text if line.strip()), "")
        text.seek(0)
        if _DOUBLE in first:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield number, line.strip().split(_DOUBLE)
            return
        separator = max(SEPARATORS, key=re.sub('"[^"]*"', "", first).count)
        reader = csv.reader(text, strict=True, delimiter=separator)
        for row in reader:
            number = reader.line_num
            if row:
                yield number, row
    except csv.Error as error:
        raise _wrong(file, number + 1, str(error), "mend that line") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} cannot be read: {error}", hint="write it as UTF-8", where=str(file)
        ) from error


def _find_columns(file: File, line: int, first: Sequence[str]) -> tuple[Sequence[int], bool]:
    """Return where user, item and time stand, and whether the first line names them.

    Raises:
        DataError: it names no such columns, or each of them more than once.
    """
    names = [re.sub(r"[\s_-]", "", cell).lower() for cell in first]
    if len(first) == 4 and all(re.fullmatch(r"[\d.]+", name) for name in (*names[:1], *names[2:])):
        return _MOVIELENS, False
    columns = []
    for what, known in _HEADERS.items():
        places = [place for place, name in enumerate(names) if name in known]
        if len(places) != 1:
            raise _wrong(
                file,
                line,
                f"{len(places) or 'no'} columns of {what}s in the first line",
                "it names one of each: user, item and time; or lines are user, item, rating, time",
            )
        columns += places
    return columns, True


def _read_time(file: File, line: int, cell: str) -> float:
    try:
        time = float(cell)
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        hint = "write any number that grows with time, such as seconds since 1970"
        raise _wrong(file, line, f"the time is `{cell:.40}`", hint)
    return time


def _number(codes: Indices, names: Sequence[str]) -> tuple[Indices, list[str]]:
    """Return 0..k-1 for the codes that there are, in the order of their names, and these; numbers
    are ordered as such."""
    present = np.unique(codes)
    there = [names[code] for code in present]
    are_numbers = all(re.fullmatch(r"\d{1,18}", name, re.ASCII) for name in there)
    order = sorted(range(len(there)), key=lambda k: (int(there[k]) if are_numbers else 0, there[k]))
    number = np.empty(len(names), np.int64)
    number[present[order]] = np.arange(len(there))
    return number[codes], [there[k] for k in order]


def _read_titles(file: File) -> dict[str, str]:
    """Return item -> title, as MovieLens writes them; nothing where there is no such file.

    Raises:
        DataError: it is another file.
    """
    name = _TITLES.get(file.name)
    folder: Any = file.parent  # of an archive it is called something else
    if not name or not (beside := folder / name).is_file():
        return {}
    # Lines end as MovieLens' do, and not in the middle of a title.
    lines = _open_text(beside, "latin-1").read().replace("\r\n", "\n").split("\n")
    titles = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            item, separator, rest = line.partition(_DOUBLE if _DOUBLE in line else "|")
            if not separator:
                raise _wrong(
                    beside, number, "no title", "lines are item and title, | or :: between"
                )
            titles[item.strip()] = rest.partition(separator)[0].strip()
    return titles


def _name_items(items: Iterable[str], titles: Mapping[str, str]) -> list[str]:
    """Return one name per item, each another: its title, with its id behind it where others have
    that title too, or else its id."""
    named = {item: titles.get(item) or item for item in items}
    counts = Counter(named.values())
    names = [name if counts[name] == 1 else f"{name} [{item}]" for item, name in named.items()]
    return names if len({*names}) == len(names) else list(named)


def _explain_archive(file: File, error: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read: {first_line(error)}",
        hint="the archive is damaged, or of another kind: fetch it anew",
        where=str(file),
    )


def _wrong(file: File, line: int, problem: str, hint: str) -> DataError:
    place = f"{file}:{line}"
    return DataError(f"{place}: {problem}", hint=hint, where=place)
