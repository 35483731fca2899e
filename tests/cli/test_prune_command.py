from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from prunings import trained_of
from safetensors.torch import load_file, save_file

from fpcli.data.datasets import load_dataset
from fpcli.engine.central import train_centrally
from fpcli.engine.process import settle_process
from fpcli.engine.trained import DataKey
from fpcli.models.build import build
from fpcli.recipe.load import load_recipe as load_recipe
from fpcli.report import sensitivity_plots
from fpcli.settings.learning import FitConfig
from fpcli.settings.recipes import PruneRecipe
from fpcli.store.model_folder import read_trained, write_trained
from fpcli.tasks.classify import Classify
from fpcli.train import prune_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs with one finished run of two epochs, and its plain weights."""
    folder = tmp_path_factory.mktemp("home") / "runs"
    (folder / "base" / "final").mkdir(parents=True)
    digits = load_dataset("digits", None, seed=0)
    model = build("digits-cnn", (1, 8, 8), Classify(10), seed=0)
    list(train_centrally(model, digits, FitConfig(epochs=2, lr=0.05), seed=0))
    write_trained(
        folder / "base" / "final", replace(trained_of(model, (1, 8, 8)), model="digits-cnn")
    )
    (folder / "base" / "recipe.yaml").write_text("recipe: 1\nlocal: {lr: 0.2}\n")
    save_file(model.state_dict(), folder / "w.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, no_figures: pytest.MonkeyPatch) -> Iterator[None]:
    """Draw nothing, and leave torch's threads as they were."""
    monkeypatch.setattr(prune_folder, "draw_pruning", lambda *arguments: [])
    yield
    settle_process()


def data_of(out: str) -> dict:
    return json.loads(out)["data"]


def test_a_run_becomes_a_smaller_model(fp: Callable, runs: Path) -> None:
    done = fp("prune", "base", "--runs", runs, "--ratio", "0.5", "--finetune", "1", "--steps", "2")
    assert done.status == 0
    assert done.out.splitlines()[-1] == "wrote out/model.safetensors, out/layout.json"
    rows = {line.split("  ")[0]: line.split() for line in done.out.splitlines() if line}
    assert rows["conv1"][1:] == ["16", "8", "-50.0%"]
    assert rows["parameters"][1:] == ["38,282", "9,802", "-74.4%"]
    lines = done.err.splitlines()
    assert lines[1].startswith("before")
    assert [line[:16] for line in lines[2:]] == [
        "step 1 · cut · v", "step 1 · epoch 1", "step 2 · cut · v", "step 2 · epoch 1",
    ]  # fmt: skip
    out = Path("out")
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "layout.json", "report.json", "history.jsonl", "recipe.yaml",
        "environment.json", "SHA256SUMS",
    }  # fmt: skip
    assert load_file(out / "model.safetensors")["conv2.weight"].shape == (16, 8, 3, 3)
    recipe = load_recipe(out / "recipe.yaml", cls=PruneRecipe)
    # A tenth of the rate in the run's recipe.
    assert (recipe.task.model, recipe.retrain.lr) == ("digits-cnn", pytest.approx(0.02))
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "epoch" for event in history) == 2


def test_json_says_what_the_contract_names(fp: Callable, runs: Path) -> None:
    done = fp("prune", "--runs", runs, "--macs", "0.4", "--latency", "--json", "-o", "small", "-q")
    envelope = json.loads(done.out)
    data = envelope["data"]
    assert (envelope["command"], envelope["status"], data["method"]) == ("prune", "ok", "filters")
    for stage in ("before", "pruned", "after"):
        assert {"params", "macs", "bytes", "accuracy"} <= data[stage].keys()
    assert data["after"]["macs"] <= 0.4 * 337_536 < data["before"]["macs"]
    assert 0 <= data["after"]["accuracy"] <= 1
    assert data["groups"][0] == {"name": "conv1", "before": 16, "after": data["groups"][0]["after"]}
    assert data["latency_ms"]["before"].keys() == data["latency_ms"]["after"].keys() == {"1", "64"}
    assert data["max_difference"] <= 1e-5
    assert data["out"] == "small"
    slower = [text for text in envelope["warnings"] if text.startswith("not faster here")]
    pairs = data["latency_pairs"]
    assert pairs.keys() == {"1", "64"}
    for pair in pairs.values():
        assert pair["low"] <= pair["ratio"] <= pair["high"]
    assert len(slower) == sum(pair["high"] >= 1 for pair in pairs.values())
    assert data["recalibrated"] is None
    assert read_trained(Path("small")).support.keep.keys() == {"conv1", "conv2", "fc1"}


