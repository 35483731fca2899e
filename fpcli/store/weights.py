"""Weights from files of untrusted origin: no code in them runs, and they fit or are refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from fpcli.errors import DataError, first_line, suggest
from fpcli.store.torch_file import SUFFIXES, read_state
from fpcli.structure.layout import Tensors
from fpcli.tasks.learning_task import LearningTask

_LIMIT_BYTES = 4 * 2**30
_LIMIT_VALUES = 2**25
_LIMIT_CUT = 64
_PREFIXES = ("module.", "_orig_mod.")


def check_file(path: Path, *, hint: str) -> None:
    """Make sure that there is a file of weights, and not too large a one.

    Args:
        hint: what to do where there is none.

    Raises:
        DataError: there is none, or it is larger than 4 GiB.
    """
    if not path.is_file():
        raise DataError(f"no file {path}", hint=hint, where=str(path))
    if path.stat().st_size > _LIMIT_BYTES:
        raise DataError(
            f"{path}: larger than {_LIMIT_BYTES // 2**30} GiB", hint="no network here needs that"
        )


def read_untrusted(path: Path) -> dict[str, Tensor]:
    """Return the floating-point and boolean tensors of an untrusted file; no code in it runs.

    Raises:
        DataError: the file is missing, too large, damaged, or holds anything but tensors.
    """
    return _read_noted(path)[0]


def read_weights(
    path: Path, model: nn.Module, fresh: Tensors, task: LearningTask, *, head: str = "kept"
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the values of a network from a file of weights, and what was done to get them.

    Args:
        path: a ``state_dict``, a checkpoint that has one, as it is or with what DataParallel and
            ``torch.compile`` put before its names.
        model: the network.
        fresh: initial values of all its floating-point tensors.
        task: of the data.
        head: ``new`` leaves the last layer its initial values.

    Raises:
        DataError: the file is missing, damaged, hostile, or of another network.
    """
    values, note = _read_noted(path)
    shapes = {name: tuple(x.shape) for name, x in fresh.items()}
    notes = [note] if note else []
    while prefix := next((x for x in _PREFIXES if _are_behind(values, x, shapes)), ""):
        values = {name.removeprefix(prefix): x for name, x in values.items()}
        notes.append(f"{path}: `{prefix}` before all names is left out")
    last = _find_head(model, task.num_outputs)
    weight = values.get(f"{last}.weight")
    width = len(weight) if weight is not None and weight.dim() else task.num_outputs
    if head == "new":
        own = [name for name in shapes if last and name.rpartition(".")[0] == last]
        if not own:
            raise explain_misfit(
                path,
                "the network ends in no layer of its outputs",
                "leave out `--head new`",
            )
        values = {name: x for name, x in values.items() if name.rpartition(".")[0] != last}
        values |= {name: fresh[name] for name in own}
        notes.append(f"{path}: `{last}` is new, for {task.describe()}")
    elif width != task.num_outputs:
        raise explain_misfit(
            path,
            f"its last layer `{last}` has {width:,} outputs, and the data {task.describe()}",
            "`--head new` (`fp fit`, `fp train`, `fp prune`) puts a fresh one there, to be trained",
        )
    check_tensors(path, values, shapes)
    return {name: values[name] for name in shapes}, tuple(notes)


def _read_noted(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return what :func:`read_untrusted` does, and a note on where it lay."""
    check_file(path, hint="give the weights with -w FILE")
    content: Mapping[str, Tensor]
    note = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters about a strange file is the error below
            if path.suffix in SUFFIXES:
                content, note = read_state(path)
            else:
                content = load_tensors(path.read_bytes())
    except DataError:
        raise
    except Exception as error:  # torch's reader raises almost anything on a wrong file
        raise explain_unreadable(path, error) from error
    wanted = (x for x in content.items() if x[1].is_floating_point() or x[1].dtype == torch.bool)
    return {
        str(name): x.detach().float() if x.is_floating_point() else x.detach() for name, x in wanted
    }, note


def _are_behind(values: Tensors, prefix: str, shapes: Mapping[str, object]) -> bool:
    is_own = any(name.startswith(prefix) for name in shapes)
    return bool(values) and not is_own and all(name.startswith(prefix) for name in values)


def _find_head(model: nn.Module, num_outputs: int) -> str:
    """Return the last layer that gives out a network's outputs, or "" where there is none."""
    layers = (
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and len(module.weight) == num_outputs
    )
    return (["", *layers])[-1]


def check_tensors(path: Path, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Make sure that tensors are those of a network, and finite.

    Raises:
        DataError: a name is missing or unknown, a shape differs, or a value is not finite.
    """
    for name in [*shapes, *tensors]:
        if name not in tensors:
            raise explain_misfit(path, f"`{name}` is missing", suggest(name, tensors))
        if name not in shapes:
            raise explain_misfit(path, f"the network has no `{name}`", suggest(name, shapes))
        if tuple(tensors[name].shape) != tuple(shapes[name]):
            have, want = list(tensors[name].shape), list(shapes[name])
            raise explain_misfit(path, f"`{name}` has shape {have}, the network {want}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise DataError(
                f"{path}: `{name}` is not finite", hint="the training diverged", where=str(path)
            )


def is_outsized(shapes: Mapping[str, tuple[int, ...]], num_stored: int) -> bool:
    """Tell whether a network is far larger than what a file has of it.

    A few bytes of untrusted origin must not make us build whatever they name.

    Args:
        shapes: of all tensors of the whole network.
        num_stored: values in the file.
    """
    size = sum(math.prod(shape) for shape in shapes.values())
    return size > max(_LIMIT_VALUES, _LIMIT_CUT * num_stored)


def explain_unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file that is damaged or of another kind."""
    reason = first_line(error)[:200]
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        reason = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return DataError(
        f"{path}: cannot be read: {reason}", hint="the file is damaged or of another kind",
        where=str(path),
    )  # fmt: skip


def explain_misfit(path: Path, problem: str, hint: str = "") -> DataError:
    """Return the error for a file whose content belongs to another network."""
    return DataError(
        f"{path}: {problem}", hint=hint or "is this file of another network?", where=str(path)
    )
