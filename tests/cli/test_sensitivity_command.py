"""`fp sensitivity`: screens, the contract of --json, going on, and everything it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fpcli.errors import UsageError
from fpcli.models.build import build
from fpcli.report import sensitivity_plots
from fpcli.store import partial
from fpcli.tasks.classify import Classify


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest; one test looks at it."""
    if "pictures" not in request.node.name:
        monkeypatch.setattr(sensitivity_plots, "draw_sensitivity", lambda *_: [])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file(build("digits-cnn", (1, 8, 8), Classify(10), seed=0).state_dict(), path)
    return path


@pytest.fixture
def sense(fp: Callable, weights: Path) -> Callable:
    """Call `fp sensitivity` on a digits-cnn with two ratios, further words behind."""
    return lambda *words: fp(
        "sensitivity",
        "digits-cnn",
        "-w",
        weights,
        "--data",
        "digits",
        "--normalise",
        "auto",
        "--ratios",
        "0.25,0.5",
        *words,
    )


def test_table_file_and_pictures(sense: Callable, tmp_path: Path) -> None:
    done = sense("--score", "l1", "--score", "random", "--max-drop", "100")
    assert done.status == 0
    assert "\x1b" not in done.out + done.err
    lines = done.out.splitlines()
    assert lines[0] == "l1"
    assert lines[1].split()[:4] == ["group", "channels", "25%", "50%"]
    assert lines[1].endswith("largest ratio with a loss of at most 100 points")
    assert lines[3].split()[:2] == ["conv1", "16"] and lines[3].endswith("50%")
    assert "steep (robust) to flat (sensitive)" in done.out
    header, *points, _, hint = done.err.splitlines()
    assert header == "digits-cnn (38,282 params) · digits, 143 validation images · 13 points"
    assert points[0] == "point 2/13 · conv1"
    weights = tmp_path / "w.safetensors"
    assert hint == (
        f"hint: use it: `fp prune digits-cnn -w {weights} --data digits --normalise auto --rates "
        "sens.json --max-drop 100`"
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "w.safetensors", "sens.json", "sens-norms.png", "sens-norms.svg", "sens-accuracy.png",
        "sens-accuracy.svg",
    }  # fmt: skip
    found = json.loads((tmp_path / "sens.json").read_text("utf-8"))
    assert (found["format"], found["kind"], found["images"]) == (1, "sensitivity", 143)


def test_the_contract_of_json(sense: Callable) -> None:
    envelope = json.loads(sense("--json", "--samples", "40", "-o", "a.json").out)
    assert (envelope["command"], envelope["status"], envelope["warnings"]) == (
        "sensitivity", "ok", [],
    )  # fmt: skip
    data = envelope["data"]
    assert {"baseline_accuracy", "ratios", "groups", "seconds"} <= data.keys()
    assert data["ratios"] == [0.25, 0.5]
    assert data["images"] == 40
    for group, width in zip(data["groups"], (16, 32, 64), strict=True):
        assert {"name", "width", "accuracy", "max_ratio"} <= group.keys()
        assert group["width"] == width
        assert len(group["accuracy"]) == len(group["loss"]) == 2
    assert sorted(data["steep_to_flat"]) == ["conv1", "conv2", "fc1"]


def test_test_images_come_with_a_warning(sense: Callable) -> None:
    done = sense("--split", "test")
    assert " test images · " in done.err
    assert "warning: test images judge" in done.err


def test_pruning_reads_the_rates(sense: Callable, fp: Callable, weights: Path) -> None:
    assert sense("--max-drop", "100").status == 0
    words = ("prune", "digits-cnn", "-w", weights, "--data", "digits", "--rates", "sens.json")
    done = fp(*words, "--max-drop", "100", "--json")
    groups = json.loads(done.out)["data"]["groups"]
    assert [(group["before"], group["after"]) for group in groups] == [(16, 8), (32, 16), (64, 32)]


