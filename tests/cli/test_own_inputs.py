"""A network that was trained elsewhere, on images from 0 to 1, from its weights to its export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import levels
from PIL import Image

from fpcli.engine.process import settle_process
from fpcli.export.card import Card
from fpcli.report import sensitivity_plots
from fpcli.train import prune_folder

GREYS = (51, 128, 204)
OWN = ("nets:levels", "-w", "own.pt", "--data", "folder:bright")


@pytest.fixture(autouse=True)
def _own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: pytest.MonkeyPatch
) -> Iterator[None]:
    """Lay weights and images where the command is called, and draw nothing."""
    monkeypatch.setattr(prune_folder, "draw_pruning", lambda *arguments: [])
    monkeypatch.setattr(sensitivity_plots, "draw_sensitivity", lambda *arguments: [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.save(levels((1, 4, 4), 3).state_dict(), tmp_path / "own.pt")
    for label, grey in enumerate(GREYS):
        folder = tmp_path / "bright" / str(label)
        folder.mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((4, 4), grey + number, np.uint8)).save(folder / f"{number}.png")
    yield
    settle_process()


@pytest.fixture
def prune(fp: Callable) -> Callable:
    """Call `fp prune` without retraining, and return accuracy before it and the warnings."""

    def call(*words: str) -> tuple[float, list[str]]:
        done = fp("prune", *words, "--ratio", "0.1", "--finetune", "0", "--json", "--force", "-q")
        assert done.status == 0, done.err
        envelope = json.loads(done.out)
        return envelope["data"]["before"]["accuracy"], envelope["warnings"]

    return call


def test_own_weights_are_judged_as_they_were_trained(prune: Callable) -> None:
    """Normalised, the middle grey is 0, below the network's lower bound."""
    accuracy, (warning,) = prune(*OWN)
    assert accuracy == pytest.approx(2 / 3)
    assert "own.pt does not say what its network was trained with" in warning
    assert "`--normalise none`, `unit`" in warning and "values / 255" in warning
    assert prune(*OWN, "--normalise", "auto") == (pytest.approx(2 / 3), [])
    for how in ("unit", "0/1"):
        assert prune(*OWN, "--normalise", how) == (1, [])
    assert prune(*OWN, "--set", "task.normalise=none") == (pytest.approx(1 / 3), [])


def test_the_result_remembers_its_inputs(prune: Callable) -> None:
    prune(*OWN, "--normalise", "unit")
    again = ("out", "--model", "nets:levels", "-o", "two")
    assert prune(*again) == (1, [])
    assert "normalise: unit" in Path("two/recipe.yaml").read_text("utf-8")
    for folder in ("out", "two"):
        inputs = json.loads(Path(folder, "layout.json").read_text("utf-8"))["inputs"]
        assert (inputs["normalised_by"], inputs["mean"], inputs["std"]) == ("unit", [0], [1])
    accuracy, (warning,) = prune(*again, "--normalise", "none")
    assert accuracy == pytest.approx(1 / 3)
    assert "was trained with values / 255, normalised by 0/1 (`unit`)" in warning
    inputs = json.loads(Path("two/layout.json").read_text("utf-8"))["inputs"]
    assert (inputs["normalised_by"], inputs["scale"]) == ("none", 1)


def test_a_sweep_judges_likewise_and_says_so_again(fp: Callable) -> None:
    words = ("--ratios", "0.4", "-q", "--json")
    done = fp("sensitivity", *OWN, *words, "-o", "a.json")
    found = json.loads(done.out)
    assert found["data"]["baseline_accuracy"] == pytest.approx(2 / 3)
    assert len(found["warnings"]) == 1
    done = fp("sensitivity", *OWN, *words, "-o", "b.json", "--normalise", "unit")
    found = json.loads(done.out)
    assert (found["data"]["baseline_accuracy"], found["warnings"]) == (1, [])
    done = fp("sensitivity", *OWN, "--ratios", "0.4", "-o", "c.json", "--normalise", "unit")
    assert "--normalise unit --rates c.json" in done.err


