from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from driver import digits_file
from origins import finished, source, unlearn

from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Trained
from fpcli.errors import DataError, FpError, LayoutError, RecipeError, UsageError
from fpcli.store.model_folder import read_trained
from fpcli.store.run_folder import RunFolder
from fpcli.tasks.regress import Regress
from fpcli.train.client_data import load_data
from fpcli.unlearn import original
from fpcli.unlearn.original import (
    check_retrained,
    check_task,
    choose_rounds,
    find_classes,
    make_retraining,
    read_original,
    set_ratio,
    skip_pruning,
)

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_data(toy_recipe("fedavg", task__data=digits_file(tmp_path)))


@pytest.mark.parametrize(
    ("method", "changes", "kind", "message"),
    [
        ("local-only", {}, RecipeError, "trains a model per client"),
        ("fedavg", {"task__withhold": [4]}, RecipeError, "without class 4 already"),
        ("fedavg", {"task__model": "mnist-mlp"}, LayoutError, "`mnist-mlp` has no convolution"),
        ("fedavg", {"task__model": "nets:shuffled"}, LayoutError, "Shuffled"),
    ],
)
def test_a_run_that_cannot_forget(
    tmp_path: Path, method: str, changes: dict[str, Any], kind: type[FpError], message: str
) -> None:
    recipe = finished(tmp_path, "run", method, **changes)
    with pytest.raises(kind, match=message):
        read_original(RunFolder(tmp_path / "run"), recipe)


def test_a_run_that_learned_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = finished(tmp_path)

    def read_numbers(*args: Any, **kwargs: Any) -> Trained:
        return replace(read_trained(*args, **kwargs), task=Regress())

    monkeypatch.setattr(original, "read_trained", read_numbers)
    message = "no classes that it could forget: its data `.*` has a number to predict"
    with pytest.raises(RecipeError, match=message) as caught:
        read_original(RunFolder(tmp_path / "run"), recipe)
    assert "give a run on data with classes" in caught.value.hint


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    recipe = finished(tmp_path)
    path = tmp_path / "run" / "recipe.yaml"
    path.write_text(path.read_text().replace("\nrounds: 1\n", "\nrounds: 5\n"))
    with pytest.raises(DataError, match="is unfinished: 1 of 5 rounds"):
        read_original(RunFolder(tmp_path / "run"), recipe)


def test_classes_by_number_and_name(dataset: Dataset) -> None:
    named = replace(dataset, class_names=("cat", "dog", "ship", *"abcdefg"))
    assert find_classes(named, [7, 0], ["dog", "cat"]) == (7, 0, 1)
    with pytest.raises(UsageError, match="no class `shop`") as caught:
        find_classes(named, [], ["shop"])
    assert caught.value.hint == "did you mean `ship`?"
    with pytest.raises(UsageError, match="no class to forget"):
        find_classes(named, [], [])


def test_the_recipes_of_the_comparisons(tmp_path: Path) -> None:
    found = source(tmp_path)
    assert [choose_rounds(replace(found, rounds=n)) for n in (1, 5, 6, 30)] == [1, 1, 2, 6]
    recipe = unlearn(tmp_path, (3,), method__ratio=0.2, rounds=4, target="accuracy=0.5")
    alone = skip_pruning(recipe, 3)
    assert (alone.method.options["ratio"], alone.rounds, alone.target) == (0.0, 3, {})
    assert alone.task == recipe.task
    tried = set_ratio(replace(recipe), 0.15)
    assert (tried.method.options["ratio"], tried.rounds) == (0.15, 4)
    asking = [one.method.options["counts_right"] for one in (recipe, tried, skip_pruning(tried, 3))]
    assert asking == [False, True, False]
    anew = make_retraining(recipe, found)
    assert (anew.method.name, anew.task.start, anew.task.withhold) == ("fedavg", "", (3,))
    assert (anew.rounds, anew.local) == (1, found.recipe.local)


def test_the_task_stays_that_of_the_run(tmp_path: Path) -> None:
    found = source(tmp_path)
    check_task(unlearn(tmp_path, (3,), task__data_dir="elsewhere", local__lr=0.5), found)
    for changes in ({"seed": 8}, {"task__clients": 5}, {"task__augment": "crop"}):
        with pytest.raises(UsageError, match="task and seed are those of"):
            check_task(unlearn(tmp_path, (3,), **changes), found)


def test_a_run_that_stands_for_the_retraining(tmp_path: Path) -> None:
    found = source(tmp_path)
    wanted = make_retraining(unlearn(tmp_path, (3, 1)), found)
    good = finished(tmp_path, "good", task__withhold=[1, 3])
    check_retrained(RunFolder(tmp_path / "good"), good, wanted)
    for name, changes in (
        ("a", {"task__withhold": [1]}),
        ("b", {"task__withhold": [1, 3], "local__lr": 0.2}),
        ("c", {"task__withhold": [1, 3], "rounds": 2}),
    ):
        other = finished(tmp_path, name, **changes)
        with pytest.raises(RecipeError, match="is not the run without class 3, 1"):
            check_retrained(RunFolder(tmp_path / name), other, wanted)
