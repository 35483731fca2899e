"""The formats of `fp export`: how a model becomes bytes, and how its own runtime runs a file."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.errors import DataError, NeedError, first_line
from fpcli.export.archive import read_archive
from fpcli.export.card import Card

Forward = Callable[[Tensor], Tensor]
"""From inputs ``[batch, ...]`` to what the network returns, ``[batch, num_outputs]``."""

ONNX_INPUT = "input"
_OUTPUT, _CARD = "logits", "fpcli"


@dataclass(frozen=True)
class Form:
    """A format that holds a network as a program.

    Attributes:
        write: network, card and opset (0 for the usual one) -> bytes, and a word on them.
        read: file -> what runs it.
        needs: packages without which neither works.
        extra: how `pip` calls these.
    """

    write: Callable[[nn.Module, Card, int], tuple[bytes, str]]
    read: Callable[[Path], Forward]
    needs: tuple[str, ...] = ()
    extra: str = ""

    def check_installed(self, what: str, packages: Sequence[str] = ()) -> None:
        """Make sure that the format can be written and read here.

        Args:
            what: needs that, such as an option.
            packages: those that matter; none means all.

        Raises:
            NeedError: a package is missing.
        """
        for package in packages or self.needs:
            try:
                with silence_exporters():
                    importlib.import_module(package)
            except ImportError as error:
                raise NeedError(
                    f"{what} needs the package `{package}`",
                    hint=f"`pip install 'fpcli[{self.extra}]'`",
                    where=what,
                ) from error


@contextlib.contextmanager
def silence_exporters() -> Iterator[None]:
    """Keep the exporters' chatter from both streams."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _program(model: nn.Module, card: Card) -> torch.export.ExportedProgram:
    """Return a network as a program for batches of any size."""
    # Two, since a batch of one would be taken for a constant.
    example = card.learns.make_example(card.input_shape, 2)
    try:
        with silence_exporters():
            shapes = ({0: torch.export.Dim("batch")},)
            return torch.export.export(model, (example,), dynamic_shapes=shapes)
    except Exception as error:  # networks of others make the exporter raise almost anything
        raise _cannot("pt2 or onnx", card, error) from error


def _write_pt2(model: nn.Module, card: Card, opset: int) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    with silence_exporters():
        torch.export.save(_program(model, card), buffer, extra_files={_CARD: card.to_json()})
    return buffer.getvalue(), "torch.export"


def open_pt2(path: Path) -> tuple[torch.export.ExportedProgram, Card | None]:
    """Return the program in a file, and its card, if it has one.

    Raises:
        ValueError: it holds more than a graph and tensors, or its card is none.
        Exception: whatever torch finds wrong with it.
    """
    extra = {_CARD: ""}
    with silence_exporters():
        program = torch.export.load(read_archive(path), extra_files=extra)
    return program, _read_card(extra[_CARD])


def _read_card(text: str) -> Card | None:
    return Card.from_json(text) if text else None


def _read_pt2(path: Path) -> Forward:
    module: Forward = open_pt2(path)[0].module()
    return module


def _write_onnx(model: nn.Module, card: Card, opset: int) -> tuple[bytes, str]:
    program = _program(model, card)
    try:
        with silence_exporters():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset or None,
                input_names=[ONNX_INPUT],
                output_names=[_OUTPUT],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
                external_data=False,
            )
            assert exported is not None
            exported.model.metadata_props[_CARD] = card.to_json()
            used = exported.model.opset_imports[""]
            if opset not in (0, used):
                raise DataError(
                    f"`{card.model}` needs opset {used} instead of {opset}",
                    hint="leave out --opset, or give that one",
                    where="--opset",
                )
            return exported.model_proto.SerializeToString(), f"opset {used}, onnxruntime"
    except DataError:
        raise
    except Exception as error:  # as above; more than 2 GB is one of the reasons
        raise _cannot("onnx", card, error) from error


def open_onnx(path: Path) -> tuple[Any, Card | None]:
    """Return onnxruntime's session of a file, with as many threads as torch has now, and the file's
    card, if it has one.

    Raises:
        ValueError: its card is none.
        Exception: whatever the runtime finds wrong with it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, _read_card(session.get_modelmeta().custom_metadata_map.get(_CARD, ""))


def _read_onnx(path: Path) -> Forward:
    session, _ = open_onnx(path)

    def run(x: Tensor) -> Tensor:
        (logits,) = session.run([_OUTPUT], {ONNX_INPUT: x.numpy()})
        return torch.from_numpy(logits)

    return run


def _cannot(what: str, card: Card, error: Exception) -> DataError:
    reason = first_line(error)[:200]
    return DataError(
        f"`{card.model}` cannot be exported as {what}: {reason}",
        hint="`--to safetensors` takes every network",
        where="--to",
    )


PROGRAMS: Mapping[str, Form] = {
    "pt2": Form(_write_pt2, _read_pt2),
    "onnx": Form(_write_onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime"), "onnx"),
}
"""Formats that hold the network itself; the name is the file's ending too."""