@pytest.mark.processor
@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_file_that_normalises_takes_bytes(fp: Callable, prune: Callable, format: str) -> None:
    prune(*OWN, "--normalise", "unit")
    words = ("out", "--model", "nets:levels", "--to", f"{format},safetensors")
    if format == "onnx":
        pytest.importorskip("onnxscript")
    done = fp("export", *words, "--with-normalise")
    takes = "float32 [batch, 1, 4, 4] of raw values as they are read, 0 to 255"
    assert (done.status, f"model.{format} takes {takes}" in done.out) == (0, True), done.err
    assert "model.safetensors takes float32 [batch, 1, 4, 4] of (raw * scale - mean)" in done.out
    raw = torch.tensor(GREYS, dtype=torch.float32).view(3, 1, 1, 1).expand(3, 1, 4, 4).clone()
    path = f"out/export/model.{format}"
    if format == "onnx":
        import onnx
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        logits = torch.from_numpy(session.run(None, {"input": raw.numpy()})[0])
        text = {entry.key: entry.value for entry in onnx.load(path).metadata_props}["fpcli"]
    else:
        extra = {"fpcli": ""}
        logits = torch.export.load(path, extra_files=extra).module()(raw)
        text = extra["fpcli"]
    assert logits.argmax(1).tolist() == [0, 1, 2]
    card = Card.from_json(text)
    assert card.is_raw and card.takes.startswith(takes)
    assert card.inputs is not None and card.inputs.normalised_by == "unit"


def test_a_training_keeps_how_its_inputs_are_made(fp: Callable) -> None:
    words = ("--data", "folder:bright", "--model", "nets:levels", "--normalise", "unit", "-q")
    assert fp("fit", *words, "--epochs", "1", "--name", "one").status == 0
    assert "normalise: unit" in Path("runs/one/recipe.yaml").read_text("utf-8")
    about = json.loads(Path("runs/one/final/layout.json").read_text("utf-8"))
    assert about["inputs"]["normalised_by"] == "unit"
    train = ("train", "--method", "fedavg", "--rounds", "1", "--clients", "2", "-q")
    start = ("--executor", "inline", "--set", "task.start=runs/one")
    assert fp(*train, *words, *start, "--name", "two").status == 0
    done = fp(*train, *words[:4], *start, "--name", "three")
    assert (done.status, "was trained with `task.normalise` `unit`, not `auto`" in done.err) == (
        3,
        True,
    )
    assert "hint: `--normalise unit`" in done.err


def test_a_run_from_before_goes_on(fp: Callable) -> None:
    """Recipe and model of an earlier version lack the key, which means `auto`."""
    words = ("--data", "folder:bright", "--model", "mnist-mlp", "-q")
    train = ("train", "--method", "fedavg", "--clients", "2", "--executor", "inline")
    assert fp(*train, *words, "--rounds", "1", "--name", "old").status == 0
    for path, line in (
        ("runs/old/recipe.yaml", "  normalise: auto\n"),
        ("runs/old/final/layout.json", ',\n  "normalised_by": "auto"'),
    ):
        text = Path(path).read_text("utf-8")
        assert line in text
        Path(path).write_text(text.replace(line, ""), "utf-8")
    done = fp("train", "--resume", "old", "--rounds", "2", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["data"]["rounds"] == 2
    assert fp("prune", "old", "--ratio", "0.5", "--dry-run").status == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("fit --normalise half", 2, "--normalise: `task.normalise`: `half` is none of auto"),
        ("fit --set task.normalise=1/0", 2, "--set task.normalise=1/0: `task.normalise`: `1/0`"),
        ("fit --normalise imagenet", 3, "digits: normalise is `imagenet`, for 3 channels"),
        ("train --normalise 1,2/1,1", 3, "for 2 channels; the data has 1"),
        ("train --data breast-cancer --normalise unit", 3, "this is a table"),
        ("sensitivity nets:levels -w own.pt --data digits --normalise no", 3, "`no` is none of"),
        ("export --with-normalise", 2, "safetensors hold weights, and no program"),
    ],
)
def test_wrong_words(fp: Callable, words: str, status: int, message: str) -> None:
    done = fp(*words.split())
    assert (done.status, message in done.err, done.out) == (status, True, ""), done.err
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_recipe_file_is_named_with_its_line(fp: Callable) -> None:
    Path("r.yaml").write_text("recipe: 1\nfit: {epochs: 1}\ntask:\n  normalise: half\n")
    done = fp("fit", "-c", "r.yaml")
    assert (done.status, "r.yaml:4: `task.normalise`: `half` is none of" in done.err) == (3, True)