def test_where_accuracy_breaks_down_the_ways_out_are_named(fp: Callable, runs: Path) -> None:
    words = ("prune", "base", "--runs", runs, "--force", "--ratio")
    done = fp(*words, "0.9")
    assert done.status == 0
    for way in ("`--finetune 5`", "--steps 3", "`fp sensitivity base`"):
        assert way in done.err.splitlines()[-1]
    assert "hint: " not in fp(*words, "0.05").err  # it loses next to nothing
    assert "hint: " not in fp(*words, "0.9", "--finetune", "1", "--lr", "0").err


def test_batch_norm_is_measured_again_where_nothing_is_retrained(
    fp: Callable, tmp_path: Path
) -> None:
    digits = load_dataset("digits", None, seed=0)
    model = build("resnet20@0.25", (1, 8, 8), Classify(10), seed=0)
    list(train_centrally(model, digits, FitConfig(epochs=2, lr=0.05), seed=0))
    (tmp_path / "net").mkdir()
    trained = replace(trained_of(model, (1, 8, 8)), model="resnet20@0.25")
    write_trained(tmp_path / "net", trained)
    words = ("prune", tmp_path / "net", "--ratio", "0.5", "--force", "--json")
    data = data_of(fp(*words).out)
    assert data["recalibrated"]["batches"] == 20
    assert data["recalibrated"]["accuracy"] == data["after"]["accuracy"]
    assert data["recalibrated"]["accuracy"] > data["pruned"]["accuracy"]
    history = [
        json.loads(line)["event"] for line in Path("out/history.jsonl").read_text().splitlines()
    ]
    assert history == ["before", "cut", "recalibrated", "after"]
    for more in (("--recalibrate", "0"), ("--finetune", "1", "--lr", "0")):
        assert data_of(fp(*words, *more).out)["recalibrated"] is None
    data = data_of(fp(*words, "--recalibrate", "3", "--finetune", "1").out)
    assert data["recalibrated"]["batches"] == 3
    table = fp(*words[:-1], "--recalibrate", "3", "--finetune", "1").out
    places = [table.index(f"  before {stage}") for stage in ("recalibration", "retraining")]
    assert places == sorted(places)


def test_named_weights_and_an_earlier_result_can_be_pruned(fp: Callable, runs: Path) -> None:
    weights = runs / "w.safetensors"
    first = fp("prune", "digits-cnn", "-w", weights, "--ratio", "0.25", "--score", "l2", "--json")
    assert data_of(first.out)["after"]["params"] == 120 + 24 * 109 + 48 * 385 + 490
    again = fp("prune", "out", "--rate", "conv*=0.5", "--ignore", "conv1", "-o", "two", "--json")
    widths = [(group["before"], group["after"]) for group in data_of(again.out)["groups"]]
    assert widths == [(12, 12), (24, 12), (48, 48)]


