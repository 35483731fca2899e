"""Every shipped recipe loads, says what it is, and every smoke recipe runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpcli import methods
from fpcli.recipe.kinds import AnyRecipe, PruneRecipe
from fpcli.recipe.load import command_of, load, shipped
from fpcli.recipe.schema import FitRecipe, Recipe
from fpcli.run.experiment import Watcher, start
from fpcli.run.folder import RunFolder

RECIPES = shipped()
NUM_RECIPES = 51
KINDS: dict[str, type[AnyRecipe]] = {
    "train": Recipe, "fit": FitRecipe, "prune": PruneRecipe,
}  # fmt: skip


class Silent:
    """A watcher that ignores everything."""

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: None


def test_all_recipes_are_found() -> None:
    assert len(RECIPES) == NUM_RECIPES
    smoke = {path.stem for path in RECIPES if path.parent.name == "smoke"}
    assert smoke == set(methods.METHODS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_has_a_header(path: Path) -> None:
    recipe = load(path, cls=KINDS[command_of(path)])  # type: ignore[type-var]
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    header = text[: text.index("recipe: 1")]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "machine:" in header.lower()
    if path.parent.name != "smoke":
        name = "fit" if isinstance(recipe, FitRecipe) else recipe.method.name
        assert name == path.parent.name


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_a_smoke_recipe_runs(name: str, tmp_path: Path) -> None:
    recipe = load(next(p for p in RECIPES if p.parent.name == "smoke" and p.stem == name))
    watcher: Watcher = Silent()  # type: ignore[assignment]
    summary = start(recipe, RunFolder.create(tmp_path, name), watcher)
    assert summary.rounds == 2
    personal = summary.clients_accuracy  # a method may train nothing but its clients' models
    assert (personal["mean"] if personal else summary.accuracy) > 0.1
    files = {str(p.relative_to(tmp_path / name)) for p in (tmp_path / name).rglob("*")}
    assert {
        "recipe.yaml", "command.txt", "environment.json", "events.jsonl", "SHA256SUMS",
        "final/model.safetensors", "final/layout.json", "curves.png", "curves.svg",
        "checkpoints/round-00002/state.safetensors",
    } <= files  # fmt: skip
