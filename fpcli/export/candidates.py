"""Candidates of `fp bench`: whatever can be timed, behind one way of running it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fpcli.errors import DataError, FpError, UsageError, first_line
from fpcli.export.formats import PROGRAMS, open_onnx, open_pt2
from fpcli.export.load_model import load_masked
from fpcli.store.model_folder import read_trained
from fpcli.store.weights import explain_unreadable
from fpcli.structure.choice import LayerChoice, draw_example, sparsify
from fpcli.structure.layout import Tensors
from fpcli.structure.stopwatch import TimedRun
from fpcli.tasks.learning_task import LearningTask

CandidateKind = Literal["folder", "safetensors", "onnx", "pt2"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that can be timed.

    Attributes:
        bytes: of its file, or of the weights and masks in its folder.
        input_shape: of one sample.
        task: what it is for, or None where a file of others does not say.
        prepare: batch -> a forward pass of it, with as many threads as torch has then.
        build: makes the network anew, where it is one of ours; None for other formats.
        masks: of its weights that are masked.
    """

    path: Path
    kind: CandidateKind
    bytes: int
    input_shape: tuple[int, ...]
    task: LearningTask | None
    prepare: Callable[[Tensor], TimedRun]
    build: Callable[[], nn.Module] | None = None
    masks: Tensors = field(default_factory=dict)

    def draw(self, batch: int) -> Tensor:
        """Return a batch of random samples that it takes, the same every time."""
        if self.task is None:
            return draw_example(self.input_shape, batch)
        return self.task.draw_inputs(self.input_shape, batch, torch.Generator().manual_seed(0))


def open_candidate(path: Path, *, code: str = "") -> Candidate:
    """Return what lies at a path: a file of `fp export`, a run, or an output folder of `fp prune`.

    Args:
        code: ``module:function`` of a network of the user's own.

    Raises:
        UsageError: nothing that can be timed is there.
        DataError: a file is damaged or hostile.
        NeedError: the format's runtime is not installed.
    """
    if path.is_dir():
        return _of_folder(path, code)
    if path.is_file() and path.suffix == ".safetensors":
        return _of_safetensors(path, code)
    if path.is_file() and path.suffix == ".onnx":
        return _of_onnx(path)
    if path.is_file() and path.suffix == ".pt2":
        return _of_pt2(path)
    raise UsageError(
        f"{path} {'cannot be timed' if path.exists() else 'does not exist'}",
        hint="give runs, folders of `fp prune`, .safetensors of `fp export`, .onnx, .pt2",
        where=str(path),
    )


def _forward(module: nn.Module, x: Tensor) -> TimedRun:
    def run() -> None:
        with torch.no_grad():
            module(x)

    return run


def _of_folder(path: Path, code: str) -> Candidate:
    trained = read_trained(path, code=code, must_trace=False)
    place = path / "final" if (path / "final").is_dir() else path
    files = [place / "model.safetensors", place / "mask.safetensors"]
    size = sum(file.stat().st_size for file in files if file.exists())
    masks, build = trained.support.block_mask(trained.layout), trained.module
    shape, task = trained.input_shape, trained.task
    return Candidate(
        path, "folder", size, shape, task, lambda x: _forward(build(), x), build, masks
    )


def _of_safetensors(path: Path, code: str) -> Candidate:
    model, masks, card = load_masked(path, code=code)

    def build() -> nn.Module:
        return copy.deepcopy(model)

    size, shape, task = path.stat().st_size, card.input_shape, card.learns
    return Candidate(
        path, "safetensors", size, shape, task, lambda x: _forward(build(), x), build, masks
    )


def _of_onnx(path: Path) -> Candidate:
    PROGRAMS["onnx"].check_installed(str(path), ["onnxruntime"])
    try:
        session, card = open_onnx(path)
        (entry,) = session.get_inputs()
        shape = tuple(entry.shape[1:])
        if not shape or not all(isinstance(side, int) for side in shape):
            raise ValueError(f"its input has the shape {entry.shape}")
    except Exception as error:  # the runtime has an exception of its own for every damage
        raise explain_unreadable(path, _short(error)) from error

    def prepare(x: Tensor) -> TimedRun:
        (opened, _), batch = open_onnx(path), {entry.name: x.numpy()}
        return lambda: opened.run(None, batch)

    return Candidate(
        path, "onnx", path.stat().st_size, shape, None if card is None else card.learns, prepare
    )


def _of_pt2(path: Path) -> Candidate:
    try:
        program, card = open_pt2(path)
        module = program.module()
        if program.example_inputs is None:
            raise ValueError("it does not say what inputs it takes")
        (example,), _ = program.example_inputs
        shape = tuple(int(side) for side in example.shape[1:])
    except Exception as error:  # a damaged archive makes torch raise almost anything
        raise explain_unreadable(path, _short(error)) from error
    task = None if card is None else card.learns
    return Candidate(path, "pt2", path.stat().st_size, shape, task, lambda x: _forward(module, x))


def _short(error: Exception) -> ValueError:
    return ValueError(first_line(error)[:200])


def skip_masked(
    build: Callable[[], nn.Module], masks: Tensors, x: Tensor
) -> tuple[TimedRun, list[LayerChoice]]:
    """Return a forward pass that skips masked weights where that is faster, and what was chosen.

    Args:
        build: see :class:`Candidate`.
        masks: of the network's weights.
        x: the batch.
    """
    module, choices = sparsify(build(), masks, x)
    return _forward(module.eval(), x), choices


def try_out(candidate: Candidate, x: Tensor) -> TimedRun:
    """Return a forward pass that has worked once.

    Raises:
        DataError: the model does not take such a batch.
    """
    try:
        run = candidate.prepare(x)
        run()
    except FpError:
        raise
    except Exception as error:  # of whatever runtime
        raise DataError(
            f"{candidate.path} does not run with batches of {len(x)}: {_short(error)}",
            hint="was it exported for one size of batch? then say that with --batch",
            where=str(candidate.path),
        ) from error
    return run
