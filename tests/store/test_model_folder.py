from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fpcli.data.datasets import Dataset, load_dataset
from fpcli.engine.trained import DataKey, Inputs, Trained
from fpcli.errors import DataError, UsageError
from fpcli.models.build import build
from fpcli.store.model_folder import read_trained, write_trained
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

KEY = DataKey("digits", 0.1, 0)
INPUTS = Inputs(tuple("abcdefghij"), 1 / 16, (0.3,), (0.4,))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("digits", None, seed=0)


@pytest.fixture(scope="module")
def trained() -> Trained:
    model = build("digits-cnn", (1, 8, 8), Classify(10), seed=3)
    layout = trace(model, torch.zeros(1, 1, 8, 8))
    keep = {"conv1": torch.tensor([1, 5, 9]), "fc1": torch.arange(0, 64, 2)}
    mask = {
        "conv2.weight": torch.rand(32, 16, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    }
    values = {name: model.state_dict()[name].clone() for name in layout.tensors}
    support = Support(keep, mask)
    dense, _ = support.scatter(layout, support.gather(layout, values))
    return Trained(
        "digits-cnn", model, layout, support, dense, (1, 8, 8), Classify(10), KEY, INPUTS
    )


def test_reading_gives_the_written_model(trained: Trained, tmp_path: Path) -> None:
    write_trained(tmp_path, trained)
    again = read_trained(tmp_path)
    assert again.data == KEY
    assert again.inputs == INPUTS
    assert {name: kept.tolist() for name, kept in again.support.keep.items()} == {
        name: kept.tolist() for name, kept in trained.support.keep.items()
    }
    for name, value in trained.values.items():
        assert torch.equal(again.values[name], value)
    assert again.support.count(trained.layout) == trained.support.count(trained.layout)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(again.module()(x), trained.module()(x))
    # conv1 has 3 of 16 filters of 3x3 and a bias each.
    assert load_file(tmp_path / "model.safetensors")["conv1.weight"].shape == (3, 1, 3, 3)


def _spoil_about(folder: Path, **changes: object) -> None:
    path = folder / "layout.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 20), "cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "no file"),
        (lambda f: (f / "layout.json").write_text("{"), "cannot be read"),
        (lambda f: _spoil_about(f, format=3), "format 3"),
        (lambda f: _spoil_about(f, keep={"conv1": [99]}), "conv1"),
        (lambda f: _spoil_about(f, keep={"conv1": "all"}), "kept channels"),
        (
            lambda f: _spoil_about(f, task={"kind": "classify", "num_outputs": 11}, inputs=None),
            "fc2.weight",
        ),
        (lambda f: _spoil_about(f, keep={}), "conv1.weight"),
        (lambda f: _spoil_about(f, input_shape=[-1, 8, 8]), "input shape"),
        (lambda f: _spoil_about(f, inputs={"mean": [0]}), "cannot be read"),
        (lambda f: _spoil_about(f, inputs=vars(INPUTS) | {"mean": [0, 0]}), "do not fit"),
        (lambda f: _spoil_about(f, inputs=vars(INPUTS) | {"std": [0]}), "greater than 0"),
        (lambda f: save_file({"x": torch.ones(1)}, f / "mask.safetensors"), "mask of `x`"),
    ],
)
def test_damaged_folders_are_refused(
    trained: Trained, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    write_trained(tmp_path, trained)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        read_trained(tmp_path)


def test_a_folder_does_not_make_us_build_a_far_larger_network(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trained(tmp_path, trained)
    monkeypatch.setattr("fpcli.store.model_folder.build_model", pytest.fail)
    for name in ("torchvision:regnet_y_128gf", "vgg11@8"):
        _spoil_about(tmp_path, model=name, input_shape=[3, 224, 224], inputs=None)
        with pytest.raises(DataError, match="far larger than what the file has"):
            read_trained(tmp_path)


def test_a_stored_name_that_is_code_runs_only_if_the_caller_names_it(
    trained: Trained, tmp_path: Path
) -> None:
    write_trained(tmp_path, trained)
    _spoil_about(tmp_path, model="os:system")
    with pytest.raises(UsageError, match="code of yours"):
        read_trained(tmp_path)


def test_a_folder_without_a_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_trained(tmp_path / "nothing")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="has no trained model") as caught:
        read_trained(tmp_path)
    assert "--resume" in caught.value.hint
