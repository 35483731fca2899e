from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpcli.train import fit_run

pytestmark = pytest.mark.usefixtures("no_figures")

TINY = ("--epochs", "2")
DATA_FIELDS = [
    "run", "epochs", "seed", "accuracy", "best_accuracy", "loss", "real_s", "params", "macs",
    "state_sha256", "directions",
]  # fmt: skip
"""What the contract promises for `fp fit --json`."""


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_short_training(fp: Callable, tmp_path: Path, no_figures: pytest.MonkeyPatch) -> None:
    no_figures.undo()
    done = fp("fit", *TINY, "--lr", "0.05", "--seed", "3")
    folder = tmp_path / "runs" / "fit-digits-digits-cnn-4a73d5-s3"
    assert done.status == 0
    assert "\x1b" not in done.out + done.err
    assert {
        "recipe.yaml", "command.txt", "environment.json", "events.jsonl", "log.txt", "SHA256SUMS",
        "curves.png", "curves.svg", "checkpoints/round-00002/state.safetensors",
        "final/model.safetensors", "final/layout.json",
    } <= files(folder)  # fmt: skip
    header, first, second, _, hint = done.err.splitlines()
    assert header == (
        "fit · digits · digits-cnn (38,282 params) · 1,295 training samples · seed 3 · 1 thread · "
        "runs/fit-digits-digits-cnn-4a73d5-s3"
    )
    assert first.startswith("epoch 1/2 · test acc ")
    # Eleven steps per epoch, the eleventh at 10/22 of half a cosine: 0.05 * 0.571.
    assert " · lr 0.029 · real " in first and " · loss " in second
    assert hint == "hint: prune it with `fp prune runs/fit-digits-digits-cnn-4a73d5-s3 --ratio 0.5`"
    for text in ("test accuracy, last", "(epoch 2)", "at best validation", "model of the last"):
        assert text in done.out
    log = (folder / "log.txt").read_text("utf-8")
    assert header in log and second in log and done.out.rstrip() in log
    done = fp("fit", *TINY, "--lr", "0.05", "--seed", "3")
    assert done.status == 2 and "is taken" in done.err
    assert "`fp fit --resume runs/fit-digits-digits-cnn-4a73d5-s3`" in done.err


def test_batch_norm_needs_two_samples(fp: Callable) -> None:
    done = fp("fit", "--model", "hetero-cnn", "--set", "fit.batch_size=1", "--epochs", "1")
    assert done.status == 3
    text = (
        "error[F311]: batch norm cannot train on a batch of one sample (batch_size 1, 1295 training"
    )
    assert text in done.err
    assert (
        "hint: set batch_size to 2 or more, or take group norm: a network called NAME-gn"
        in done.err
    )


def test_the_contract_of_json(fp: Callable) -> None:
    done = fp("fit", *TINY, "--json", "--name", "a")
    envelope = json.loads(done.out)
    assert (envelope["command"], envelope["status"], envelope["error"]) == ("fit", "ok", None)
    assert list(envelope["data"]) == DATA_FIELDS
    assert (envelope["data"]["run"], envelope["data"]["epochs"]) == ("runs/a", 2)
    assert "hint" not in done.err
    lines = fp("fit", *TINY, "--json-lines", "--name", "b", "-q").out.splitlines()
    first, second, last = map(json.loads, lines)
    assert [(line["event"], line["round"]) for line in (first, second)] == [
        ("epoch", 1),
        ("epoch", 2),
    ]
    assert last["data"]["accuracy"] == second["test"]["accuracy"]
    assert last["data"]["state_sha256"] == envelope["data"]["state_sha256"]


