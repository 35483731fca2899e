from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

pytestmark = pytest.mark.usefixtures("no_figures")

TINY = ("--clients", "2", "--executor", "inline", "--rounds", "2")
DATA_FIELDS = [
    "run", "method", "rounds", "clients", "seed", "accuracy", "best_accuracy", "loss",
    "down_bytes", "up_bytes", "clock_s", "real_s", "params", "macs", "state_sha256", "directions",
]  # fmt: skip
"""What the contract promises for `fp train --json`."""
OF_CLIENTS = ["clients_accuracy", "local_accuracy"]
"""What is there too where the clients' models are judged."""


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_clients_without_samples(fp: Callable) -> None:
    """Twenty clients with two shards each, of whom one holds withheld classes only."""
    done = fp("train", "--method", "prunefl", "--clients", "20", "--partition", "shards",
              "--set", "task.withhold=[1,4,5]", "--set", "method.ip_passes=2", "--rounds", "1",
              "--executor", "inline")  # fmt: skip
    assert done.status == 0
    warning, header = done.err.splitlines()[:2]
    assert warning.endswith("no round changes a mask; set rounds above 5")
    assert "20 clients (1 without training samples), 19 per round" in header


def test_a_first_answer_that_comes_too_late(fp: Callable) -> None:
    words = ("train", "--method", "prunefl", *TINY, "--set", "method.ip_passes=2",
             "--set", "method.interval=1")  # fmt: skip
    done = fp(*words, "--deadline", "1ms", "--set", "round_retries=0")
    assert done.status == 4
    error, _, hint = done.err.splitlines()
    assert error.startswith("error[F420]: before round 1: 0 usable replies, 1 needed: client 0: ")
    assert "`prune`: " in error and error.endswith("the deadline is 0.001 s")
    assert hint == "hint: raise fleet.deadline_s"


def test_a_short_run(fp: Callable, tmp_path: Path, no_figures: pytest.MonkeyPatch) -> None:
    no_figures.undo()
    done = fp("train", "--method", "fedmp", *TINY, "--checkpoint-every", "1")
    folder = tmp_path / "runs" / "fedmp-digits-digits-cnn-7a7906-s0"
    assert done.status == 0
    assert "\x1b" not in done.out + done.err
    expected = [
        "recipe.yaml",
        "command.txt",
        "environment.json",
        "events.jsonl",
        "log.txt",
        "SHA256SUMS",
        "curves.png",
        "curves.svg",
        "ratios.png",
        "ratios.svg",
        "checkpoints/round-00002/state.safetensors",
        "final/model.safetensors",
        "final/layout.json",
    ]
    assert set(expected) <= files(folder)
    header, first, second, _, hint = done.err.splitlines()
    assert header.startswith("fedmp · digits · digits-cnn (38,282 params) · 2 clients, 2 per round")
    assert header.endswith("seed 0 · inline (as asked) · runs/fedmp-digits-digits-cnn-7a7906-s0")
    assert first.startswith("round 1/2 · test acc ")
    assert " · ratio 0." in second
    assert hint == (
        "hint: train on with `fp train --resume runs/fedmp-digits-digits-cnn-7a7906-s0 --rounds 4`"
    )
    for name in ("test accuracy, last", "at best validation", "per client", "pruning ratios"):
        assert name in done.out
    log = (folder / "log.txt").read_text("utf-8")
    assert header in log and second in log and done.out.rstrip() in log


def test_the_contract_of_json(fp: Callable) -> None:
    done = fp("train", *TINY, "--json", "--name", "a")
    envelope = json.loads(done.out)
    assert list(envelope) == ["format", "command", "status", "data", "warnings", "error"]
    assert (envelope["status"], envelope["error"], envelope["warnings"]) == ("ok", None, [])
    assert list(envelope["data"]) == DATA_FIELDS
    assert envelope["data"]["run"] == "runs/a"
    assert "hint" not in done.err
    again = json.loads(fp("train", *TINY, "--json", "--name", "b", "-q").out)["data"]
    assert again["state_sha256"] == envelope["data"]["state_sha256"]


