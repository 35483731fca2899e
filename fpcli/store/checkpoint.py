"""Checkpoints: the whole server state on disk, each one complete and verified, or absent.

``checkpoints/round-00010/`` holds ``state.safetensors`` (every tensor, under a readable name),
``meta.json`` (everything else) and ``SHA256SUMS`` over both, since safetensors has no checksum.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fpcli.engine.types import Json, ServerState
from fpcli.errors import ResumeError, UsageError
from fpcli.files import cannot_write, list_checksums, replace_folder, write_atomic
from fpcli.store.events import Sound
from fpcli.store.run_folder import RunFolder

CHECKPOINT_FORMAT = 1
"""The newest checkpoint format that this version reads, and the one it writes."""

_NAME = re.compile(r"round-(\d{5,})")


def dump_state(state: Any) -> tuple[Json, dict[str, Tensor]]:
    """Split nested plain data into JSON and named tensors.

    Tuples, mappings, tensors and data classes become objects with one telling key, so that they
    come back as what they were; private fields of data classes are caches and are left out.

    Args:
        state: None, bool, int, float, str, Tensor, and lists, tuples, mappings (keys: str or int)
            and data classes of these.

    Returns:
        The JSON, and tensors by a name made of the path to each.

    Raises:
        TypeError: something else is in it.
    """
    tensors: dict[str, Tensor] = {}
    return _dump(state, "", tensors), tensors


def _dump(value: Any, path: str, tensors: dict[str, Tensor]) -> Json:
    def inner(item: Any, name: Any) -> Json:
        return _dump(item, f"{path}/{name}" if path else str(name), tensors)

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = path or "value"
        while name in tensors:
            name += "'"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, tuple):
        return {"tuple": [inner(item, index) for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [inner(item, index) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(type(key) in (str, int) for key in value):
        return {"map": [[key, inner(item, key)] for key, item in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in fields(value) if not item.name.startswith("_")]
        return {_word(type(value)): {name: inner(getattr(value, name), name) for name in names}}
    raise TypeError(f"a checkpoint cannot hold `{path}`, a {type(value).__name__}")


def _word(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def load_state(cls: type | None, data: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what ``dump_state`` split.

    Args:
        cls: the data class at the top; only it and the data classes in its type hints are made.
        data: JSON.
        tensors: by name; they are not copied.

    Raises:
        KeyError: a tensor is missing, or ``data`` names an unknown class.
        TypeError: the fields of a data class have changed.
        ValueError: ``data`` is not what ``dump_state`` writes.
    """
    return _load(data, tensors, dict(_classes(cls, set())))


def _load(data: Json, tensors: Mapping[str, Tensor], classes: Mapping[str, type]) -> Any:
    if isinstance(data, list):
        return [_load(item, tensors, classes) for item in data]
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_load(item, tensors, classes) for item in content)
    if kind == "map":
        return {key: _load(item, tensors, classes) for key, item in content}
    return classes[kind](**{name: _load(item, tensors, classes) for name, item in content.items()})


def _classes(hint: Any, seen: set[Any]) -> Iterator[tuple[str, type]]:
    """Yield name and class of every data class that a type hint leads to."""
    if isinstance(hint, type) and is_dataclass(hint) and hint not in seen:
        seen.add(hint)
        yield _word(hint), hint
        for part in get_type_hints(hint).values():
            yield from _classes(part, seen)
    for part in get_args(hint):
        yield from _classes(part, seen)


def save_checkpoint(
    folder: Path, state: ServerState, *, digest: str, extra: Mapping[str, Json], keep: int = 2
) -> Path:
    """Write a checkpoint, then delete those that are older than the newest ``keep``.

    Args:
        folder: of the run.
        state: what to store.
        digest: of the recipe; only a run with the same one may use the checkpoint.
        extra: JSON that the run wants back.
        keep: complete checkpoints to leave, this one included.

    Returns:
        Its folder.

    Raises:
        NeedError: it cannot be written; the earlier ones are untouched.
    """
    parent = folder / "checkpoints"
    target = parent / f"round-{state.round:05d}"
    data, tensors = dump_state(state)
    meta = {
        "format": CHECKPOINT_FORMAT,
        "round": state.round,
        "digest": digest,
        "state": data,
        "extra": dict(extra),
    }
    try:
        parent.mkdir(exist_ok=True)
        for stale in parent.glob(".round-*"):
            shutil.rmtree(stale)
        with replace_folder(target) as fresh:
            _write(fresh, tensors, json.dumps(meta))
    except (OSError, SafetensorError) as error:
        raise cannot_write(target, error) from error
    older = [path for number, path in _checkpoints(folder) if number < state.round]
    for path in older[max(0, keep - 1) :]:
        shutil.rmtree(path, ignore_errors=True)
    return target


