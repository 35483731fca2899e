"""Write the files of an export: each one read again and compared, then all put in their places."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fpcli.data.batches import evaluation_batches
from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Inputs, Trained
from fpcli.errors import CheckError, DataError, UsageError, first_line
from fpcli.export.card import Card, Dtype
from fpcli.export.file import encode_model
from fpcli.export.formats import PROGRAMS, Forward, silence_exporters
from fpcli.export.load_model import load
from fpcli.export.quantise import draw_calibration, quantise_onnx
from fpcli.export.raw_inputs import RawInputs
from fpcli.export.source import ExportSource
from fpcli.files import cannot_write, hash_file, sync_folder
from fpcli.tasks.classify import judge_top1
from fpcli.tasks.learning_task import Batch, LearningTask

EXPORT_FORMATS = ("safetensors", *PROGRAMS)
NUM_INPUTS = 32
_PREFIX, _DAY_S = ".export.", 86_400
_HINT = "free some disk space, or choose another folder with `-o`; nothing was kept"


@dataclass(frozen=True)
class ExportChoice:
    """How models are written.

    Attributes:
        formats: of ``FORMATS``.
        dtype: of the weights in safetensors.
        is_dense: masked tensors too are stored dense there.
        is_raw: the other formats normalise by themselves.
        atol: largest difference of outputs that is no error; of predicted numbers relative to the
            largest of them, where that is above 1.
        opset: of ONNX, 0 for the exporter's usual one.
        is_quantised: ONNX computes with 8 bits.
    """

    formats: tuple[str, ...] = EXPORT_FORMATS[:1]
    dtype: Dtype = "float32"
    is_dense: bool = False
    is_raw: bool = False
    atol: float = 1e-5
    opset: int = 0
    is_quantised: bool = False

    def makes_int8(self, format: str) -> bool:
        """Tell whether files of a format compute with 8 bits."""
        return self.is_quantised and format == "onnx"


@dataclass(frozen=True)
class Written:
    """A file, and how it compares with the model that it was made from.

    Attributes:
        detail: what else there is to say about the file.
        takes: what it is to be given (``Card.takes``).
        max_difference: of the outputs on 32 inputs; of predicted numbers relative, as ``atol`` is.
        num_same: of these inputs that are given the same class or item; None for numbers.
        answers: what it counts, `classes` or `items`.
        max_weight_error: of a weight; 0 but for a smaller dtype of safetensors.
        metric: by which the task judges.
        judged: by it on test data, the model and its file; None but for a quantised file.
        float32_bytes: of the file before it was quantised; 0 likewise.
        calibrated_on: training samples of it.
    """

    format: str
    path: Path
    bytes: int
    sha256: str
    detail: str
    takes: str
    max_difference: float
    num_same: int | None
    answers: str
    max_weight_error: float = 0.0
    metric: str = ""
    judged: tuple[float, float] | None = None
    float32_bytes: int = 0
    calibrated_on: int = 0


def write_models(
    sources: Sequence[ExportSource],
    choice: ExportChoice,
    folder: Path,
    *,
    dataset: Dataset | None = None,
    force: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Written]:
    """Write every model in every format, or nothing at all.

    Args:
        sources: with names of their own.
        folder: made where it is missing.
        dataset: what the models are for; needed to quantise, which is judged on its test data and
            held to no limit.
        force: replace files that are there.
        tell: takes a line about each file before it is made.

    Raises:
        UsageError: a file is there.
        CheckError: a file does not compute what its model computes.
        DataError: a network cannot be written in a format, or its normalisation is unknown.
        NeedError: a package is missing, or the folder cannot be written.
    """
    targets = [
        folder / _file_name(source, ending, choice)
        for source in sources
        for ending in choice.formats
    ]
    _check_free(targets, force=force)
    with _beside(folder) as fresh:
        made = []
        for source in sources:
            for name in choice.formats:
                tell(f"writing {_file_name(source, name, choice)}")
                made.append(_make(source, name, choice, fresh, dataset))
        _check_free(targets, force=force)  # another call may have been quicker
        try:
            for file in made:
                file.path.replace(folder / file.path.name)
            sync_folder(folder)
        except OSError as error:
            raise cannot_write(folder, error, hint=_HINT) from error
    return [replace(file, path=target) for file, target in zip(made, targets, strict=True)]


def _check_free(targets: Sequence[Path], *, force: bool) -> None:
    for path in targets:
        if path.exists() and (not force or path.is_dir()):
            hint = "choose another folder with `-o`"
            if not path.is_dir():
                hint = f"replace it with `--force`, or {hint}"
            raise UsageError(f"{path} exists", hint=hint, where="-o")


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a folder on the same disk whose files count only once they are moved."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_PREFIX}*"):  # by a crash, and not by a call beside this one
            if time.time() - left.stat().st_mtime > _DAY_S:
                shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    except OSError as error:
        raise cannot_write(folder, error, hint=_HINT) from error
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # it holds the result
                folder.rmdir()


def _file_name(source: ExportSource, format: str, choice: ExportChoice) -> str:
    return f"{source.name}{'-int8' * choice.makes_int8(format)}.{format}"


def _make(
    source: ExportSource, name: str, choice: ExportChoice, folder: Path, dataset: Dataset | None
) -> Written:
    """Write one file, and run it."""
    trained, path = source.trained, folder / _file_name(source, name, choice)
    model = trained.module()
    if name in PROGRAMS and choice.is_raw:
        model = _with_raw_inputs(source, model)
    if choice.makes_int8(name):
        assert dataset is not None
        return _make_int8(source, model, choice, path, dataset)
    error = 0.0
    if name in PROGRAMS:
        card = Card.of(trained, source.about, is_raw=choice.is_raw)
        data, detail = PROGRAMS[name].write(model, card, choice.opset)
    else:
        card = Card.of(trained, source.about, choice.dtype)
        stored = encode_model(trained, card, is_dense=choice.is_dense)
        data, error = stored.data, stored.max_error
        detail = f"{stored.weight_bytes:,} B of weights"
        if stored.num_sparse:
            detail += f", {stored.num_sparse} tensors sparse"
    _write_file(path, data)
    task, rng = trained.task, torch.Generator().manual_seed(0)
    x = task.draw_inputs(trained.input_shape, NUM_INPUTS, rng)
    x = model.invert(x) if isinstance(model, RawInputs) else x
    _, difference, num_same = _compare(path, name, model, trained, x)
    is_rounded = name not in PROGRAMS and choice.dtype != "float32"
    if not is_rounded and not (difference <= choice.atol and num_same in (NUM_INPUTS, None)):
        same = f", of which {num_same} are given equal {task.answers}" * bool(task.answers)
        raise CheckError(
            f"{path.name}: outputs differ by {difference:.1e} on {NUM_INPUTS} inputs{same}",
            hint="no file was kept; `--atol` says how much they may differ",
            where="--atol",
        )
    size, digest = len(data), hash_file(path)
    return Written(
        name, path, size, digest, detail, card.takes, difference, num_same, task.answers, error
    )


def _make_int8(
    source: ExportSource, model: nn.Module, choice: ExportChoice, path: Path, dataset: Dataset
) -> Written:
    """Write one ONNX file of 8 bits, and judge it on test data."""
    trained, name = source.trained, "onnx"
    # Constants of other data would not be what the network was trained with.
    known = trained.inputs or Inputs.of(dataset)
    normalise = replace(dataset, mean=known.mean, std=known.std).normalise

    def prepare(stored: Tensor) -> Tensor:
        x = normalise(stored)
        return model.invert(x) if isinstance(model, RawInputs) else x

    samples = prepare(draw_calibration(dataset.train))
    card = Card.of(trained, source.about, "int8", is_raw=choice.is_raw, calibrated_on=len(samples))
    whole, detail = PROGRAMS[name].write(model, card, choice.opset)
    data = quantise_onnx(whole, samples)
    _write_file(path, data)
    images, labels = dataset.test.images, dataset.test.labels
    x = prepare(images[torch.arange(NUM_INPUTS) % len(labels)])
    run, difference, num_same = _compare(path, name, model, trained, x)
    task = trained.task
    restored = task.standardise if isinstance(model, RawInputs) else None
    before, after = (
        _judge(task, forward, restored, evaluation_batches(dataset.test, prepare))
        for forward in (model, run)
    )
    return Written(
        name,
        path,
        len(data),
        hash_file(path),
        detail,
        card.takes,
        difference,
        num_same,
        task.answers,
        metric=task.primary_name,
        judged=(before, after),
        float32_bytes=len(whole),
        calibrated_on=len(samples),
    )


def _with_raw_inputs(source: ExportSource, model: nn.Module) -> RawInputs:
    trained = source.trained
    if trained.task.kind == "rank":
        raise DataError(
            f"{source.name}: it takes sequences of items, which nothing normalises",
            hint="leave out --with-normalise; the file takes them as they are",
            where="--with-normalise",
        )
    if trained.inputs is None:
        raise DataError(
            f"{source.name}: its normalisation is unknown, so no file can have it",
            hint="leave out --with-normalise; the model was written by an older version",
            where="--with-normalise",
        )
    return RawInputs(model, trained.inputs, len(trained.input_shape), trained.task)


def _write_file(path: Path, data: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error, hint=_HINT) from error


def _compare(
    path: Path, name: str, model: nn.Module, trained: Trained, x: Tensor
) -> tuple[Forward, float, int | None]:
    """Return what runs a file, its largest difference of outputs, and how many inputs are given the
    same class or item; see ``Written``."""
    try:
        with silence_exporters():
            run = PROGRAMS[name].read(path) if name in PROGRAMS else load(path, code=trained.model)
            outputs = _outputs(run, x)
    except Exception as error:  # whatever a runtime raises on what it cannot read
        reason = first_line(error)[:200]
        raise CheckError(
            f"{path.name}: cannot be used once written: {reason}",
            hint="no file was kept; try another format or `--opset`",
            where="--to",
        ) from error
    wanted = _outputs(model, x)
    difference = float((outputs - wanted).abs().max())
    if not trained.task.answers:
        return run, difference / float(wanted.abs().max().clamp(min=1)), None
    return run, difference, int(judge_top1(outputs, wanted.argmax(1)).sum())


@torch.no_grad()
def _judge(
    task: LearningTask,
    run: Forward,
    standardise: Callable[[Tensor], Tensor] | None,
    batches: Iterable[Batch],
) -> float:
    """Return the primary metric of a program.

    Args:
        standardise: what must be done to its outputs, if anything.
    """
    values = []
    for x, y in batches:
        outputs = run(x) if standardise is None else standardise(run(x))
        values.append(task.judge_each(outputs, y)[0])
    return float(torch.cat(values).mean())


def _outputs(run: Forward, x: Tensor) -> Tensor:
    # Unequal batches, which only a program for batches of any size takes.
    with torch.no_grad():
        return torch.cat([run(part) for part in x.split([1, len(x) - 1])])