def test_an_interrupted_sweep_goes_on(
    sense: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpcli.cli.sweep_watch import SweepWatcher

    whole = json.loads(sense("--json", "-o", "whole.json").out)["data"]
    update, seen = SweepWatcher.update, []

    def stop(self: SweepWatcher, key: str, tallies: dict) -> None:
        seen.append(key)
        if len(seen) == 4:
            raise KeyboardInterrupt
        update(self, key, tallies)

    monkeypatch.setattr(SweepWatcher, "update", stop)
    done = sense()
    assert done.status == 130
    assert "the same command goes on" in done.err
    out = tmp_path / "sens.json"
    assert partial.locate_partial(out).exists() and not out.exists()
    monkeypatch.setattr(SweepWatcher, "update", update)
    refused = sense("--samples", "9")
    assert (refused.status, "unfinished sweep" in refused.err) == (2, True)
    again = sense()
    assert again.status == 0
    assert "going on after 4 of 7 points" in again.err
    assert not partial.locate_partial(out).exists()
    assert (
        json.loads(out.read_text("utf-8"))["groups"][0]["accuracy"]
        == (whole["groups"][0]["accuracy"])
    )
    assert (sense().status, sense("--force").status) == (2, 0)


def test_the_newest_run_or_a_line_that_says_how_to_make_one(fp: Callable, tmp_path: Path) -> None:
    done = fp("sensitivity")
    assert done.status == 2
    assert (
        "no finished run" in done.err and "hint: make one with `fp fit` or `fp train`" in done.err
    )
    fp("train", "--rounds", "1", "--clients", "2", "--executor", "inline", "--name", "a", "-q")
    done = fp("sensitivity", "--ratios", "0.5")
    assert done.status == 0
    assert "hint: use it: `fp prune --rates sens.json --max-drop 1`" in done.err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--ratios", ""), 2, "no grid and no list"),
        (("--ratios", "0.1:0.9:0"), 2, "no grid and no list"),
        (("--ratios", "0.9:0.1:0.1"), 2, "no grid and no list"),
        (("--ratios", "0.5,1"), 2, "1 is no share from 0 to below 1"),
        (("--ratios", "-0.5"), 2, "is no share"),
        (("--ratios", "nan"), 2, "is no share"),
        (("--score", "tailor"), 2, "unknown score `tailor`"),
        (("--score", "bn-scale"), 3, "needs a network with batch norm"),
        (("--split", "train"), 2, "--split train"),
        (("--samples", "0"), 2, "samples"),
        (("-o", "no/where.json"), 2, "no folder no"),
        (("--model", "digits-cnn", "--data", "npz:no.npz"), 3, "no.npz"),
    ],
)
def test_wrong_words(
    sense: Callable, tmp_path: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    done = sense(*words)
    assert (done.status, message in done.err) == (status, True), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_wrong_models(fp: Callable, weights: Path, tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    save_file(build("nets:reshaped", (1, 8, 8), Classify(10), seed=0, allow_code=True).state_dict(),
              tmp_path / "reshaped.safetensors")  # fmt: skip
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:-100])
    for words, status, message in (
        (("lenet5", "-w", weights, "--data", "digits"), 3, "lenet5"),
        (("fedavg-cnn", "-w", weights, "--data", "digits"), 3, "w.safetensors"),
        (("digits-cnn", "-w", tmp_path / "list.pt", "--data", "digits"), 3, "named tensors"),
        (("digits-cnn", "-w", tmp_path / "cut.safetensors", "--data", "digits"), 3, "cannot be"),
        (("digits-cnn", "-w", "none", "--data", "digits"), 3, "no file none"),
        (("digits-cnn", "-w", weights), 2, "no data given"),
        (("digits-cnn", "--data", "digits"), 2, "no weights given"),
        (("-w", weights, "--data", "digits"), 2, "no model given"),
        (
            ("nets:reshaped", "-w", tmp_path / "reshaped.safetensors", "--data", "digits"),
            3,
            "no channels that may leave",
        ),
        (("nothing",), 2, "neither a folder nor a model"),
    ):
        done = fp("sensitivity", *words)
        assert (done.status, message in done.err) == (status, True), (words, done.err)
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0.1:0.9:0.1", tuple(number / 10 for number in range(1, 10))),
        ("0:0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("0.95", (0.95,)),
        ("10%:30%:10%", (0.1, 0.2, 0.3)),
        ("0.5,0.5,0.2", (0.2, 0.5)),
    ],
)
def test_grids(text: str, want: tuple[float, ...]) -> None:
    from fpcli.cli.sensitivity_command import parse_ratios

    assert parse_ratios(text) == want
    with pytest.raises(UsageError):
        parse_ratios(f"{text}:x")
