"""Quantise: an ONNX file of float32 becomes one that computes with whole numbers of 8 bits.

Weights get a scale per output channel, activations one per tensor, from the least and the largest
value that training samples give it (onnxruntime's static quantisation, in the QDQ form that other
runtimes read too).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fpcli.data.split import Split
from fpcli.errors import DataError, first_line
from fpcli.export.formats import ONNX_INPUT, silence_exporters
from fpcli.rng import stream

NUM_CALIBRATION = 256
"""Training samples that the ranges of activations are measured on."""

_BATCH = 64


def draw_calibration(train: Split) -> Tensor:
    """Return stored training samples, at most ``NUM_CALIBRATION``, the same in every call."""
    order = torch.randperm(len(train.labels), generator=stream(0, "export/calibration"))
    return train.images[order[:NUM_CALIBRATION]]


class _Reader:
    """Hands out samples as onnxruntime's calibration asks for them."""

    def __init__(self, samples: Tensor) -> None:
        self.batches: Iterator[Tensor] = iter(samples.split(_BATCH))

    def get_next(self) -> dict[str, object] | None:
        batch = next(self.batches, None)
        return None if batch is None else {ONNX_INPUT: batch.numpy()}


def quantise_onnx(data: bytes, samples: Tensor) -> bytes:
    """Return an ONNX file whose convolutions, matrix products and what joins them take int8.

    The same file and samples give the same bytes.

    Args:
        data: as ``formats`` writes it; its metadata stay.
        samples: float32 ``[n, ...]``, what the file takes.

    Raises:
        DataError: onnxruntime cannot quantise the network.
    """
    try:
        with silence_exporters(), tempfile.TemporaryDirectory() as folder:
            from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

            source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(data)
            quantize_static(
                source,
                target,
                _Reader(samples),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # Weights of 7 bits: x86 processors without VNNI saturate in sums of 8.
                reduce_range=True,
            )
            return target.read_bytes()
    except Exception as error:  # networks of others make the quantiser raise almost anything
        raise DataError(
            f"the network cannot be quantised: {first_line(error)[:200]}",
            hint="leave out --quantise; `--dtype int8` makes safetensors as small",
            where="--quantise",
        ) from error