def test_a_plan_needs_neither_weights_nor_data(fp: Callable) -> None:
    done = fp("prune", "resnet56-pad", "--data", "cifar10", "--dry-run", "-c", "filters/resnet56_b")
    assert done.status == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["weights,", "as", "papers", "count", "848,944", "732,016", "-13.8%"] in rows
    assert ["multiply-adds", "of", "these", "125,485,696", "90,907,264", "-27.6%"] in rows
    assert "nothing was written" in done.err
    assert not Path("out").exists()
    plan = data_of(fp("prune", "-c", "filters/resnet56_a", "--dry-run", "--json").out)
    assert plan["paper_count"]["after"] == {"weights": 769_456, "macs": 112_435_840}
    assert plan["after"]["accuracy"] is None
    needy = fp("prune", "lenet5", "--data", "mnist", "--ratio", "0.5", "--score", "taylor",
               "--dry-run")  # fmt: skip
    assert needy.status == 5
    assert "looks at the data" in needy.err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--ratio", "1.0"], 2, "must be < 1"),
        (["--ratio", "0,5"], 2, "write `0.5`"),
        (["--ratio", "50"], 2, "write `0.5` or `50%`"),
        (["--macs", "0.5x"], 2, "write `0.5` or `50%`"),
        (["--rate", "conv1=100%"], 2, "PLACE=RATIO"),
        (["--params", "1.5"], 2, "--params"),
        (["--ratio", "0.5", "--macs", "0.5"], 2, "--ratio and --macs exclude each other"),
        ([], 2, "it is not said how much is to go"),
        (["--ratio", "0.5", "--ignore", "conv3"], 2, "did you mean `conv"),
        (["--ratio", "0.5", "--ignore", "pool"], 2, "`pool` makes no channels"),
        (["--rate", "conv1"], 2, "PLACE=RATIO"),
        (["--rate", "conv1=1"], 2, "PLACE=RATIO"),
        (["--rate", "fc2=0.5"], 2, "none of these channels may leave"),
        (["--rate", "conv1=0"], 8, "nothing was removed"),
        (["--ratio", "0.5", "--score", "tailor"], 2, "did you mean `taylor`?"),
        (["--ratio", "0.5", "--method", "filter"], 2, "did you mean `filters`?"),
        (["--ratio", "0.5", "--set", "method.strategy=best"], 2, "independent, greedy"),
        (["--params", "0.001"], 8, "parameters cannot fall to 0.10%: the closest is 0.15%"),
        (["--ratio", "0.5", "--data", "mnist"], 3, "needs a folder"),
        (["--ratio", "0.5", "-w", "w.pt"], 2, "has weights of its own"),
        (["--ratio", "0.5", "--recalibrate", "2"], 2, "has no batch norm"),
        (["--rates", "none.json"], 3, "none.json"),
        (["--ratio", "0.5", "--device", "cud"], 5, "device `cud`"),
    ],
)
def test_wrong_words_leave_nothing(
    fp: Callable, runs: Path, words: list[str], status: int, message: str
) -> None:
    done = fp("prune", "base", "--runs", runs, *words)
    assert done.status == status
    assert message in done.err
    assert done.out == ""
    assert list(Path().iterdir()) == []


def test_code_of_the_current_folder(
    fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "pruned_nets.py").write_text(
        "from torch import nn\n"
        "def small(shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(144, classes))\n"
    )
    sys.path.insert(0, str(tmp_path))
    model = build("pruned_nets:small", (1, 8, 8), Classify(10), seed=0, allow_code=True)
    trained = replace(trained_of(model, (1, 8, 8)), model="pruned_nets:small")
    Path("bare").mkdir()
    write_trained(Path("bare"), replace(trained, data=DataKey("os:getcwd", 0.1, 0)))
    save_file(model.state_dict(), "w.safetensors")
    del sys.path[0], sys.modules["pruned_nets"]

    words = ("--ratio", "0.5", "--dry-run")
    done = fp("prune", "bare", *words)
    assert done.status == 2 and "add `--model pruned_nets:small`" in done.err
    assert str(tmp_path) not in sys.path  # which a stranger's folder has no say in
    code = ("--model", "pruned_nets:small")
    done = fp("prune", "bare", *words, *code)
    assert done.status == 2 and "add `--data os:getcwd`" in done.err
    assert fp("prune", "bare", *words, *code, "--data", "digits").status == 0
    for source in (("pruned_nets:small",), code, ("--set", "task.model=pruned_nets:small")):
        done = fp("prune", *source, "-w", "w.safetensors", "--data", "digits", *words)
        assert done.status == 0


