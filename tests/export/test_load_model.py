from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import every_way, narrow

import fpcli
from fpcli.engine.trained import Trained
from fpcli.errors import DataError, UsageError
from fpcli.export.card import Card
from fpcli.export.file import encode_model
from fpcli.models.build import measure_shapes
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify

pytestmark = pytest.mark.processor


def write(path: Path, trained: Trained, model: str = "") -> Path:
    card = Card.of(trained, {})
    path.write_bytes(encode_model(trained, replace(card, model=model or card.model)).data)
    return path


@pytest.mark.parametrize("trained", [narrow("nets:tiny"), every_way()], ids=["narrow", "masked"])
def test_a_loaded_network_is_the_exported_one(tmp_path: Path, trained: Trained) -> None:
    path = write(tmp_path / "a.safetensors", trained)
    model = fpcli.load(path, code=trained.model)
    assert not model.training
    assert model.card == Card.of(trained, {})
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(model(x), trained.module()(x))
    assert model(x).requires_grad


def test_code_runs_only_if_the_caller_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", narrow("nets:tiny"))
    for code in ("", "nets:narrow"):
        with pytest.raises(UsageError, match="code of yours"):
            fpcli.load(path, code=code)


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    trained = narrow("digits-cnn")
    kept = {name: x for name, x in trained.layout.tensors.items() if name != "fc2.bias"}
    fewer = replace(trained, layout=replace(trained.layout, tensors=kept))
    with pytest.raises(DataError, match=r"`fc2.bias` is not in both the file and `digits-cnn`"):
        fpcli.load(write(tmp_path / "a.safetensors", fewer))
    with pytest.raises(DataError, match="is not in both the file and `mnist-mlp`"):
        fpcli.load(write(tmp_path / "b.safetensors", trained, "mnist-mlp"))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("vgg11@4", {}, "far larger than what the file has"),
        ("vgg11@0.05", {}, r"is \[8, 3, 3, 3\], and in `vgg11@0.05` \[3, 3, 3, 3\]"),
        ("vgg11@0.25", {"task": Classify(7).to_json()}, r", and in `vgg11@0.25` \[7"),
    ],
)
def test_a_card_that_does_not_fit_costs_nothing(
    tmp_path: Path, model: str, changes: dict[str, Any], message: str
) -> None:
    trained = narrow("vgg11@0.25", (3, 32, 32))
    card = replace(Card.of(trained, {}), model=model, **changes)
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_model(trained, replace(card, inputs=None)).data)
    with pytest.raises(DataError, match=message):
        fpcli.load(path)


@pytest.mark.parametrize("model", ["torchvision:regnet_y_128gf", "torchvision:vit_h_14"])
def test_a_large_network_is_not_built_for_a_small_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    trained = narrow("vgg11@0.25", (3, 32, 32))
    shapes = measure_shapes(model, (3, 224, 224), 10)
    assert shapes is not None and sum(map(math.prod, shapes.values())) > 600_000_000
    tensors = {
        name: TensorSpec(tuple(min(size, 1) for size in shape), True)
        for name, shape in shapes.items()
    }
    values = {name: torch.zeros(spec.shape) for name, spec in tensors.items()}
    card = replace(Card.of(trained, {}), model=model, input_shape=(3, 224, 224), inputs=None)
    empty = replace(trained, layout=Layout(tensors, {}), support=Support(), values=values)
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_model(empty, card).data)
    monkeypatch.setattr("fpcli.export.load_model.build_model", pytest.fail)
    with pytest.raises(DataError, match="far larger than what the file has"):
        fpcli.load(path)


def test_the_public_names_are_sorted_and_there() -> None:
    assert fpcli.__all__ == sorted(fpcli.__all__)
    assert all(hasattr(fpcli, name) for name in fpcli.__all__)
