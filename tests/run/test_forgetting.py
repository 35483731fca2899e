from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from driver import begin, digits_file

from fpcli.data.datasets import Dataset
from fpcli.errors import DataError, FpError, LayoutError, RecipeError, UsageError
from fpcli.recipe.schema import Recipe
from fpcli.run.folder import RunFolder
from fpcli.run.forgetting import (
    Source,
    check_retrained,
    check_task,
    find_classes,
    finetune_only,
    held,
    planned,
    retrained,
    source_of,
    usual_rounds,
)
from fpcli.run.setup import load_data

pytestmark = pytest.mark.usefixtures("no_figures")


def finished(runs: Path, name: str = "run", method: str = "fedavg", **changes: Any) -> Recipe:
    """Train a run for one round, and return its recipe."""
    settings = {"task__data": digits_file(runs), "rounds": 1, **changes}
    begin(runs, name, method, **settings)
    return toy_recipe(method, **settings)


def source(runs: Path, **changes: Any) -> Source:
    return source_of(RunFolder(runs / "run"), finished(runs, **changes))


def unlearn(runs: Path, classes: tuple[int, ...], **changes: Any) -> Recipe:
    return toy_recipe(
        "unlearn", task__data=digits_file(runs), task__withhold=list(classes),
        task__start=str(runs / "run"), **changes,
    )  # fmt: skip


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
        source_of(RunFolder(tmp_path / "run"), recipe)


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    recipe = finished(tmp_path)
    path = tmp_path / "run" / "recipe.yaml"
    path.write_text(path.read_text().replace("\nrounds: 1\n", "\nrounds: 5\n"))
    with pytest.raises(DataError, match="is unfinished: 1 of 5 rounds"):
        source_of(RunFolder(tmp_path / "run"), recipe)


def test_classes_by_number_and_name(dataset: Dataset) -> None:
    named = replace(dataset, class_names=("cat", "dog", "ship", *"abcdefg"))
    assert find_classes(named, [7, 0], ["dog", "cat"]) == (7, 0, 1)
    with pytest.raises(UsageError, match="no class `shop`") as caught:
        find_classes(named, [], ["shop"])
    assert caught.value.hint == "did you mean `ship`?"
    with pytest.raises(UsageError, match="no class to forget"):
        find_classes(named, [], [])


def test_who_holds_what(tmp_path: Path, dataset: Dataset) -> None:
    rows = held(unlearn(tmp_path, (3,)), dataset)
    labels = dataset.train.labels
    assert [len(rows), sum(gone for gone, _ in rows)] == [4, int((labels == 3).sum())]
    assert sum(rest for _, rest in rows) == int((labels != 3).sum())


def test_a_class_that_no_client_holds(tmp_path: Path, dataset: Dataset) -> None:
    classes = {"task__partition__kind": "classes", "task__partition__classes_per_client": 2}
    recipe = unlearn(tmp_path, (9,), **classes, task__clients=5)
    keep = (dataset.train.labels != 9).nonzero().flatten()
    with pytest.raises(DataError, match="no client holds a sample of class 9"):
        held(recipe, replace(dataset, train=dataset.train.take(keep)))


def test_the_plan_counts_channels(tmp_path: Path, dataset: Dataset) -> None:
    found = source(tmp_path)
    plan = planned(found, unlearn(tmp_path, (3, 1), method__ratio=0.2, rounds=2), dataset)
    assert {key: plan[key] for key in ("classes", "layers", "channels", "pruned", "rounds")} == {
        "classes": [3, 1], "layers": 2, "channels": 16, "pruned": 6, "rounds": 2,
    }  # fmt: skip
    assert [client["client"] for client in plan["clients"]] == [0, 1, 2, 3]
    with pytest.raises(RecipeError, match="asks for 15 of 16 channels, but only 14 can leave"):
        planned(found, unlearn(tmp_path, (3,), method__ratio=0.95), dataset)
    with pytest.raises(RecipeError, match="asks for 8 of 16 channels, but only 6 can leave"):
        planned(found, unlearn(tmp_path, (3, 1), method__ratio=0.5), dataset)
    kinds = {"task__partition__kind": "classes", "task__partition__classes_per_client": 1}
    alone = unlearn(tmp_path, (3,), **kinds, task__clients=10, min_clients=10)
    with pytest.raises(DataError, match=r"^9 clients have samples of other .* needs 10"):
        planned(found, alone, dataset)


def test_the_recipes_of_the_comparisons(tmp_path: Path) -> None:
    found = source(tmp_path)
    assert [usual_rounds(replace(found, rounds=n)) for n in (1, 5, 6, 30)] == [1, 1, 2, 6]
    recipe = unlearn(tmp_path, (3,), method__ratio=0.2, rounds=4, target_accuracy=0.5)
    alone = finetune_only(recipe, 3)
    assert (alone.method.options["ratio"], alone.rounds, alone.target_accuracy) == (0.0, 3, None)
    assert alone.task == recipe.task
    anew = retrained(recipe, found)
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
    wanted = retrained(unlearn(tmp_path, (3, 1)), found)
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
