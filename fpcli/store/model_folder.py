"""A trained model on disk: its weights, what was cut off, and the data that it is for.

A folder of one holds ``model.safetensors`` (every floating-point tensor in its small shape),
``layout.json`` (what they mean) and, where single weights are masked, ``mask.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import save
from torch import Tensor, nn

from fpcli.engine.trained import DataKey, Inputs, Trained
from fpcli.errors import DataError, FpError, LayoutError, UsageError
from fpcli.files import write_atomic
from fpcli.models.build import build, measure_shapes
from fpcli.plugins import is_code
from fpcli.store.run_folder import RunFolder
from fpcli.store.weights import (
    check_file,
    check_tensors,
    explain_misfit,
    explain_unreadable,
    is_outsized,
    read_untrusted,
)
from fpcli.structure.cost import BYTES_PER_FLOAT
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.support import Support
from fpcli.structure.trace import list_tensors, trace, trace_around
from fpcli.tasks import read_task
from fpcli.tasks.learning_task import LearningTask

MODEL_FORMAT = 2
"""Newest format number of layout.json that is read, and the one that is written. In the first, all
networks told classes apart."""

_LIMIT_JSON_BYTES = 64 * 2**20
_INPUTS = TypeAdapter(Inputs)


def write_trained(folder: Path, trained: Trained) -> None:
    """Write a trained model into an existing folder.

    Raises:
        NeedError: a file cannot be written.
    """
    layout = trained.layout
    block = trained.support.gather(layout, trained.values)
    tensors = {name: value.detach().cpu().contiguous() for name, value in block.items()}
    write_atomic(folder / "model.safetensors", save(tensors))
    if trained.support.mask:
        masks = {
            name: bits.contiguous() for name, bits in trained.support.block_mask(layout).items()
        }
        write_atomic(folder / "mask.safetensors", save(masks))
    about = {
        "format": MODEL_FORMAT,
        "model": trained.model,
        "input_shape": list(trained.input_shape),
        "task": trained.task.to_json(),
        "data": trained.data and vars(trained.data),
        "inputs": trained.inputs and vars(trained.inputs),
        "keep": {name: kept.tolist() for name, kept in trained.support.keep.items()},
        "layout": layout.to_json(),
    }
    write_atomic(folder / "layout.json", json.dumps(about, indent=1) + "\n")


def read_trained(
    folder: Path, *, code: str = "", must_trace: bool = True, ignore: Sequence[str] = ()
) -> Trained:
    """Return the trained model in a folder that :func:`write_trained` has filled, or in a run.

    Args:
        folder: a run (its ``final/`` is read) or the folder itself.
        code: name of the network that the caller expects; a stored name that is code must be
            equal to it.
        must_trace: False for those who cut nothing: a whole network that cannot be traced will do.
        ignore: modules to leave alone where it cannot be traced otherwise (``trace_around``).

    Raises:
        UsageError: the folder does not exist or holds no trained model.
        DataError: a file is damaged, hostile, or belongs to another network.
        FpError: the network cannot be built.
        LayoutError: the network cannot be traced, and must be.
    """
    place = folder / "final" if (folder / "final").is_dir() else folder
    about = _about(folder, place / "layout.json")
    _check_size(about, place / "model.safetensors")
    model = build_model(about["model"], about["input_shape"], about["task"], code=code)
    layout = _layout(model, about, must_trace, ignore)
    keep = {name: torch.tensor(kept, dtype=torch.int64) for name, kept in about["keep"].items()}
    support = Support(keep)
    try:
        support.check(layout)
    except FpError as error:
        raise explain_misfit(place / "layout.json", error.message) from error
    block = read_untrusted(place / "model.safetensors")
    check_tensors(place / "model.safetensors", block, support.block_shapes(layout))
    values, _ = support.scatter(layout, block)
    if (place / "mask.safetensors").exists():
        masks = read_untrusted(place / "mask.safetensors")
        support = Support(keep, _dense_masks(place / "mask.safetensors", masks, support, layout))
    return Trained(
        model=about["model"],
        template=model,
        layout=layout,
        support=support,
        values=values,
        input_shape=tuple(about["input_shape"]),
        task=about["task"],
        data=about["data"] and DataKey(**about["data"]),
        inputs=_inputs(about),
    )


def build_untrained(
    name: str,
    input_shape: Sequence[int],
    task: LearningTask,
    *,
    data: DataKey,
    code: str = "",
    ignore: Sequence[str] = (),
) -> Trained:
    """Return a network by name with its initial weights; arguments and errors as above."""
    model = build_model(name, input_shape, task, code=code)
    layout = trace_around(model, task.make_example(tuple(input_shape)), words=ignore)
    state = model.state_dict()
    return Trained(
        model=name,
        template=model,
        layout=layout,
        support=Support(),
        values={key: state[key].detach().clone() for key in layout.tensors},
        input_shape=tuple(input_shape),
        task=task,
        data=data,
    )


def build_model(name: str, input_shape: Any, task: LearningTask, *, code: str = "") -> nn.Module:
    """Return a network by name; one that is code only if the caller named the same code.

    Raises:
        FpError: the name is unknown, or the network does not fit the task.
    """
    if is_code(name) and name != code:
        raise UsageError(
            f"the network is code of yours (`{name}`), which runs only if you name it",
            hint=f"if you trust it, add `--model {name}`",
            where="--model",
        )
    return build(name, tuple(input_shape), task, seed=0, allow_code=name == code)


def _layout(
    model: nn.Module, about: Mapping[str, Any], must_trace: bool, ignore: Sequence[str]
) -> Layout:
    example = about["task"].make_example(tuple(about["input_shape"]))
    if opaque := _opaque(about):
        return trace(model, example, opaque=opaque)
    if must_trace or about["keep"]:
        return trace_around(model, example, words=ignore)
    try:
        return trace(model, example)
    except LayoutError:
        return list_tensors(model, example)


def _opaque(about: Mapping[str, Any]) -> list[str]:
    """Return the modules that were left alone when the model was cut."""
    names = about["layout"].get("opaque", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("modules that were left alone are no list of names")
    return names


def _about(folder: Path, path: Path) -> dict[str, Any]:
    if RunFolder(folder).purged.is_file():
        raise DataError(
            f"{folder}: its model was deleted",
            hint=f"{RunFolder(folder).purged} says why",
            where=str(folder),
        )
    if not path.is_file():
        problem = "has no trained model" if folder.exists() else "does not exist"
        unfinished = folder.exists() and (folder / "checkpoints").is_dir()
        raise UsageError(
            f"{folder} {problem}",
            hint="finish it first with `--resume`"
            if unfinished
            else "give a finished run, or an output folder of `fp prune`",
            where=str(folder),
        )
    try:
        if path.stat().st_size > _LIMIT_JSON_BYTES:
            raise ValueError("it is too large")
        about = json.loads(path.read_text("utf-8"))
        if about["format"] == 1:
            about |= {"format": MODEL_FORMAT, "task": {"kind": "classify"}}
            about["task"]["num_outputs"] = about.pop("num_classes")
        if about["format"] != MODEL_FORMAT:
            raise ValueError(
                f"format {about['format']} is not {MODEL_FORMAT}, which this version reads"
            )
        about["task"] = read_task(about["task"])
        DataKey(**(about["data"] or {"name": "", "validation_fraction": 0.1, "seed": 0}))
        _check_plain(about)
        _opaque(about)
        _inputs(about)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise explain_unreadable(path, error) from error
    return dict(about)


def _check_size(about: Mapping[str, Any], path: Path) -> None:
    check_file(path, hint="give a finished run, or an output folder of `fp prune`")
    try:
        whole = measure_shapes(
            about["model"], tuple(about["input_shape"]), about["task"].num_outputs
        )
    except Exception:  # the network of another one's name or shape; `build_model` says why
        return
    if whole and is_outsized(whole, path.stat().st_size // BYTES_PER_FLOAT):
        raise explain_misfit(path, f"`{about['model']}` is far larger than what the file has of it")


def _inputs(about: Mapping[str, Any]) -> Inputs | None:
    if about.get("inputs") is None:
        return None
    inputs = _INPUTS.validate_python(about["inputs"])
    if not inputs.do_fit(about["input_shape"], about["task"]):
        raise ValueError("class names or normalisation do not fit the network")
    return inputs


def _check_plain(about: Mapping[str, Any]) -> None:
    sizes = about["input_shape"]
    if not all(type(size) is int and 0 < size < 2**20 for size in sizes) or len(sizes) > 4:
        raise ValueError("input shape is impossible")
    if not isinstance(about["model"], str) or not isinstance(about["keep"], dict):
        raise ValueError("model or kept channels have the wrong type")
    for name, kept in about["keep"].items():
        if not isinstance(kept, list) or not all(type(channel) is int for channel in kept):
            raise ValueError(f"kept channels of `{name}` are no list of numbers")


def _dense_masks(path: Path, masks: Tensors, support: Support, layout: Layout) -> dict[str, Tensor]:
    shapes = support.block_shapes(layout)
    for name, bits in masks.items():
        if name not in shapes or tuple(bits.shape) != shapes[name] or bits.dtype != torch.bool:
            raise explain_misfit(path, f"the mask of `{name}` fits no tensor of the network")
    dense, held = support.scatter(layout, {name: bits.float() for name, bits in masks.items()})
    # Where a channel is gone the mask says nothing; alive is its neutral value.
    return {name: dense[name].bool() | ~held[name].bool() for name in masks}
