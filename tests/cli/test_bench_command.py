"""`fp bench`: what it takes, what it prints, what it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fpcli import load
from fpcli.engine.trained import DataKey
from fpcli.export import bench as benching
from fpcli.export import crossover, peak_memory
from fpcli.recipe.fleet_file import read_fleet
from fpcli.store.model_folder import build_untrained, write_trained
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify

Fp = Callable[..., Any]
QUICK = ("--batch", "1,2", "--seconds", 0)


@pytest.fixture
def pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a masked network; the memory of no process is measured."""
    monkeypatch.setattr(
        peak_memory, "measure_peak", lambda *a: {"peak_bytes": 3_000_000, "own_bytes": 1000}
    )
    trained = build_untrained("digits-cnn", (1, 8, 8), Classify(10), data=DataKey("digits", 0.1, 0))
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(trained.values["fc1.weight"].shape, generator=generator) < 0.1
    folder = tmp_path / "pruned"
    folder.mkdir()
    write_trained(folder, trained.cut(Support(mask={"fc1.weight": mask})))
    return folder


def test_the_schema(fp: Fp, pruned: Path) -> None:
    assert fp("export", pruned, "--to", "safetensors,pt2").status == 0
    files = [pruned / "export" / f"model.{ending}" for ending in ("safetensors", "pt2")]
    done = fp("bench", pruned, *files, *QUICK, "--json")
    assert done.status == 0
    envelope = json.loads(done.out)
    data = envelope["data"]
    assert (envelope["command"], data["batch"], data["threads"]) == ("bench", [1, 2], [1])
    whole, file, program, *sparse = data["models"]
    assert [model["kind"] for model in data["models"]] == [
        "folder", "safetensors", "pt2", "folder", "safetensors",
    ]  # fmt: skip
    for model in data["models"]:
        assert [item["batch"] for item in model["forward"]] == [1, 2]
        for item in model["forward"]:
            assert 0 < item["median_s"] <= item["p90_s"]
            assert item["runs"] == 5
    assert [item["ratio"] for item in whole["forward"]] == [1.0, 1.0]
    first, other = (model["forward"][1]["median_s"] for model in (whole, program))
    assert program["forward"][1]["ratio"] == pytest.approx(other / first)
    assert [item["batch"] for item in whole["training_step"]] == [2], "one sample cannot train"
    assert program["training_step"] == program["layers"] == []
    names = [layer["name"] for layer in file["layers"]]
    assert {"conv1", "conv2", "fc1", "fc2"} <= set(names)
    assert file["bytes"] == files[0].stat().st_size
    assert whole["memory"] == {"peak_bytes": 3_000_000, "own_bytes": 1000}
    for model in sparse:
        assert model["memory"] is None
        (layer,) = model["sparse"][0]["layers"]
        assert layer["name"] == "fc1.weight"
        assert layer["is_sparse"] == (layer["sparse_s"] < layer["dense_s"])


