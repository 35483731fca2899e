from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import FitListener, checkpoints, digits_file, fit, fit_on, leftovers, spawn
from safetensors.torch import load_file

from fpcli.data.datasets import load_dataset as load_data
from fpcli.engine.evaluate import evaluate
from fpcli.engine.trained import DataKey
from fpcli.errors import DivergedError, RecipeError, ResumeError
from fpcli.files import list_checksums
from fpcli.settings.tasks import FitTask
from fpcli.store import events
from fpcli.store.model_folder import read_trained
from fpcli.train import fit_run
from fpcli.train.run_session import Interrupted

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Let a training of several threads leave the other tests alone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def everything(folder: Path) -> Any:
    """Return all that must not depend on interruptions."""
    history = events.read_events(folder / "events.jsonl")
    for event in history:
        event.pop("real_s")
    newest = max((folder / "checkpoints").glob("round-*"))
    names = ("checkpoints/" + newest.name + "/state.safetensors", "final/model.safetensors")
    return history, newest.name, [(folder / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def whole(runs: Path) -> Any:
    """Return everything of an unbroken training of four epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_run, "draw_fit", lambda history, folder: [])
        fit(runs, "whole-fit")
    return everything(runs / "whole-fit")


def test_the_folder_holds_what_was_trained(tmp_path: Path, no_figures: pytest.MonkeyPatch) -> None:
    no_figures.undo()
    data = digits_file(tmp_path)
    summary = fit(tmp_path, "run", fit__epochs=2, fit__schedule="steps", fit__drop_at=[0.5])
    run = tmp_path / "run"
    assert checkpoints(tmp_path) == ["round-00001", "round-00002"]
    for name in ("curves.png", "curves.svg", "command.txt", "environment.json"):
        assert (run / name).stat().st_size
    listed = (run / "SHA256SUMS").read_text()
    assert (
        list_checksums(run, [run / line.split("  ")[1] for line in listed.splitlines()]) == listed
    )
    history = events.read_events(run / "events.jsonl")
    assert list(history[0]) == [
        "format", "event", "round", "loss", "lr", "validation", "test", "real_s", "params", "macs",
    ]  # fmt: skip
    assert [(e["event"], e["round"], e["lr"]) for e in history] == [
        ("epoch", 1, 0.05),
        ("epoch", 2, pytest.approx(0.005)),
    ]
    trained = read_trained(run, code="nets:tiny")
    assert trained.data == DataKey(data, 0.1, 7)
    dataset = load_data(data, None, seed=7)
    score = evaluate(trained.module(), dataset.test, dataset, channels_last=False)
    assert score.metrics["accuracy"] == summary.test["accuracy"] == history[-1]["test"]["accuracy"]
    assert score.loss == pytest.approx(summary.loss)
    assert (summary.epochs, summary.seed, summary.run) == (2, 7, str(run))
    assert (summary.params, summary.macs) == (history[0]["params"], history[0]["macs"])
    assert summary.state_sha256 == fit_run.state_sha256(trained.values)


def test_a_killed_training_resumes_to_the_same_bits(runs: Path, whole: Any) -> None:
    process, pipe = spawn(runs, "killed-fit", "fit", task__data=digits_file(runs))
    while pipe.recv() != 2:
        pass
    process.kill()
    process.join()
    pipe.close()
    assert process.exitcode == -signal.SIGKILL
    fit_on(runs, "killed-fit")
    assert everything(runs / "killed-fit") == whole
    assert leftovers(runs, "killed-fit") == []


def stop_after(epoch: int) -> FitListener:
    def send(now: int) -> None:
        if now == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return FitListener(send)


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 2, "fit__batch_size": 400},
        {"task__model": "nets:averaging"},
        {"fit__momentum": 0, "fit__weight_decay": 0},
    ],
    ids=["threads", "counting batch norm", "plain"],
)
def test_a_stopped_training_goes_on(tmp_path: Path, changes: dict[str, Any]) -> None:
    fit(tmp_path, "whole", **changes)
    listener = stop_after(2)
    with pytest.raises(Interrupted) as caught:
        fit(tmp_path, "run", listener, checkpoint_every=10, **changes)
    assert (caught.value.number, caught.value.round) == (signal.SIGINT, 2)
    assert listener.messages == ["stopping after this epoch (again to stop now)"]
    listener = FitListener()
    fit_on(tmp_path, "run", listener, checkpoint_every=1)
    assert listener.rounds == [3, 4]
    assert everything(tmp_path / "run") == everything(tmp_path / "whole")


def test_a_second_signal_keeps_the_epoch_before(
    tmp_path: Path, runs: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop when epoch 2 is trained but not over: the state of epoch 1 is still a whole one."""
    original, calls = fit_run.evaluate, []

    def judge(*arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(fit_run, "evaluate", judge)
    with pytest.raises(Interrupted) as caught:
        fit(tmp_path, "run", task__data=digits_file(runs), checkpoint_every=10)
    assert (caught.value.number, caught.value.round) == (signal.SIGTERM, 1)
    assert checkpoints(tmp_path) == ["round-00000", "round-00001"]
    monkeypatch.setattr(fit_run, "evaluate", original)
    fit_on(tmp_path, "run")
    assert everything(tmp_path / "run") == whole


def test_a_finished_training_is_finished(tmp_path: Path) -> None:
    first = fit(tmp_path, "run", fit__epochs=2)
    before, listener = everything(tmp_path / "run"), FitListener()
    assert (fit_on(tmp_path, "run", listener), listener.rounds) == (first, [])
    assert everything(tmp_path / "run") == before


def test_a_target_ends_the_training(tmp_path: Path) -> None:
    listener = FitListener()
    summary = fit(tmp_path, "run", listener, target="accuracy=0.01")
    assert (summary.epochs, listener.rounds) == (1, [1])
    assert listener.messages == ["validation data: accuracy 1.00% reached in epoch 1"]


def test_a_changed_recipe_needs_force(tmp_path: Path) -> None:
    fit(tmp_path, "run", fit__epochs=2)
    before = everything(tmp_path / "run")
    for change in ({"fit__epochs": 3}, {"fit__lr": 0.01}, {"threads": 2}, {"seed": 8}):
        with pytest.raises(ResumeError, match="was started with another recipe"):
            fit_on(tmp_path, "run", **change)
    assert everything(tmp_path / "run") == before
    listener = FitListener()
    assert fit_on(tmp_path, "run", listener, force=True, fit__epochs=3).epochs == 3
    assert listener.rounds == [3]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, runs: Path, whole: Any) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, "run", stop_after(3), task__data=digits_file(runs))
    (tmp_path / "run/checkpoints/round-00003/state.safetensors").write_bytes(b"cut short")
    listener = FitListener()
    fit_on(tmp_path, "run", listener)
    assert listener.rounds == [3, 4]
    assert listener.messages[0].startswith("warning: checkpoint round-00003 cannot be used: ")
    assert everything(tmp_path / "run") == whole


def test_a_training_that_diverges_keeps_its_last_sound_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        fit(tmp_path, "run", fit__lr=1e12)
    assert checkpoints(tmp_path) == ["round-00000"]


def test_a_network_that_cannot_be_traced_is_trained_all_the_same(tmp_path: Path) -> None:
    fit(tmp_path, "run", fit__epochs=1, task__model="nets:shuffled")
    about = json.loads((tmp_path / "run/final/layout.json").read_text())
    assert about["layout"]["groups"] == []
    stored = load_file(tmp_path / "run/final/model.safetensors")
    assert sorted(stored) == sorted(row[0] for row in about["layout"]["tensors"])


def test_images_are_augmented_where_that_is_usual(tmp_path: Path) -> None:
    """Both kinds of stream, order and augmentation, go on after a stop."""
    changes = {"fit__epochs": 3, "task__augment": "crop-flip"}
    whole = fit(tmp_path, "whole", **changes)
    with pytest.raises(Interrupted):
        fit(tmp_path, "run", stop_after(1), **changes)
    assert fit_on(tmp_path, "run").state_sha256 == whole.state_sha256
    assert fit(tmp_path, "plain", fit__epochs=3).state_sha256 != whole.state_sha256
    assert "  augment: none\n" in (tmp_path / "plain/recipe.yaml").read_text()
    assert FitTask(data="cifar10").decide_augment() == "crop-flip"


def test_no_epochs_are_no_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"`fit\.epochs` is 0"):
        fit(tmp_path, "run", fit__epochs=0)


def test_the_number_of_threads_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_run, "num_cores", lambda: 2)
    for name, limit, threads in (("small", 1e9, 1), ("large", 1.0, 2)):
        monkeypatch.setattr(fit_run, "_MANY_MACS", limit)
        fit(tmp_path, name, fit__epochs=1, threads=0)
        assert f"\nthreads: {threads}\n" in (tmp_path / name / "recipe.yaml").read_text()
        assert torch.get_num_threads() == threads
    monkeypatch.setattr(fit_run, "num_cores", lambda: 8)
    fit_on(tmp_path, "large")


def test_the_same_recipe_gives_the_same_bits(
    tmp_path: Path, runs: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(123)
    fit(tmp_path, "run", task__data=digits_file(runs))
    assert everything(tmp_path / "run") == whole
    fit(tmp_path, "other", task__data=digits_file(runs), seed=8)
    assert everything(tmp_path / "other")[2] != whole[2]
