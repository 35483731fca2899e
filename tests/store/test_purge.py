from __future__ import annotations

import itertools
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from driver import begin, dies, digits_file

from fpcli.errors import DataError, ResumeError
from fpcli.report.runs import find_runs
from fpcli.store.checkpoint import load_newest
from fpcli.store.model_folder import read_trained
from fpcli.store.purge import count_checkpoints, purge, purge_unlearned
from fpcli.store.run_folder import RunFolder
from fpcli.tasks.classify import Classify
from fpcli.train.model_source import find_newest_run
from fpcli.unlearn.unlearn_run import is_purged, purge_original

pytestmark = pytest.mark.usefixtures("no_figures")


def test_models_and_memories_go_and_the_record_stays(tmp_path: Path) -> None:
    begin(tmp_path, "run", "toys:Personal", rounds=1)
    folder = RunFolder(tmp_path / "run")
    assert count_checkpoints(folder) == 2
    with folder.lock(), pytest.raises(ResumeError, match="in use"):
        purge(folder, "because")
    assert count_checkpoints(folder) == 2 and not folder.purged.exists()
    purge(folder, "because")
    names = {path.name for path in folder.path.iterdir()}
    assert not names & {"checkpoints", "final", "memory"}
    assert {"recipe.yaml", "events.jsonl", "SHA256SUMS", "purged.txt"} <= names
    assert folder.purged.read_text() == "because\n"
    assert folder.is_whole and count_checkpoints(folder) == 0


def test_the_newest_checkpoint_of_an_unlearning_stays(tmp_path: Path) -> None:
    begin(tmp_path, "run", "fedavg", rounds=2)
    folder = RunFolder(tmp_path / "run")
    (folder.path / "pruned").mkdir()
    purge_unlearned(folder)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["round-00002"]
    assert not (folder.path / "pruned").exists() and folder.final.exists() and folder.is_whole


def unlearning(runs: Path) -> tuple[RunFolder, RunFolder]:
    """Return an unlearning and its original, as far as a deletion looks at them."""
    begin(runs, "original", "fedavg", task__data=digits_file(runs.parent), rounds=2)
    original, folder = RunFolder(runs / "original"), RunFolder(runs / "unlearned")
    shutil.copytree(original.path, folder.path)
    shutil.copytree(original.path, folder.path / "finetune-only")
    shutil.copytree(original.final, folder.path / "pruned")
    (folder.path / "pruned" / "mask.safetensors").touch()
    (folder.path / "unlearn.json").write_text(json.dumps({"classes": [7]}))
    return folder, original


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def look_half_way(folder: RunFolder, original: RunFolder, runs: Path) -> None:
    """Make sure that nothing which is half deleted looks like something whole."""
    if is_purged(folder, original):
        with pytest.raises(DataError, match="was deleted"):
            read_trained(original.path, code="nets:tiny")
        with pytest.raises(ResumeError, match="were deleted"):
            load_newest(original.path, method_state=None, digest="")
        assert find_newest_run(runs) == folder.path
    else:
        assert original.is_whole and count_checkpoints(original) == 2
    names = {path.name for path in (folder.path / "pruned").glob("*")}
    assert names in (set(), {"layout.json", "model.safetensors", "mask.safetensors"})
    assert read_trained(folder.path, code="nets:tiny").task == Classify(10)
    assert (folder.checkpoints / "round-00002" / "SHA256SUMS").exists()
    assert {run.name for run in find_runs([runs], runs)} == {"original", "unlearned"}


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_a_kill_amid_a_deletion_leaves_nothing_that_looks_whole(tmp_path: Path, step: int) -> None:
    folder, original = unlearning(tmp_path / "fresh")
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "fresh", whole)
    purge_original(RunFolder(whole / "unlearned"), RunFolder(whole / "original"), {"classes": [7]})
    wanted = tree(whole)
    assert not {"original/final", "original/checkpoints", "unlearned/pruned"} & wanted
    for number in itertools.count(1, step):
        runs = tmp_path / str(number)
        shutil.copytree(tmp_path / "fresh", runs)
        here = RunFolder(runs / folder.path.name), RunFolder(runs / original.path.name)
        delete = partial(purge_original, *here, {"classes": [7]})
        if not dies(number, delete):
            break
        look_half_way(*here, runs)
        delete()
        assert tree(runs) == wanted
        assert here[0].is_whole and here[1].is_whole
        shutil.rmtree(runs)
    assert number > 40