def test_options_and_recipes_say_the_same(fp: Callable, tmp_path: Path) -> None:
    words = {
        "--data": "digits", "--model": "mnist-cnn", "--augment": "crop", "--epochs": "7",
        "--batch-size": "9", "--lr": "1e-3", "--momentum": "0.5", "--weight-decay": "0",
        "--schedule": "steps", "--seed": "4", "--target": "acc=0.9", "--threads": "3",
        "--checkpoint-every": "5", "--normalise": "0.1/0.3",
        "--set": "fit.drop_at=[0.5, 0.9]",
    }  # fmt: skip
    done = fp("fit", *(word for pair in words.items() for word in pair), "--dry-run", "--json")
    data = json.loads(done.out)["data"]
    assert data["recipe"] == {
        "recipe": 1, "task.data": "digits", "task.model": "mnist-cnn", "task.data_dir": "",
        "task.validation_fraction": 0.1, "task.augment": "crop", "fit.epochs": 7,
        "task.normalise": "0.1/0.3", "task.start": "", "task.head": "kept",
        "task.kind": "auto", "task.loss": "auto", "task.sampled_negatives": 0,
        "fit.optimizer": "sgd", "fit.batch_size": 9,
        "fit.lr": 0.001, "fit.momentum": 0.5, "fit.weight_decay": 0.0,
        "fit.schedule": "steps", "fit.drop_at": [0.5, 0.9], "fit.clip_norm": 0.0, "device": "cpu",
        "threads": 3, "checkpoint_every": 5, "target": {"accuracy": 0.9}, "seed": 4,
    }  # fmt: skip
    assert (data["plan"]["train"], data["plan"]["validation"], data["plan"]["test"]) == (
        1295, 143, 359,
    )  # fmt: skip
    text = fp("fit", "--dry-run").out
    assert text.startswith("recipe: 1\n") and "  augment: none\n" in text
    (tmp_path / "r.yaml").write_text(text[: text.index("\n\n")], "utf-8")
    again = fp("fit", "-c", "r.yaml", "--dry-run")
    assert again.out == text
    assert files(tmp_path) == {"r.yaml"}


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["--momentum", "1"], 2, "--momentum: `fit.momentum` must be < 1, got 1", ""),
        (["--schedule", "cosin"], 2, "--schedule: ", "did you mean `cosine`?"),
        (["--augment", "crop-flop"], 2, "--augment: ", "did you mean `crop-flip`?"),
        (["--epochs", "0"], 3, "`fit.epochs` is 0", "--epochs 1"),
        (["--target", "loss=1"], 2, "unknown metric `loss`", "known: accuracy, mae"),
        (["--set", "fit.lrr=1"], 2, "unknown key `fit.lrr`", "did you mean `fit.lr`?"),
        (["--set", "rounds=1"], 2, "unknown key `rounds`", ""),
        (["--json", "--json-lines"], 2, "exclude each other", "one of them"),
        (["-c", "fedavg/digits"], 2, "fedavg/digits is a recipe of `fp train`", "`fp train -c fe"),
        (["--resume", "x", "-c", "y"], 2, "--resume and --recipe exclude each other", ""),
        (["--device", "cuda:99"], 5, "device `cuda:99` cannot be used", "fp doctor"),
        (["--lr", "1e12"], 7, "not finite after epoch 1", "lower the learning rate"),
    ],
)
def test_mistakes(
    fp: Callable, tmp_path: Path, words: list[str], status: int, message: str, hint: str
) -> None:
    done = fp("fit", *words)
    said = done.out if "--json" in words else done.err
    assert done.status == status
    assert message in said
    assert hint in said
    assert "Traceback" not in said


def test_every_run_is_resumed_by_the_command_that_began_it(fp: Callable, tmp_path: Path) -> None:
    assert fp("fit", *TINY, "--name", "a", "--runs", "mine", "-q").status == 0
    words = ("train", "--clients", "2", "--executor", "inline", "--rounds", "1", "--name", "b")
    assert fp(*words, "-q").status == 0
    done = fp("train", "--resume", "mine/a")
    assert done.status == 2
    assert "mine/a is a run of `fp fit`, not of `fp train`" in done.err
    assert "hint: `fp fit --resume mine/a`" in done.err
    done = fp("fit", "--resume", "b")
    assert done.status == 2
    assert "hint: `fp train --resume runs/b`" in done.err
    assert "all 2 epochs are done" in fp("resume", "a", "--runs", "mine").err
    assert json.loads(fp("resume", "a", "--runs=mine", "--json").out)["data"]["epochs"] == 2
    assert json.loads(fp("resume", "b", "--rounds", "2", "--json").out)["data"]["rounds"] == 2
    assert fp("resume", "a").status == 6
    done = fp("fit", "--resume", "mine/a", "--epochs", "3")
    assert done.status == 6
    assert "fit.epochs: 2 -> 3" in done.err
    done = fp("fit", "--resume", "mine/a", "--epochs", "3", "--force", "--json")
    assert json.loads(done.out)["data"]["epochs"] == 3


def test_a_target(fp: Callable) -> None:
    envelope = json.loads(fp("fit", *TINY, "--target", "acc=1", "--json").out)
    assert (envelope["status"], envelope["error"]["code"]) == ("findings", "F801")
    assert "`--epochs 4`" in envelope["error"]["hint"]
    done = fp("fit", *TINY, "--target", "acc=0.01", "--force")
    assert done.status == 0
    assert "accuracy 1.00% reached in epoch 1" in done.err


def test_ctrl_c_leaves_a_checkpoint(fp: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    original = fit_run.evaluate

    def judge(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(fit_run, "evaluate", original)
        return original(*arguments)

    monkeypatch.setattr(fit_run, "evaluate", judge)
    done = fp("fit", "--epochs", "3", "--name", "a")
    assert done.status == 130
    assert "stopping after this epoch (again to stop now)" in done.err
    assert "stopped by SIGINT; checkpoint round-00001 is kept" in done.err
    assert "hint: continue with `fp resume runs/a`" in done.err
    done = fp("resume", "a")
    assert "going on after epoch 1" in done.err
    assert "epoch 3/3" in done.err and "epoch 1/3" not in done.err


def test_code_of_the_current_folder(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "fit_nets.py").write_text(
        "from torch import nn\n"
        "def small(shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(144, classes))\n"
    )
    done = fp("fit", *TINY, "--model", "fit_nets:small", "--name", "own")
    assert done.status == 0
    assert "hint: prune it with `fp prune runs/own --model fit_nets:small --ratio 0.5`" in done.err
    assert fp("resume", "own").status == 3
    assert fp("resume", "own", "--model", "fit_nets:small").status == 0