def test_accuracies_of_the_clients(fp: Callable, tmp_path: Path) -> None:
    words = (*TINY, "--partition", "shards", "--lr", "0.05", "--set", "eval_clients=true")
    envelope = json.loads(fp("train", *words, "--json", "--name", "a").out)
    assert list(envelope["data"]) == [*DATA_FIELDS[:-1], *OF_CLIENTS, DATA_FIELDS[-1]]
    told, local = (envelope["data"][name] for name in OF_CLIENTS)
    event = json.loads((tmp_path / "runs/a/events.jsonl").read_text().splitlines()[-1])
    first, second = event["personal"]["local_accuracy"].values()
    assert local == {
        "mean": pytest.approx((first + second) / 2),
        "std": pytest.approx(abs(first - second) / 2),
        "min": min(first, second),
    }
    log = (tmp_path / "runs/a/log.txt").read_text("utf-8")
    for name, of in (("accuracy per client", told), ("local_accuracy per client", local)):
        row = next(line for line in log.splitlines() if line.startswith(name))
        assert row.removeprefix(name).strip() == (
            f"{of['mean']:.2%} mean, {of['std']:.2%} deviation, {of['min']:.2%} lowest"
        )


def test_lines_of_json(fp: Callable) -> None:
    lines = [json.loads(line) for line in fp("train", *TINY, "--json-lines").out.splitlines()]
    assert [line.get("round") for line in lines] == [1, 2, None]
    assert lines[-1]["status"] == "ok"
    assert fp("train", "--json", "--json-lines").status == 2


def test_a_taken_name(fp: Callable, tmp_path: Path) -> None:
    assert fp("train", *TINY, "-q").status == 0
    done = fp("train", *TINY)
    assert done.status == 2
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"run name `{folder.name}` is taken" in done.err
    assert f"it has the same recipe: go on with `fp train --resume runs/{folder.name}`" in done.err
    done = fp("train", "--name", folder.name, "-q")
    assert (done.status, f"take `--name {folder.name}-2`" in done.err) == (2, True)
    assert fp("train", *TINY, "--name", "auto", "-q").status == 0
    assert {path.name for path in Path("runs").iterdir()} == {folder.name, f"{folder.name}-2"}
    before = files(tmp_path)
    done = fp("train", *TINY, "--force", "-q")
    assert done.status == 0
    assert files(tmp_path) == before
    assert done.err.strip().startswith("hint: ")


def test_an_earlier_run_is_not_replaced_by_one_that_cannot_begin(fp: Callable) -> None:
    assert fp("train", *TINY, "-q").status == 0
    (run,) = Path("runs").iterdir()
    before = (run / "events.jsonl").read_bytes()
    options = ("--method", "pace", "--set", "method.reference=nope")
    done = fp("train", *TINY, *options, "--name", run.name, "--force", "-q")
    assert done.status == 3 and "nope" in done.err
    assert (run / "events.jsonl").read_bytes() == before
    assert (run / "final" / "model.safetensors").exists()


