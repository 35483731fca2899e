"""Every shipped recipe loads and says what it is; every method runs by the smoke recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpcli import methods, plugins
from fpcli.pruning import PRUNERS
from fpcli.recipe.header import read_header
from fpcli.recipe.load import find_recipe, list_shipped, load_any, load_recipe
from fpcli.settings.recipes import FitRecipe, Recipe
from fpcli.store import events
from fpcli.store.run_folder import RunFolder
from fpcli.train.federated_run import RunListener, play_federated

RECIPES = list_shipped()


class Silent:
    """A watcher that ignores everything."""

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: None


def test_all_recipes_are_found() -> None:
    folder = Path(__file__).parents[1] / "recipes"
    assert {*RECIPES} == {*folder.glob("*/*.yaml")}
    assert {*methods.METHODS, "fit", "smoke"} <= {path.parent.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_has_a_header(path: Path) -> None:
    command, recipe = load_any(path)
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 100
    header = read_header(path)
    assert "2 CPU cores" in header.machine or "GPU" in header.machine
    if header.measure in ("clients_accuracy", "local_accuracy"):
        assert isinstance(recipe, Recipe)
        traits = plugins.lookup("methods", recipe.method.name).traits
        assert traits.models == "personal" or recipe.eval_clients
    if path.parent.name == "smoke":
        assert header.expected is None
    else:
        # What a pruning or unlearning method starts from lies beside that method's recipes.
        assert path.parent.name in (
            {command, *PRUNERS}
            if isinstance(recipe, FitRecipe)
            else {recipe.method.name, "unlearn"}
        )


DRAWN = ("fedmp", "fedsparsify", "prunefl", "subfedavg", "unlearn")
"""Methods whose runs together have every picture that there is."""


@pytest.mark.parametrize(
    ("name", "is_drawn"),
    [
        *((name, name in DRAWN) for name in sorted(methods.METHODS)),
        *(
            pytest.param(name, True, marks=pytest.mark.slow)
            for name in sorted({*methods.METHODS} - {*DRAWN})
        ),
    ],
)
def test_the_smoke_recipe_runs(
    name: str, is_drawn: bool, tmp_path: Path, no_figures: pytest.MonkeyPatch
) -> None:
    if is_drawn:
        no_figures.undo()
    recipe = load_recipe(find_recipe("smoke/tiny"), flags={"method.name": name})
    watcher: RunListener = Silent()  # type: ignore[assignment]
    summary = play_federated(recipe, RunFolder.create(tmp_path, name, recipe), watcher)
    assert summary.rounds == 2
    first, second = events.read_events(tmp_path / name / "events.jsonl")
    assert second["loss"] < first["loss"]
    files = {str(p.relative_to(tmp_path / name)) for p in (tmp_path / name).rglob("*")}
    assert {
        "recipe.yaml", "command.txt", "environment.json", "events.jsonl", "SHA256SUMS",
        "final/model.safetensors", "final/layout.json",
        "checkpoints/round-00002/state.safetensors",
    } <= files  # fmt: skip
    assert is_drawn == ({"curves.png", "curves.svg"} <= files)
