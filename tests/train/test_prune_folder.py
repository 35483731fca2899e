from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prunings import context, named

from fpcli.errors import NeedError, UsageError
from fpcli.pruning.filters import Filters
from fpcli.pruning.prune import Pruned, plan_cut
from fpcli.pruning.pruner import PruneTarget
from fpcli.recipe.load import load_recipe
from fpcli.settings.recipes import PruneRecipe
from fpcli.train import prune_folder
from fpcli.train.prune_folder import write_pruned


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes the same result into a folder."""
    monkeypatch.setattr(prune_folder, "draw_pruning", lambda *arguments: [])
    net = named("digits-cnn", (1, 8, 8))
    result: Pruned = plan_cut(Filters(), context(), net, PruneTarget("ratio", 0.5))
    recipe = load_recipe(None, flags={"prune.ratio": 0.5}, cls=PruneRecipe)

    def go(folder: Path, **more: Any) -> None:
        write_pruned(folder, result, recipe=recipe, report={"a": 1}, history=[{"b": 2}], **more)

    return go


def test_the_folder_is_there_as_a_whole(write: Any, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write(out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    sums = (out / "SHA256SUMS").read_text()
    assert sums.count("\n") == len(list(out.iterdir())) - 1
    assert load_recipe(out / "recipe.yaml", cls=PruneRecipe).prune.ratio == 0.5


def test_a_failure_keeps_what_was_there(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out)
    (out / "mark").touch()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(NeedError, match="No space left"):
        write(out, force=True)
    assert (out / "mark").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_strangers_folder_is_never_replaced(write: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is no output of `fp prune`"):
        write(tmp_path / "out", force=True)
    write(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match="is no output of `fp prune`"):
        write(tmp_path / "link", force=True)