def test_a_target(fp: Callable) -> None:
    done = fp("train", *TINY, "--lr", "0.02", "--target", "acc=1", "--json")
    envelope = json.loads(done.out)
    assert (done.status, envelope["status"], envelope["error"]["code"]) == (8, "findings", "F801")
    assert envelope["data"]["rounds"] == 2
    words = ("train", "--resume", envelope["data"]["run"], "--rounds", "9", "--target", "acc=0.8")
    done = fp(*words)
    assert done.status == 0
    assert "accuracy 80.00% reached in round" in done.err


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["--method", "fedmpp"], 2, "unknown method `fedmpp`", "did you mean `fedmp`?"),
        (["--model", "lenet"], 2, "unknown model `lenet`", "did you mean `lenet5`?"),
        (["--data", "digit"], 2, "unknown data set `digit`", "did you mean `digits`?"),
        (["--fleet", "two-sped"], 2, "unknown fleet `two-sped`", "`two-speed`"),
        (["--codec", "sparce"], 2, "unknown codec `sparce`", "did you mean `sparse`?"),
        (["--partition", "dirichle"], 2, "--partition: ", "did you mean `dirichlet`?"),
        (["--executor", "pol"], 2, "--executor: ", "did you mean `pool`?"),
        (["--lr", "0,5"], 2, "--lr: `local.lr` must be a number", "write `0.5`"),
        (["--rounds", "0"], 2, "--rounds: `rounds` must be >= 1, got 0", ""),
        (["--workers", "two"], 2, "--workers: ", ""),
        (["--set", "local.batchsize=4"], 2, "`local.batchsize`", "`local.batch_size`"),
        (["--set", "method.ratio_maxx=1", "--method", "fedmp"], 2, "ratio_maxx", "ratio_max"),
        (["--set", "rounds"], 2, "not of the form KEY=VALUE", "--set local.momentum=0.9"),
        (["--deadline", "60"], 2, "`60` has no unit; write `60 s` or", "--deadline 60s"),
        (["--target", "acc=98"], 2, "must be a metric and a number, got acc=98", "98%"),
        (["--set", "task.server_share=0.1x"], 2, "got 0.1x", "write `0.1` or `10%`"),
        (["--deadline", "5 parsec"], 2, "--deadline: ", "--deadline 60s"),
        (["--client-timeout", "-3s"], 2, "--client-timeout: ", "--client-timeout 60s"),
        (["--target", "loss=1"], 2, "unknown metric `loss`", "known: accuracy, mae"),
        (["--target", "98"], 2, "--target: ", ""),
        (["-c", "fedmp.yml"], 2, "no recipe `fedmp.yml`", ""),
        (["--resume", "runs/none"], 6, "runs/none does not exist", ""),
        (["--resume", "x", "--name", "y"], 2, "--resume and --name exclude each other", ""),
        (["--data", "mnist"], 3, "needs a folder", "--data-dir"),
        (["--data", "npz:none.npz", "--model", "lenet5"], 3, "none.npz", ""),
        (["--model", "no_such:net"], 2, "cannot import `no_such`", "from the current folder"),
        (["--device", "cuda:99"], 5, "device `cuda:99` cannot be used", "fp doctor"),
        (["--name", "../x"], 2, "cannot be the name of a run", ""),
    ],
)
def test_mistakes(
    fp: Callable, tmp_path: Path, words: list[str], status: int, message: str, hint: str
) -> None:
    done = fp("train", *words)
    assert (done.status, done.out) == (status, "")
    lines = done.err.splitlines()
    assert lines[0].startswith("error[F")
    assert message in lines[0]
    assert len(lines) in (1, 3)
    assert hint in lines[-1]
    assert "Traceback" not in done.err
    error = json.loads(fp("train", *words, "--json").out)["error"]
    assert message in error["message"]
    assert not any(path for path in files(tmp_path) if path != "runs")


def test_a_mistake_in_a_recipe(fp: Callable, tmp_path: Path) -> None:
    recipe = tmp_path / "my recipe ü.yaml"
    recipe.write_text("rounds: 2\nlocal:\n  batchsize: 4\n", "utf-8")
    done = fp("train", "-c", recipe)
    assert done.status == 3
    assert done.err.startswith(f"error[F301]: {recipe}:3: unknown key `local.batchsize`")
    assert "did you mean `local.batch_size`?" in done.err


def test_a_dry_run_writes_nothing(fp: Callable, tmp_path: Path) -> None:
    done = fp("train", "--method", "fedmp", "--clients", "3", "--dry-run")
    assert done.status == 0
    assert done.out.startswith("recipe: 1\n")
    assert "ratio_max: 0.8" in done.out
    data = json.loads(fp("train", "--method", "fedmp", "--clients", "3", "--dry-run", "--json").out)
    plan = data["data"]["plan"]
    assert data["data"]["recipe"]["task.clients"] == 3
    assert [item["client"] for item in plan["clients"]] == [0, 1, 2]
    assert all(0 < item["params"] <= plan["model"]["params"] for item in plan["clients"])
    assert all(0 <= item["notes"]["ratio"] < 1 for item in plan["clients"])
    assert [item["device"] for item in plan["clients"]] == ["fast", "slow", "fast"]
    assert "\ndevices of round 1: 2 fast, 1 slow\n" in done.out
    assert files(tmp_path) == set()


def test_what_can_never_happen_is_told_before_the_first_round(fp: Callable, tmp_path: Path) -> None:
    words = ("train", "--method", "prunefl", "--clients", "2", "--rounds", "1")
    more = ("--set", "method.ip_passes=0", "--set", "local.lr_drop_at=[4,9]", "--no-progress")
    done = fp(*words, *more)
    assert done.status == 0
    first, second, third = done.err.splitlines()[:3]
    assert first.startswith("warning: F302: `method.interval` is 5")
    assert "`local.lr_drop_at` has 4, 9" in second
    assert third.startswith("prunefl")
    planned = fp(*words, *more, "--dry-run")
    assert [line for line in planned.err.splitlines() if "F302" in line] == [first, second]
    warnings = json.loads(fp(*words, *more, "--dry-run", "--json").out)["warnings"]
    assert warnings == [line.removeprefix("warning: ") for line in (first, second)]
    enough = fp(*words[:-1], "10", *more, "--dry-run")
    assert "F302" not in enough.err


