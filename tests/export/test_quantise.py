from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import narrow
from torch import nn

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.engine.trained import Inputs
from fpcli.errors import DataError
from fpcli.export.candidates import open_candidate
from fpcli.export.card import Card
from fpcli.export.formats import PROGRAMS, open_onnx
from fpcli.export.quantise import NUM_CALIBRATION, draw_calibration, quantise_onnx
from fpcli.export.source import ExportSource
from fpcli.export.write import NUM_INPUTS, ExportChoice, write_models
from fpcli.tasks.classify import Classify

onnx = pytest.importorskip("onnx")
for package in PROGRAMS["onnx"].needs:
    pytest.importorskip(package)

pytestmark = pytest.mark.processor

INT8 = ExportChoice(("onnx",), is_quantised=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, seed=0)


@pytest.fixture(scope="module")
def source(digits: Dataset) -> ExportSource:
    trained = replace(narrow("digits-cnn"), inputs=Inputs.of(digits))
    return ExportSource("model", trained, {"run": "x"})


def constants(data: bytes) -> dict[str, np.ndarray]:
    return {
        x.name: onnx.numpy_helper.to_array(x) for x in onnx.load_from_string(data).graph.initializer
    }


def test_scales_are_those_of_the_samples_and_of_each_row_of_weights() -> None:
    """By hand: samples from -1 to 3 give a step of 4 / 255 with 0 at 64, weights up to 2 and 0.5 in
    7 bits and a sign give 2 / 64 and 0.5 / 64."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, -1.0], [0.25, -0.5]]))
        linear.bias.zero_()
    card = replace(Card.of(narrow("digits-cnn"), {}), input_shape=(2,), task=Classify(2).to_json())
    whole, _ = PROGRAMS["onnx"].write(linear, card, 0)
    data = quantise_onnx(whole, torch.tensor([[-1.0, 0.0], [3.0, 1.0]]))
    values = constants(data)
    assert values["input_scale"] == pytest.approx(4 / 255)
    assert values["input_zero_point"] == 64
    assert values["weight_scale"].tolist() == pytest.approx([2 / 64, 0.5 / 64])
    assert values["weight_quantized"].dtype == np.int8
    assert sorted(values["weight_quantized"].flatten().tolist()) == [-64, -32, 32, 64]


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_quantised_file_is_small_says_what_it_is_and_predicts_alike(
    is_raw: bool, source: ExportSource, digits: Dataset, tmp_path: Path
) -> None:
    choice = replace(INT8, is_raw=is_raw)
    (file,) = write_models([source], choice, tmp_path, dataset=digits)
    (whole,) = write_models([source], ExportChoice(("onnx",)), tmp_path)
    assert (file.path.name, whole.path.name) == ("model-int8.onnx", "model.onnx")
    assert file.bytes == file.path.stat().st_size < 0.6 * file.float32_bytes
    assert file.max_difference > 0
    assert file.num_same >= 0.9 * NUM_INPUTS
    session, _ = open_onnx(file.path)
    card = Card.from_json(session.get_modelmeta().custom_metadata_map["fpcli"])
    assert (card.dtype, card.calibrated_on, card.is_raw) == ("int8", NUM_CALIBRATION, is_raw)
    stored = digits.test.images
    x = stored.float() if is_raw else digits.normalise(stored)
    logits = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
    wanted = source.trained.module()(digits.normalise(stored))
    shares = [float((y.argmax(1) == digits.test.labels).float().mean()) for y in (wanted, logits)]
    assert file.judged == pytest.approx(shares)
    assert float((logits.argmax(1) == wanted.argmax(1)).float().mean()) > 0.9
    candidate = open_candidate(file.path)
    candidate.prepare(x[:2])()
    assert (candidate.kind, candidate.input_shape) == ("onnx", (1, 8, 8))


def test_the_same_model_gives_the_same_bytes_with_whatever_constants_the_data_has(
    source: ExportSource, digits: Dataset, tmp_path: Path
) -> None:
    """What the network was trained with counts, as when data is named that has other constants."""
    other = replace(digits, mean=(0.9,), std=(2.0,))
    sums = [
        write_models([source], INT8, tmp_path / name, dataset=data)[0].sha256
        for name, data in (("a", digits), ("b", digits), ("c", other))
    ]
    assert len(set(sums)) == 1


def test_batch_norm_and_residual_sums_are_quantised_too(tmp_path: Path) -> None:
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 4
    arrays = {"images": images.numpy(), "labels": labels.numpy()}
    np.savez(
        tmp_path / "few.npz",
        **{f"{part}_{key}": x for part in ("train", "test") for key, x in arrays.items()},
    )
    few = load_dataset(f"npz:{tmp_path}/few.npz", None, seed=0)
    trained = replace(narrow("resnet20", (3, 16, 16), ratio=0.4), inputs=None)
    (file,) = write_models([ExportSource("a", trained, {})], INT8, tmp_path, dataset=few)
    assert file.calibrated_on == len(few.train.labels) < NUM_CALIBRATION
    nodes = onnx.load(file.path).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    assert "BatchNormalization" not in makers.values()
    sums = [node for node in nodes if node.op_type in ("Add", "Conv")]
    assert {makers[name] for node in sums for name in node.input} == {"DequantizeLinear"}


def test_calibration_takes_a_fixed_part_of_the_training_data(digits: Dataset) -> None:
    samples = draw_calibration(digits.train)
    assert samples.shape == (NUM_CALIBRATION, 1, 8, 8)
    assert torch.equal(samples, draw_calibration(digits.train))
    train = {image.numpy().tobytes() for image in digits.train.images}
    assert {image.numpy().tobytes() for image in samples} <= train


def test_what_cannot_be_quantised_is_told() -> None:
    with pytest.raises(DataError, match="the network cannot be quantised") as caught:
        quantise_onnx(b"no network", torch.zeros(1, 2))
    assert "leave out --quantise" in caught.value.hint
