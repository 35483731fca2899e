from __future__ import annotations

from pathlib import Path

import pytest
from driver import begin

from fpcli.errors import ResumeError
from fpcli.run.folder import RunFolder
from fpcli.run.purge import num_checkpoints, purge, purge_unlearned

pytestmark = pytest.mark.usefixtures("no_figures")


def test_models_and_memories_go_and_the_record_stays(tmp_path: Path) -> None:
    begin(tmp_path, "run", "toys:Personal", rounds=1)
    folder = RunFolder(tmp_path / "run")
    assert num_checkpoints(folder) == 2
    with folder.lock(), pytest.raises(ResumeError, match="in use"):
        purge(folder, "because")
    assert num_checkpoints(folder) == 2 and not folder.purged.exists()
    purge(folder, "because")
    names = {path.name for path in folder.path.iterdir()}
    assert not names & {"checkpoints", "final", "memory"}
    assert {"recipe.yaml", "events.jsonl", "SHA256SUMS", "purged.txt"} <= names
    assert folder.purged.read_text() == "because\n"
    assert folder.is_whole and num_checkpoints(folder) == 0


def test_the_newest_checkpoint_of_an_unlearning_stays(tmp_path: Path) -> None:
    begin(tmp_path, "run", "fedavg", rounds=2)
    folder = RunFolder(tmp_path / "run")
    (folder.path / "pruned").mkdir()
    purge_unlearned(folder)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["round-00002"]
    assert not (folder.path / "pruned").exists() and folder.final.exists() and folder.is_whole