def test_tables_picture_and_profile(fp: Fp, pruned: Path) -> None:
    words = (pruned, *QUICK, "--save-profile", "here.yaml", "-o", "bars.png")
    done = fp("bench", *words)
    assert done.status == 0
    assert "ratio to first" in done.out and "fc1.weight" in done.out
    assert "wrote bars.png, bars.svg, here.yaml" in done.out
    assert "layer by layer" in done.err
    assert Path("bars.png").read_bytes()[:4] == b"\x89PNG" and Path("bars.svg").exists()
    (item,) = read_fleet(Path("here.yaml"))
    assert item["step"]["batch_size"] == 2
    smoke = ("train", "-c", "smoke/tiny", "--method", "prunefl", "--set", "method.ip_passes=8",
             "--fleet", "here.yaml", "--executor", "inline", "--rounds", 1, "-q")  # fmt: skip
    train = fp(*smoke, "--model", "digits-cnn", "--json")
    assert train.status == 0
    other = fp(*smoke, "--model", "nets:tiny")
    assert other.status == 3
    assert "the measured device says nothing about `stem.weight`" in other.err
    before = Path("here.yaml").read_text()
    again = fp("bench", *words)
    assert again.status == 2 and "bars.png exists" in again.err
    assert Path("here.yaml").read_text() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to time"),
        (("nowhere",), "nowhere does not exist"),
        (("x.txt",), "x.txt cannot be timed"),
        (("pruned", "--batch", "0"), "`0` is no list of whole numbers"),
        (("pruned", "--threads", "1,x"), "`1,x` is no list of whole numbers"),
        (("pruned", "-o", "bars.jpg"), "ends in .png"),
        (("pruned", "--crossover"), "--crossover is about single layers"),
    ],
)
def test_wrong_words(fp: Fp, pruned: Path, words: tuple[str, ...], message: str) -> None:
    Path("x.txt").write_text("")
    done = fp("bench", *words)
    assert done.status == 2
    assert message in done.err
    assert done.out == ""


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt2", "model.onnx"])
def test_damaged_files(fp: Fp, pruned: Path, name: str) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    Path(name).write_bytes(b"PK\x03\x04 nothing of the kind" * 9)
    done = fp("bench", name)
    assert done.status == 3, done.err
    assert name in done.err


def test_onnx_without_its_runtime(fp: Fp, pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    Path("model.onnx").write_bytes(b"x")
    done = fp("bench", "model.onnx")
    assert done.status == 5
    assert "pip install 'fpcli[onnx]'" in done.err


def test_onnx_is_timed(fp: Fp, pruned: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert fp("export", pruned, "--to", "onnx").status == 0
    done = fp("bench", pruned / "export" / "model.onnx", *QUICK, "--json")
    assert done.status == 0
    (model,) = json.loads(done.out)["data"]["models"]
    assert (model["kind"], len(model["forward"])) == ("onnx", 2)


def test_the_crossover_table(fp: Fp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossover, "SHAPES", ((8, 4, 0, 1), (2, 3, 3, 4)))
    done = fp("bench", "--crossover", "--batch", 2, "--json")
    rows = json.loads(done.out)["data"]["rows"]
    assert [(row["layer"], row["use"]) for row in rows] == [
        ("fc 8->4", "evaluate"), ("fc 8->4", "train"),
        ("conv 2->3 3x3 @4", "evaluate"), ("conv 2->3 3x3 @4", "train"),
    ]  # fmt: skip
    assert [item["sparsity"] for item in rows[0]["ratios"]] == list(crossover.SPARSITIES)


def test_sparse_kernels_in_a_loaded_file(fp: Fp, pruned: Path) -> None:
    assert fp("export", pruned).status == 0
    path = pruned / "export" / "model.safetensors"
    dense, sparse = load(path), load(path, kernels="always", batch_size=3)
    assert [choice.name for choice in sparse.kernels] == ["fc1.weight"]  # type: ignore[union-attr]
    assert type(sparse.fc1).__name__ == "SparseLinear"
    assert dense.kernels == []
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), dense(x), rtol=1e-5, atol=1e-6)
    assert len(load(path, kernels="auto").kernels) == 1  # type: ignore[arg-type]


def test_layers_by_an_injected_clock() -> None:
    ticks = iter(float(n) for n in range(10_000))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.ReLU()))
    found = benching.layer_times(model, torch.ones(1, 2), 0.0, least=2, clock=lambda: next(ticks))
    assert found == {"0": ("Linear", 1.0), "1.0": ("ReLU", 1.0)}
    assert not model[0]._forward_hooks


@pytest.mark.slow
def test_memory_of_a_process(tmp_path: Path) -> None:
    trained = build_untrained("digits-cnn", (1, 8, 8), Classify(10), data=DataKey("digits", 0.1, 0))
    write_trained(tmp_path, trained)
    found = peak_memory.measure_peak(tmp_path, 4)
    assert found is not None
    assert 0 < found["own_bytes"] < found["peak_bytes"]
    assert peak_memory.measure_peak(tmp_path / "nowhere", 4) is None
