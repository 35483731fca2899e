"""One unlearning of the toy run, from all sides; a stopped one ends in the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from driver import Listener, begin, digits_file, go_on
from safetensors.torch import load_file

from fpcli.data.batches import evaluation_batches
from fpcli.errors import DataError, RecipeError, ResumeError
from fpcli.files import list_checksums
from fpcli.report.runs import find_runs
from fpcli.store.model_folder import read_trained
from fpcli.store.run_folder import RunFolder
from fpcli.tasks.classify import Classify
from fpcli.train import federated_run
from fpcli.train.run_session import Interrupted
from fpcli.unlearn import unlearn_run
from fpcli.unlearn.compared_models import divide_samples
from fpcli.unlearn.original import make_retraining, read_original
from fpcli.unlearn.unlearn_run import Unlearning, is_purged, purge_original, read_result

CLASSES = (3, 8)
STAGES = ["original", "pruned", "finetuned", "finetune_only", "retrained", "logit_dropped"]


def made(runs: Path, folder: Path, listener: Any = None, **changes: Any) -> Unlearning:
    """Return an unlearning of the run called `run`, in a folder that may be there already."""
    settings: dict[str, Any] = {
        "task__data": digits_file(runs), "task__start": str(runs / "run"),
        "task__withhold": list(CLASSES), "method__ratio": 0.2,
        "method__scope": "global", "rounds": 2,
    }  # fmt: skip
    recipe = toy_recipe("unlearn", **(settings | changes))
    original = toy_recipe("fedavg", task__data=digits_file(runs))
    folder.mkdir(exist_ok=True)
    return Unlearning(
        RunFolder(folder),
        recipe,
        read_original(RunFolder(runs / "run"), original),
        lambda _: nullcontext(listener or Listener()),
        has_retrained=True,
        drops_logit=True,
    )


def snapshot(folder: Path) -> str:
    return list_checksums(folder, sorted(path for path in folder.rglob("*") if path.is_file()))


def weights(folder: Path) -> bytes:
    return (folder / "final" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of an original run, and of what forgot two classes of it."""
    found = tmp_path_factory.mktemp("unlearning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated_run, "draw_run", lambda history, folder: [])
        patch.setattr(unlearn_run, "draw_forgetting", lambda *_, **__: [])
        begin(found, "run", "fedavg", task__data=digits_file(found))
        before = snapshot(found / "run")
        made(found, found / "done").run()
        assert snapshot(found / "run") == before
        yield found


@pytest.fixture(scope="module")
def result(runs: Path) -> dict[str, Any]:
    return read_result(RunFolder(runs / "done"))


def test_what_is_reported(runs: Path, result: dict[str, Any]) -> None:
    assert list(result) == [
        "classes", "search", "stages", "speedup", "audits", "retrained", "run", "pictures",
    ]  # fmt: skip
    assert (result["classes"], result["search"]) == ([3, 8], None)
    assert list(result["audits"]) == ["relearn", "server-diff"]
    assert result["run"] == str(runs / "done")
    assert [stage["stage"] for stage in result["stages"]] == STAGES
    stages = {stage["stage"]: stage for stage in result["stages"]}
    assert [stages[name]["rounds"] for name in STAGES] == [None, 0, 2, 2, 3, None]
    assert stages["logit_dropped"]["forget_accuracy"] == 0
    assert stages["retrained"]["forget_accuracy"] == 0
    assert stages["logit_dropped"]["retain_accuracy"] >= stages["finetuned"]["retain_accuracy"]
    model = read_trained(runs / "run", code="nets:tiny").module()
    data = divide_samples(toy_recipe("fedavg", task__data=digits_file(runs), task__withhold=[3, 8]))
    for key, split in (
        ("forget_accuracy", data.forget_test),
        ("retain_accuracy", data.retain_test),
        ("forget_train_accuracy", data.forget_train),
        ("retain_train_accuracy", data.retain_train),
    ):
        batches = evaluation_batches(split, data.normalise)
        judged = Classify(data.num_classes).score(model, batches)
        assert stages["original"][key] == judged.metrics["accuracy"]


def test_scoring_is_counted_before_any_round(runs: Path, result: dict[str, Any]) -> None:
    stages = {stage["stage"]: stage for stage in result["stages"]}
    (run, alone) = find_runs([runs / "done", runs / "done" / "finetune-only"], runs)
    sums = [sum(x["down_bytes"] + x["up_bytes"] for x in one.rounds) for one in (run, alone)]
    pruned, finetuned, only = (stages[x] for x in ("pruned", "finetuned", "finetune_only"))
    assert pruned["bytes"] + sums[0] == finetuned["bytes"]
    assert pruned["bytes"] > 2 * 4 * 16 * 10 * 4  # classes, clients, channels, classes, float32
    assert only["bytes"] == sums[1]
    clock_s = sum(event["round_s"] for event in run.rounds)
    assert pruned["seconds"] == pytest.approx(finetuned["seconds"] - clock_s)
    assert pruned["seconds"] > 0
    assert 0 < pruned["real_s"] < finetuned["real_s"]


def test_the_evidence_says_what_was_pruned_and_why(runs: Path) -> None:
    tensors = load_file(runs / "done" / "forgetting.safetensors")
    words = {f"class-{c}/{layer}/{what}" for c in CLASSES for layer in ("stem", "branch")
             for what in ("activations", "scores", "pruned")}  # fmt: skip
    assert set(tensors) == words
    assert tensors["class-3/stem/activations"].shape == (10, 8)
    original, pruned, final = (
        read_trained(runs / place, code="nets:tiny") for place in ("run", "done/pruned", "done")
    )
    gone = {
        layer: torch.cat([tensors[f"class-{c}/{layer}/pruned"] for c in CLASSES])
        for layer in ("stem", "branch")
    }
    assert sum(map(len, gone.values())) == 6  # a fifth of 16, for each of two classes
    for layer, channels in gone.items():
        for model in (pruned, final):
            assert not model.values[f"{layer}.weight"][channels].any()
            assert not model.values[f"{layer}.bias"][channels].any()
        left = sorted(set(range(8)) - set(channels.tolist()))
        assert bool(pruned.values[f"{layer}.weight"][left].flatten(1).any(1).all())
    for name, value in pruned.values.items():  # nothing but zeros is new, and statistics stay
        assert bool(((value == original.values[name]) | (value == 0)).all())


def test_pruned_channels_put_out_nothing_after_fine_tuning(runs: Path) -> None:
    tensors = load_file(runs / "done" / "forgetting.safetensors")
    gone = torch.cat([tensors[f"class-{c}/branch/pruned"] for c in CLASSES])
    trained = read_trained(runs / "done", code="nets:tiny")
    model: Any = trained.module()
    rows = trained.support.axes(trained.layout)["branch.weight"][0]
    kept = list(range(8)) if rows is None else rows.tolist()
    # The sum behind keeps a channel whose other summand speaks.
    silent = [kept.index(channel) for channel in gone.tolist() if channel in kept]
    assert silent
    for is_training in (True, False):
        model.train(is_training)
        out = model.branch(torch.randn(3, model.branch.weight.shape[1], 4, 4))
        assert not bool(out[:, silent].any()) and bool(out.any())


def test_a_network_without_residuals_gets_smaller(runs: Path, tmp_path: Path) -> None:
    task = {"task__data": digits_file(runs), "task__model": "digits-cnn", "rounds": 1}
    begin(tmp_path, "run", "fedavg", **task)
    flags = {"task__start": str(tmp_path / "run"), "task__withhold": [3], "method__ratio": 0.25}
    begin(tmp_path, "small", "unlearn", **task, **flags)
    small, whole = (read_trained(tmp_path / name).module() for name in ("small", "run"))
    convolutions = [module for module in small.modules() if isinstance(module, torch.nn.Conv2d)]
    assert sum(module.out_channels for module in convolutions) == 48 - 12
    sizes = [sum(x.numel() for x in model.parameters()) for model in (small, whole)]
    assert sizes[0] < sizes[1]


def test_the_comparisons_are_plain_runs(runs: Path, tmp_path: Path) -> None:
    task = {"task__data": digits_file(runs), "task__withhold": list(CLASSES)}
    begin(tmp_path, "anew", "fedavg", **task)
    assert weights(runs / "done" / "retrained") == weights(tmp_path / "anew")
    begin(tmp_path, "on", "fedavg", **task, task__start=str(runs / "run"), rounds=2)
    assert weights(runs / "done" / "finetune-only") == weights(tmp_path / "on")


def test_checksums_vouch_for_all_of_the_result(runs: Path) -> None:
    listed = (runs / "done" / "SHA256SUMS").read_text()
    for name in ("unlearn.json", "forgetting.safetensors", "pruned/model.safetensors", "final/"):
        assert name in listed
    for name in ("", "retrained", "finetune-only"):
        assert RunFolder(runs / "done" / name).is_whole


def test_an_unlearning_that_is_stopped_again_and_again(runs: Path, tmp_path: Path) -> None:
    """The signals come in every round of every run, the last ones included."""
    stopped = []

    def send(number: int) -> None:
        if number:
            os.kill(os.getpid(), signal.SIGTERM)

    work = made(runs, tmp_path / "run", Listener(send))
    while len(stopped) < 20:
        try:
            work.run()
            break
        except Interrupted as error:
            assert error.number == signal.SIGTERM
            stopped.append((error.folder.name, error.round))
    assert stopped == [
        ("run", 1), ("run", 2), ("finetune-only", 1), ("finetune-only", 2),
        ("retrained", 1), ("retrained", 2), ("retrained", 3),
    ]  # fmt: skip
    for name in ("", "finetune-only", "retrained"):
        assert weights(tmp_path / "run" / name) == weights(runs / "done" / name)
    found, expected = (read_result(RunFolder(x)) for x in (tmp_path / "run", runs / "done"))
    for one, other in zip(found["stages"], expected["stages"], strict=True):
        assert {**one, "real_s": 0} == {**other, "real_s": 0}
    again = Listener()
    made(runs, tmp_path / "run", again).run()
    assert again.rounds == []


def test_another_run_stands_for_the_retraining(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "done", tmp_path / "run")
    (tmp_path / "run" / "retrained").rename(tmp_path / "elsewhere")
    listener = Listener()
    work = made(runs, tmp_path / "run", listener)
    other = (RunFolder(tmp_path / "elsewhere"), make_retraining(work.recipe, work.source))
    found = replace(work, has_retrained=False, other=other).run()
    expected = read_result(RunFolder(runs / "done"))
    assert listener.rounds == []
    assert found.pop("retrained") == str(tmp_path / "elsewhere")
    assert expected.pop("retrained") is None
    assert {**found, "run": ""} == {**expected, "run": ""}
    assert not (tmp_path / "run" / "retrained").exists()


def test_more_rounds_are_compared_with_as_many(
    runs: Path, tmp_path: Path, no_figures: pytest.MonkeyPatch
) -> None:
    def work(rounds: int) -> dict[str, Any]:
        return replace(made(runs, tmp_path / "run", rounds=rounds), has_retrained=False).run()

    assert work(1)["speedup"] is None
    go_on(tmp_path, "run", rounds=2)
    found = work(2)
    assert [stage["rounds"] for stage in found["stages"]] == [None, 0, 2, 2, None]
    assert weights(tmp_path / "run" / "finetune-only") == weights(runs / "done" / "finetune-only")


def test_nothing_is_left_of_what_failed_before_it_began(runs: Path, tmp_path: Path) -> None:
    work = made(runs, tmp_path / "run", method__ratio=0.7)  # twice that is too much
    with pytest.raises(RecipeError, match="only 3 can leave"):
        work.run()
    assert not (tmp_path / "run").exists()


def test_a_result_makes_nothing_run(tmp_path: Path) -> None:
    result = {"classes": [7], "stages": [], "speedup": None, "audits": {"os:getcwd": {}}}
    (tmp_path / "unlearn.json").write_text(json.dumps(result))
    with pytest.raises(DataError, match=r"unlearn\.json: .* audit `os:getcwd` is unknown"):
        read_result(RunFolder(tmp_path))


def test_a_purged_run_says_so_everywhere(
    runs: Path, tmp_path: Path, no_figures: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, "run", "fedavg", task__data=digits_file(runs), rounds=2)
    work = replace(made(runs, tmp_path / "new"), has_retrained=False)
    work = replace(
        work,
        recipe=toy_recipe("unlearn", task__data=digits_file(runs), task__withhold=[3],
                          task__start=str(tmp_path / "run"), rounds=1),
    )  # fmt: skip
    result = work.run()
    original, folder = RunFolder(tmp_path / "run"), work.folder
    assert not is_purged(folder, original)
    purge_original(folder, original, result)
    assert is_purged(folder, original)
    assert "class 3 was unlearned" in original.purged.read_text()
    for gone in (original, RunFolder(folder.path / "finetune-only")):
        left = {path.suffix for path in gone.path.rglob("*.safetensors")}
        assert left == set() and not gone.checkpoints.exists()
        with pytest.raises(DataError, match="its model was deleted"):
            read_trained(gone.path, code="nets:tiny")
        assert gone.is_whole
    with pytest.raises(ResumeError, match="its checkpoints were deleted"):
        go_on(tmp_path, "run", rounds=3)
    assert len(find_runs([original.path], tmp_path)[0].rounds) == 2
    assert not (folder.path / "pruned").exists()
    assert [path.name for path in folder.checkpoints.iterdir()] == ["round-00001"]
    assert folder.is_whole and read_result(folder) == result
    read_trained(folder.path, code="nets:tiny")
    purge_original(folder, original, result)  # once more does no harm