def _write(folder: Path, tensors: Mapping[str, Tensor], meta: str) -> None:
    path = folder / "state.safetensors"
    save_file(_separate(tensors), path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    write_atomic(folder / "meta.json", meta)
    files = [folder / "meta.json", path]
    write_atomic(folder / "SHA256SUMS", list_checksums(folder, files))


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The file format refuses tensors that share memory, which states may well do.
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return separate


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return round and folder of every finished checkpoint, newest first."""
    checkpoints = []
    for path in (folder / "checkpoints").glob("round-*"):
        if match := _NAME.fullmatch(path.name):
            checkpoints.append((int(match[1]), path))
    return sorted(checkpoints, reverse=True)


def load_newest(
    folder: Path,
    *,
    method_state: type | None,
    digest: str,
    round: int | None = None,
    events: Sound | None = None,
) -> tuple[ServerState, dict[str, Json], list[str]]:
    """Return the newest checkpoint that is whole and belongs to this recipe.

    Args:
        folder: of the run.
        method_state: the data class of the method's state, or None where it has none.
        digest: of the recipe.
        round: only the checkpoint of this round will do.
        events: how far these can be relied on; a checkpoint of a later round will not do.

    Returns:
        State, extra, and one warning for each newer checkpoint that was passed over.

    Raises:
        UsageError: there is none of that round.
        ResumeError: there is none that can be used.
    """
    check_kept(RunFolder(folder))
    warnings: list[str] = []
    kept = _checkpoints(folder)
    if round is not None and round not in dict(kept):
        there = ", ".join(str(number) for number, _ in reversed(kept)) or "none"
        raise UsageError(
            f"{folder} has no checkpoint of round {round}",
            hint=f"there is: {there}; the newest two are kept",
            where="--round",
        )
    for number, path in kept:
        if round not in (None, number):
            continue
        try:
            if events is not None and number > events.rounds:
                raise _DamagedError(events.problem or f"events end after round {events.rounds}")
            state, extra = _read(path, number, method_state, digest)
            if events is not None and extra.get("events") != events.prints[number]:
                raise _DamagedError("the events up to it are those of another run")
        except _UNUSABLE as error:
            warnings.append(f"checkpoint {path.name} cannot be used: {_reason(error)}")
        else:
            return state, extra, warnings
    raise ResumeError(
        f"no usable checkpoint in {folder}" + "".join(f"; {text}" for text in warnings),
        hint=f"`fp resume {folder} --force` plays all rounds again from the start",
        where=str(folder / "checkpoints"),
    )


def check_kept(folder: RunFolder) -> None:
    """Make sure that nobody has deleted the checkpoints of a run, or begun to.

    Raises:
        ResumeError: somebody has.
    """
    if folder.purged.is_file():
        raise ResumeError(
            f"{folder.path}: its checkpoints were deleted",
            hint=f"{folder.purged} says why",
            where=str(folder.path),
        )


class _DamagedError(Exception):
    """A checkpoint that must not be used."""


_UNUSABLE = (
    _DamagedError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    SafetensorError,
)


def _reason(error: Exception) -> str:
    if isinstance(error, _DamagedError):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is missing"
    return f"its content does not fit ({type(error).__name__}: {error})"


def _read(
    path: Path, number: int, method_state: type | None, digest: str
) -> tuple[ServerState, dict[str, Json]]:
    files = [path / "meta.json", path / "state.safetensors"]
    if list_checksums(path, files) != (path / "SHA256SUMS").read_text("utf-8"):
        raise _DamagedError("it is damaged (SHA-256 differs)")
    meta = json.loads(files[0].read_text("utf-8"))
    if meta["format"] != CHECKPOINT_FORMAT:
        raise _DamagedError(
            f"format {meta['format']} is not {CHECKPOINT_FORMAT}, which this version reads"
        )
    if meta["digest"] != digest:
        raise _DamagedError("it belongs to another recipe")
    if meta["round"] != number:
        raise _DamagedError(f"it is of round {meta['round']}")
    # Copies, because what the file gives out are views of it, and it may be deleted soon.
    with safe_open(files[1], framework="pt") as stored:
        tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
    classes = dict(_classes(ServerState, set())) | dict(_classes(method_state, set()))
    state = _load(meta["state"], tensors, classes)
    for name, value in state.values.items():
        if not torch.isfinite(value).all():
            raise _DamagedError(f"`{name}` is not finite")
    return state, meta["extra"]