SHUFFLING = """
import torch
from torch import nn

class Mix(nn.Module):
    def forward(self, x):
        rows, channels, *size = x.shape
        return x.view(rows, 2, channels // 2, *size).transpose(1, 2).reshape(x.shape)

def net(shape, classes):
    return nn.Sequential(nn.Conv2d(shape[0], 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), Mix(),
                         nn.Conv2d(8, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(12, classes))
"""


def test_a_network_that_cannot_be_traced_is_pruned_around_what_stops_it(
    fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mixing_nets.py").write_text(SHUFFLING)
    sys.path.insert(0, str(tmp_path))
    net = build("mixing_nets:net", (1, 8, 8), Classify(10), seed=0, allow_code=True)
    save_file(net.state_dict(), "w.safetensors")
    words = ("mixing_nets:net", "-w", "w.safetensors", "--data", "digits", "--ratio", "0.5")
    done = fp("prune", *words)
    assert (done.status, done.out) == (3, "")
    assert "`fp prune` with `--ignore 3` leaves that alone" in " ".join(done.err.split())
    data = data_of(fp("prune", *words, "--ignore", "3", "--json").out)
    widths = [(group["name"], group["before"], group["after"]) for group in data["groups"]]
    assert widths == [("0", 8, 4), ("4", 12, 6)]
    assert data["max_difference"] <= 1e-5
    # What was not looked into is known from the folder.
    code = ("--model", "mixing_nets:net")
    again = fp("prune", "out", *code, "--ratio", "0.5", "-o", "two", "--json")
    assert [group["after"] for group in data_of(again.out)["groups"]] == [2, 3]
    assert fp("export", "two", *code).status == 0
    layout = json.loads(Path("two/layout.json").read_text())
    assert layout["layout"]["opaque"] == ["3"]
    layout["layout"]["opaque"] = [3]
    Path("two/layout.json").write_text(json.dumps(layout))
    assert "are no list of names" in fp("export", "two", *code, "--force").err


def test_own_weights_of_another_width_are_pruned_and_trained_with_a_new_head(
    fp: Callable, tmp_path: Path
) -> None:
    wide = build("digits-cnn", (1, 8, 8), Classify(100), seed=1).state_dict()
    torch.save({"model": wide, "epoch": 9}, "own.pt")
    words = ("digits-cnn", "-w", "own.pt", "--data", "digits", "--ratio", "0.5")
    done = fp("prune", *words)
    assert (done.status, "`fc2` has 100 outputs, and the data 10 classes" in done.err) == (3, True)
    done = fp("prune", *words, "--head", "new", "--finetune", "1")
    assert done.status == 0
    assert "own.pt: a checkpoint with `model`, `epoch`; the weights are read from" in done.err
    assert "own.pt: `fc2` is new, for 10 classes" in done.err
    assert load_recipe(Path("out/recipe.yaml"), cls=PruneRecipe).task.head == "new"
    done = fp("prune", "out", "--ratio", "0.5", "--head", "new", "-o", "two")
    assert (done.status, "--head new is for weights of a file" in done.err) == (2, True)


def test_own_weights_are_trained_on_whole_and_federated(fp: Callable, tmp_path: Path) -> None:
    whole = build("digits-cnn", (1, 8, 8), Classify(10), seed=1).state_dict()
    torch.save({f"module.{name}": x for name, x in whole.items()}, "own.pt")
    words = ("--data", "digits", "-w", "own.pt", "--lr", "0", "--weight-decay", "0", "-q")
    assert fp("fit", *words, "--epochs", "1", "--name", "one").status == 0
    train = ("train", "--method", "fedavg", "--rounds", "1", "--executor", "inline")
    done = fp(*train, *words[:6], "--name", "two")
    assert (done.status, "`module.` before all names is left out" in done.err) == (0, True)
    for name in ("one", "two"):
        values = load_file(f"runs/{name}/final/model.safetensors")
        torch.testing.assert_close(values["conv1.weight"], whole["conv1.weight"])
        assert "start: own.pt" in Path(f"runs/{name}/recipe.yaml").read_text()
    done = fp("prune", "runs/one", "--ratio", "0.5", "-q")
    assert done.status == 0
    done = fp("fit", "-w", "out", "--data", "digits")
    assert (done.status, "out is pruned, and `fp fit` trains whole models" in done.err) == (3, True)


def test_wrong_sources(fp: Callable, runs: Path, tmp_path: Path) -> None:
    half = ("--ratio", "0.5")
    done = fp("prune", *half)
    assert (done.status, "no finished run in runs/" in done.err) == (2, True)
    done = fp("prune", "digits-cn", *half)
    assert (done.status, "did you mean `digits-cnn`?" in done.err) == (2, True)
    done = fp("prune", "digits-cnn", *half)
    assert (done.status, "no weights for `digits-cnn`" in done.err) == (2, True)
    done = fp("prune", "resnet20", "-w", runs / "w.safetensors", *half)
    assert (done.status, "`conv.weight` is missing" in done.err) == (3, True)
    (tmp_path / "short.pt").write_bytes(b"PK\3\4 cut off")
    done = fp("prune", "digits-cnn", "-w", "short.pt", *half)
    assert (done.status, "short.pt: cannot be read" in done.err) == (3, True)
    done = fp("prune", "nets:reshaped", "--dry-run", *half)
    assert (done.status, "has no channels that may leave" in done.err) == (3, True)


def test_data_of_another_shape_is_refused(fp: Callable, runs: Path) -> None:
    images, labels = np.zeros((8, 9, 9), np.uint8), np.arange(8) % 2
    np.savez("odd.npz", train_images=images, train_labels=labels, test_images=images,
             test_labels=labels)  # fmt: skip
    done = fp("prune", "base", "--runs", runs, "--ratio", "0.5", "--data", "npz:odd.npz")
    assert done.status == 3
    assert (
        "has 1x9x9 images and 2 classes; the model is for 1x8x8 images and 10 classes" in done.err
    )


def test_rates_come_from_a_sensitivity_result(
    fp: Callable, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity_plots, "draw_sensitivity", lambda *arguments: [])
    words = ("--runs", runs, "--ratios", "0.25,0.5", "--samples", "40", "-q")
    assert fp("sensitivity", "base", *words).status == 0
    found = fp("prune", "base", "--runs", runs, "--rates", "sens.json", "--max-drop", "100",
               "--rate", "conv1=0.25", "--json")  # fmt: skip
    after = {group["name"]: group["after"] for group in data_of(found.out)["groups"]}
    assert after == {"conv1": 12, "conv2": 16, "fc1": 32}


def test_nothing_is_replaced_unless_asked(fp: Callable, runs: Path) -> None:
    words = ("prune", "base", "--runs", runs, "--ratio", "0.5", "-q")
    Path("mine").mkdir()
    assert "is no output of `fp prune`" in fp(*words, "-o", "mine", "--force").err
    assert fp(*words).status == 0
    before = Path("out/layout.json").read_bytes()
    done = fp(*words, "--ratio", "0.25")
    assert (done.status, "replace it with `--force`" in done.err) == (2, True)
    assert Path("out/layout.json").read_bytes() == before
    assert fp(*words, "--ratio", "0.25", "--force").status == 0
    assert Path("out/layout.json").read_bytes() != before
    assert {path.name for path in Path().iterdir()} == {"mine", "out"}


def test_an_interruption_leaves_nothing(
    fp: Callable, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prune_folder, "draw_pruning", stop)
    assert fp("prune", "base", "--runs", runs, "--ratio", "0.5").status == 130
    assert list(Path().iterdir()) == []


def test_the_newest_run_is_taken(fp: Callable, runs: Path) -> None:
    old = runs / "base" / "final" / "layout.json"
    (Path("runs") / "other" / "final").mkdir(parents=True)
    for name in ("layout.json", "model.safetensors"):
        (Path("runs/other/final") / name).write_bytes((old.parent / name).read_bytes())
    os.utime("runs/other/final/layout.json", (time.time() + 9, time.time() + 9))
    done = fp("prune", "--ratio", "0.5", "--dry-run")
    assert (done.status, "runs/other" in done.err) == (0, True)
