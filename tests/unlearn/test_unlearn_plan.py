from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from driver import digits_file
from origins import source, unlearn

from fpcli.data.datasets import Dataset
from fpcli.errors import DataError, RecipeError
from fpcli.train.client_data import load_data
from fpcli.unlearn.unlearn_plan import count_held_samples, list_shares, plan_unlearning

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_data(toy_recipe("fedavg", task__data=digits_file(tmp_path)))


def test_who_holds_what(tmp_path: Path, dataset: Dataset) -> None:
    rows = count_held_samples(unlearn(tmp_path, (3,)), dataset)
    labels = dataset.train.labels
    assert [len(rows), sum(gone for gone, _ in rows)] == [4, int((labels == 3).sum())]
    assert sum(rest for _, rest in rows) == int((labels != 3).sum())


def test_a_class_that_no_client_holds(tmp_path: Path, dataset: Dataset) -> None:
    classes = {"task__partition__kind": "classes", "task__partition__classes_per_client": 2}
    recipe = unlearn(tmp_path, (9,), **classes, task__clients=5)
    keep = (dataset.train.labels != 9).nonzero().flatten()
    with pytest.raises(DataError, match="no client holds a sample of class 9"):
        count_held_samples(recipe, replace(dataset, train=dataset.train.take(keep)))


def test_one_class_alone_is_no_task(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(DataError, match="only class 4 would be left"):
        count_held_samples(unlearn(tmp_path, (0, 1, 2, 3, 5, 6, 7, 8, 9)), dataset)
    assert count_held_samples(unlearn(tmp_path, (0, 1, 2, 3, 5, 6, 7, 8)), dataset)


def test_the_plan_counts_channels(tmp_path: Path, dataset: Dataset) -> None:
    found = source(tmp_path)
    settings = {"method__ratio": 0.2, "method__scope": "global", "rounds": 2}
    plan = plan_unlearning(found, unlearn(tmp_path, (3, 1), **settings), dataset)
    assert {key: plan[key] for key in plan if key != "clients"} == {
        "classes": [3, 1], "layers": 2, "channels": 16, "pruned": 6, "shares": None, "rounds": 2,
    }  # fmt: skip
    assert [client["client"] for client in plan["clients"]] == [0, 1, 2, 3]
    with pytest.raises(RecipeError, match="asks for 15 of 16 channels, but only 14 can leave"):
        plan_unlearning(
            found, unlearn(tmp_path, (3,), method__ratio=0.95, method__scope="global"), dataset
        )
    with pytest.raises(RecipeError, match="asks for 8 of 16 channels, but only 6 can leave"):
        twice = {"method__ratio": 0.5, "method__scope": "global"}
        plan_unlearning(found, unlearn(tmp_path, (3, 1), **twice), dataset)
    kinds = {"task__partition__kind": "classes", "task__partition__classes_per_client": 1}
    alone = unlearn(tmp_path, (3,), **kinds, task__clients=10, min_clients=10)
    with pytest.raises(DataError, match=r"^9 clients have samples of other .* needs 10"):
        plan_unlearning(found, alone, dataset)


@pytest.mark.parametrize(
    ("classes", "options", "expected"),
    [
        # Of two layers with 8 channels each: a share that rounds to no channel, or to as many as
        # a smaller one, is no trial of its own.
        ((3,), {"max_ratio": 0.5}, [0.1, 0.2, 0.35, 0.45]),
        ((3,), {"max_ratio": 0.07}, [0.07]),
        ((3,), {"max_ratio": 0.2, "scope": "global"}, [0.1, 0.15, 0.2]),
        # Of 16 channels 14 can leave: 7 for either class.
        ((3, 1), {"max_ratio": 0.9, "scope": "global"}, [0.1, 0.15, 0.2, 0.25, 0.35, 0.4, 0.45]),
    ],
)
def test_shares_that_may_be_tried(
    tmp_path: Path, classes: tuple[int, ...], options: dict[str, Any], expected: list[float]
) -> None:
    settings = {f"method__{key}": value for key, value in options.items()}
    recipe = unlearn(tmp_path, classes, method__ratio="auto", **settings)
    found = source(tmp_path)
    assert list_shares(found, recipe) == pytest.approx(expected)
    plan = plan_unlearning(found, recipe, load_data(recipe))
    assert (plan["pruned"], plan["shares"]) == (None, list_shares(found, recipe))


@pytest.mark.parametrize("options", [{"max_ratio": 0.04}, {"min_keep": 8}])
def test_no_share_at_all(tmp_path: Path, options: dict[str, Any]) -> None:
    settings = {f"method__{key}": value for key, value in options.items()}
    recipe = unlearn(tmp_path, (3,), method__ratio="auto", method__scope="global", **settings)
    with pytest.raises(RecipeError, match="no share of the channels up to"):
        list_shares(source(tmp_path), recipe)
