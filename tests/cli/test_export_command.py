from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from driver import begin, digits_file
from exports import narrow

import fpcli
from fpcli.cli.export_command import warn_of_int8
from fpcli.export.write import Written
from fpcli.store.model_folder import write_trained
from fpcli.train import federated_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two rounds, whose network is code."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated_run, "draw_run", lambda history, folder: [])
        begin(runs, "toy", "fedmp", task__data=digits_file(runs), rounds=2)
    return runs / "toy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a pruned model."""
    (tmp_path / "out").mkdir()
    write_trained(tmp_path / "out", narrow("digits-cnn"))
    return tmp_path / "out"


@pytest.mark.processor
def test_a_pruned_model_leaves_in_all_formats(fp: Callable, folder: Path) -> None:
    pytest.importorskip("onnxscript")
    done = fp("export", folder, "--to", "safetensors,pt2,onnx")
    told = "writing model.safetensors\nwriting model.pt2\nwriting model.onnx\n"
    assert (done.status, done.err) == (0, told)
    for word in ("model.safetensors", "outputs equal bit for bit", "onnxruntime", "equal classes"):
        assert word in done.out
    names = ["model.onnx", "model.pt2", "model.safetensors"]
    assert sorted(path.name for path in (folder / "export").iterdir()) == names
    x = torch.randn(3, 1, 8, 8)
    model = fpcli.load(folder / "export/model.safetensors")
    assert torch.equal(model(x), narrow("digits-cnn").module()(x))


def test_clients_of_a_run_as_json(fp: Callable, run: Path, tmp_path: Path) -> None:
    done = fp(
        "export", run, "--round", "1", "--client", "0,3", "--model", "nets:tiny", "--json", "-o",
        tmp_path / "a", "--dtype", "float16", "--ratio", "50%",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    envelope = json.loads(done.out)
    assert (envelope["command"], envelope["status"]) == ("export", "ok")
    files = envelope["data"]["files"]
    assert [Path(file["path"]).name for file in files] == [
        "client000-round00001-ratio0.5.safetensors", "client003-round00001-ratio0.5.safetensors",
    ]  # fmt: skip
    for file in files:
        assert file["format"] == "safetensors"
        assert file["bytes"] == Path(file["path"]).stat().st_size
        assert 0 < file["max_weight_error"] < 1e-3
        source = fpcli.load(file["path"], code="nets:tiny").card.source
        assert (source["run"], source["round"], source["ratio"]) == ("toy", 1, 0.5)


def test_what_is_not_known_is_warned_of(fp: Callable, tmp_path: Path) -> None:
    write_trained(tmp_path, narrow("tabular-mlp", (30,)))
    done = fp("export", tmp_path)
    assert done.status == 0
    assert "\nwarning: class names and normalisation are unknown" in done.err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("--to onx", 2, "did you mean `onnx`"),
        ("--to safetensors,", 2, "unknown ``"),
        ("--dtype float8", 2, "unknown `float8`"),
        ("--dtype int8 --to safetensors,pt2", 2, "for safetensors alone"),
        ("--opset 18", 2, "--opset is for onnx"),
        ("--quantise int8", 2, "--quantise is for onnx"),
        ("--to onnx --quantise int4", 2, "unknown `int4`"),
        ("--client 1 --all-clients", 2, "exclude each other"),
        ("--client x", 2, "no list of numbers"),
        ("--client 9", 2, "no client 9"),
        ("--round 7", 2, "there is: 1, 2"),
        ("--ratio 1.5", 2, "--ratio: `ratio` must be <= 1"),
        ("--ratio 50", 2, "write `0.5` or `50%`"),
        pytest.param(
            "--atol 1e-30 --to pt2,safetensors --round 1", 0, "", marks=pytest.mark.processor
        ),
    ],
)
def test_wrong_words(fp: Callable, run: Path, words: str, status: int, message: str) -> None:
    done = fp("export", run, "--model", "nets:tiny", *words.split())
    assert done.status == status
    if status:
        assert done.out == ""
        assert message in done.err
        assert "Traceback" not in done.err


def test_code_must_be_named(fp: Callable, run: Path) -> None:
    for words, status in (((), 2), (("--client", "1"), 3)):
        done = fp("export", run, *words)
        assert (done.status, done.out) == (status, "")
        assert "--model nets:tiny" in done.err


def test_wrong_folders(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no trained model" in fp("export", "empty").err
    assert "is a model, not a folder" in fp("export", "lenet5").err
    assert "neither a folder nor a model" in fp("export", "nothing").err
    assert "no finished run" in fp("export").err


def test_a_missing_extra_is_told_before_any_work(
    fp: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = fp("export", folder, "--to", "safetensors,onnx")
    assert (done.status, done.out) == (5, "")
    assert "pip install 'fpcli[onnx]'" in done.err
    assert not (folder / "export").exists()


def test_a_failed_check_is_a_finding(fp: Callable, folder: Path) -> None:
    pytest.importorskip("onnxscript")
    done = fp("export", folder, "--to", "onnx", "--atol", "0", "--json")
    assert done.status == 8
    assert json.loads(done.out)["status"] == "findings"
    assert not (folder / "export").exists()


def test_eight_bits_are_judged_on_the_test_data(fp: Callable, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    words = ("--model", "nets:tiny", "--to", "onnx", "--quantise", "int8", "-o", tmp_path / "a")
    done = fp("export", run, *words, "--json")
    assert done.status == 0
    (file,) = json.loads(done.out)["data"]["files"]
    assert (Path(file["path"]).name, file["calibrated_on"]) == ("model-int8.onnx", 256)
    assert abs(file["accuracy"]["before"] - file["accuracy"]["after"]) < 0.1
    done = fp("export", run, *words, "--force", "--with-normalise")
    assert "model-int8.onnx computes with 8 bits, calibrated on 256 training samples" in done.out
    done = fp("export", run, *words, "--force", "--data", "breast-cancer")
    assert (done.status, done.out) == (3, "")
    assert "data `breast-cancer` has" in done.err


@pytest.mark.parametrize(("after", "num_lines"), [(0.895, 0), (0.88, 1), (0.95, 0)])
def test_more_than_a_point_lost_to_eight_bits_is_warned_of(after: float, num_lines: int) -> None:
    judged = {"metric": "accuracy", "judged": (0.9, after)}
    file = Written("onnx", Path("a.onnx"), 1, "", "", "", 0.1, 32, "classes", **judged)
    plain = Written("onnx", Path("b.onnx"), 1, "", "", "", 0.0, 32, "classes")
    lines = warn_of_int8([file, plain])
    assert len(lines) == num_lines
    assert not lines or "a.onnx: 8 bits change test accuracy by -2.00 points" in lines[0]


def test_the_reader_is_shown_as_it_is(fp: Callable) -> None:
    done = fp("export", "--show-loader")
    assert done.status == 0
    assert "def read_tensors(path" in done.out
    assert "import fpcli" not in done.out