def test_code_of_the_current_folder(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def small(shape, classes):\n"
        "    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(144, classes))\n"
    )
    done = fp("train", *TINY, "--model", "own_nets:small", "--name", "own", "-q")
    assert done.status == 0
    assert "`fp train --resume runs/own --model own_nets:small --rounds 4`" in done.err
    assert fp("train", "--resume", "own").status == 3
    done = fp("train", "--resume", "own", "--model", "own_nets:small", "--rounds", "3", "--json")
    assert json.loads(done.out)["data"]["rounds"] == 3


def test_a_score_of_the_current_folder(fp: Callable, tmp_path: Path) -> None:
    (tmp_path / "own_scores.py").write_text("from fpcli.scores.magnitude import l1")
    score = ("--set", "method.score=own_scores:l1")
    done = fp("train", *TINY, "--method", "uniform", *score, "--name", "scored", "-q")
    assert "`fp train --resume runs/scored --set method.score=own_scores:l1 --rounds 4`" in done.err
    done = fp("resume", "scored", "--rounds", "3")
    assert done.status == 3 and "`--set method.score=own_scores:l1`" in done.err
    assert fp("resume", "scored", "--rounds", "3", *score).status == 0


def test_an_unexpected_error_keeps_its_traceback_in_the_run(
    fp: Callable, tmp_path: Path, no_figures: pytest.MonkeyPatch
) -> None:
    fail = Mock(side_effect=ZeroDivisionError("by zero"))
    no_figures.setattr("fpcli.train.federated_run.draw_run", fail)
    done = fp("train", *TINY, "--name", "odd", "-q")
    assert (done.status, done.out) == (1, "")
    assert "runs/odd/log.txt" in done.err
    assert "Traceback" in (tmp_path / "runs/odd/log.txt").read_text("utf-8")


def wait_for_rounds(process: subprocess.Popen[str], events: Path, more_than: int) -> None:
    for _ in range(600):
        if events.exists() and events.read_bytes().count(b"\n") > more_than:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("no round in 30 s")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_leaves_a_checkpoint_to_resume_from(
    fp: Callable, spawn: Callable, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """A stopped and resumed run, whose stdout nobody reads, ends with the bits of a whole one."""
    events = tmp_path / "runs/a/events.jsonl"
    words = ("train", "--clients", "2", "--executor", "inline")
    reader, writer = os.pipe()
    process = spawn(*words, "--name", "a", "--rounds", "9999", "--json-lines", stdout=writer)
    os.close(writer)
    os.close(reader)
    wait_for_rounds(process, events, 0)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "stopping after this round (again to stop now)" in err
    assert "Traceback" not in err and "Exception" not in err
    done = events.read_bytes().count(b"\n")
    log = (tmp_path / "runs/a/log.txt").read_text("utf-8")
    assert f"stopped by {number.name}; checkpoint round-{done:05d} is kept" in log
    assert "hint: continue with `fp resume runs/a`" in log

    rounds = str(done + 1)
    resumed = json.loads(fp("resume", "a", "--rounds", rounds, "--json").out)["data"]
    whole = json.loads(fp(*words, "--name", "b", "--rounds", rounds, "--json", "-q").out)["data"]
    assert resumed["rounds"] == done + 1
    assert resumed["state_sha256"] == whole["state_sha256"]


@pytest.mark.slow
def test_the_second_ctrl_c_stops_at_once(fp: Callable, spawn: Callable, tmp_path: Path) -> None:
    events = tmp_path / "runs/a/events.jsonl"
    # A round of many epochs, so that the second signal comes while it is played.
    process = spawn("train", *TINY, "--name", "a", "--rounds", "9", "--epochs", "30", "--json")
    wait_for_rounds(process, events, 0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "F130"
    assert fp("resume", "a", "--rounds", "3", "-q").status == 0


def test_tracking_is_checked_before_anything_is_written(
    fp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpcli.train.trackers.find_spec", lambda name: None)
    done = fp("train", *TINY, "--track", "tensorboard")
    assert done.status == 5
    assert done.err.splitlines()[-1] == "hint: `pip install 'fpcli[tensorboard]'`"
    assert fp("train", *TINY, "--track", "tensorbord").status == 2
    assert not (tmp_path / "runs").exists()
