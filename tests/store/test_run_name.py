from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fpcli.recipe.load import find_recipe, list_shipped, load_any, load_recipe, to_yaml
from fpcli.settings.recipes import FitRecipe, Recipe
from fpcli.store.run_folder import RunFolder
from fpcli.store.run_name import choose_name, explain_taken, number_name

PLAIN = {"task.data": "digits", "method.name": "fedmp", "seed": 3}


def name_of(**changes: object) -> str:
    flags = {key.replace("__", "."): str(value) for key, value in changes.items()}
    return choose_name(load_recipe(None, flags=PLAIN | flags))


@pytest.mark.parametrize(
    ("data", "model", "name"),
    [
        ("digits", "digits-cnn", "fedmp-digits-digits-cnn-s3"),
        ("npz:../home/me/my set.npz", "torchvision:vgg11", "fedmp-npz-my-set-torchvision-vgg11-s3"),
        ("nets:data", "nets:tiny", "fedmp-nets-data-nets-tiny-s3"),
        ("npz:" + "x" * 300, "lenet5", "fedmp-npz-" + "x" * 87 + "-s3"),
        ("npz:/.npz", "lenet5", "fedmp-npz-.npz-lenet5-s3"),
    ],
)
def test_a_plain_run_is_called_by_method_data_and_model(
    tmp_path: Path, data: str, model: str, name: str
) -> None:
    recipe = load_recipe(None, flags=PLAIN | {"task.data": data, "task.model": model})
    assert choose_name(recipe) == name
    assert RunFolder.create(tmp_path, name, recipe).path == tmp_path / name


def test_partition_fleet_and_all_else_tell_runs_apart() -> None:
    front = "fedmp-digits-digits-cnn"
    assert name_of(task__partition__kind="dirichlet") == f"{front}-dirichlet-s3"
    assert name_of(fleet__profile="phones") == f"{front}-phones-s3"
    both = {"task__partition__kind": "shards", "fleet__profile": "ten-speed"}
    assert name_of(**both) == f"{front}-shards-ten-speed-s3"
    name = name_of(**both, local__lr=0.05)
    assert re.fullmatch(front + r"-shards-ten-speed-[0-9a-f]{6}-s3", name)
    others = [
        {"local__lr": 0.05},
        {"local__lr": 0.06},
        {"method__split_above": 0.1},
        {"task__clients": 20},
        {"task__partition__alpha": 0.3},
        {"executor__device": "cuda"},
    ]
    names = [name_of(**changes) for changes in others]
    assert len({front + "-s3", *names}) == 7
    assert names == [name_of(**changes) for changes in others]


def test_what_is_said_but_usual_adds_nothing() -> None:
    usual = {"task__partition__kind": "iid", "fleet__profile": "two-speed", "local__lr": "0.1"}
    assert name_of(**usual) == "fedmp-digits-digits-cnn-s3"
    # How long and where a run computes leaves its bits alone, and more rounds go on with a run.
    assert name_of(rounds=7, executor__workers=2, target="accuracy=0.9") == name_of()
    # What a method brings along is usual for it.
    assert choose_name(load_recipe(None, flags={"method.name": "subfedavg"})) == (
        "subfedavg-digits-digits-cnn-s0"
    )


def test_a_fleet_file_is_told_by_its_name_and_its_content(tmp_path: Path) -> None:
    names = set()
    for share in (1, 2):
        path = tmp_path / str(share) / "my lab.yaml"
        path.parent.mkdir()
        path.write_text(
            "fleet: 2\ndevices:\n  - {device: raspberry-pi-4, share: 1}\n"
            f"  - {{device: jetson-tx2, share: {share}}}\n"
        )
        names.add(name_of(fleet__profile=path))
    assert len(names) == 2
    assert all(re.fullmatch(r"fedmp-digits-digits-cnn-my-lab-[0-9a-f]{6}-s3", n) for n in names)


def test_one_place_is_named_by_fit() -> None:
    assert choose_name(load_recipe(None, cls=FitRecipe)) == "fit-digits-digits-cnn-s0"
    longer = load_recipe(None, flags={"fit.epochs": "5"}, cls=FitRecipe)
    assert re.fullmatch(r"fit-digits-digits-cnn-[0-9a-f]{6}-s0", choose_name(longer))


def test_long_names_keep_their_end(tmp_path: Path) -> None:
    path = tmp_path / ("f" * 200 + ".yaml")
    path.write_text("fleet: 2\ndevices:\n  - {device: raspberry-pi-4, share: 1}\n")
    name = name_of(task__data="npz:" + "x" * 200, task__model="lenet5", fleet__profile=path)
    assert len(name) == 100
    assert re.search(r"x-f{30}-[0-9a-f]{6}-s3$", name)


def test_numbers_begin_with_two(tmp_path: Path) -> None:
    assert number_name(tmp_path, "a") == "a"
    (tmp_path / "a").mkdir()
    assert number_name(tmp_path, "a") == "a-2"
    (tmp_path / "a-2").touch()
    assert number_name(tmp_path, "a") == "a-3"


def run(folder: Path, recipe: Recipe | FitRecipe) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    return folder


def test_a_taken_name_of_the_same_recipe_offers_to_go_on(tmp_path: Path) -> None:
    path = run(tmp_path / "my run", Recipe())
    hint = explain_taken(path, Recipe()).hint
    assert hint == (
        f"it has the same recipe: go on with `fp train --resume '{path}'`, or make another by "
        "`--name my run-2`"
    )
    longer = load_recipe(None, flags={"rounds": "60", "task.model": "nets:tiny"})
    path = run(tmp_path / "b", load_recipe(None, flags={"task.model": "nets:tiny"}))
    words = f"`fp train --resume {path} --set rounds=60 --model nets:tiny`"
    assert words in explain_taken(path, longer).hint
    path = run(tmp_path / "c", replace(FitRecipe(), threads=1))
    assert f"`fp fit --resume {path}`" in explain_taken(path, FitRecipe()).hint
    assert f"`fp unlearn --resume {path}`" in explain_taken(path, FitRecipe(), "unlearn").hint


def test_a_taken_name_of_another_recipe_offers_another_name(tmp_path: Path) -> None:
    path = run(tmp_path / "a", load_recipe(None))
    other = load_recipe(None, flags={"local.lr": "0.05", "task.clients": "5", "rounds": "9"})
    assert explain_taken(path, other).hint == (
        "it has another recipe (task.clients, local.lr): take `--name a-2`, let `--name auto` "
        "find one, or replace it with `--force`"
    )
    assert "(another command)" in explain_taken(run(tmp_path / "f", FitRecipe()), Recipe()).hint
    for content in (None, "seed: [", "a: &a [*a]"):
        (tmp_path / "b").mkdir(exist_ok=True)
        if content:
            (tmp_path / "b" / "recipe.yaml").write_text(content)
        hint = explain_taken(tmp_path / "b", other).hint
        assert hint == "choose another name, such as `--name b-2`"


@pytest.mark.parametrize("path", list_shipped(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_a_recipe_starts_from_is_called_as_another_leaves_it(path: Path) -> None:
    _, recipe = load_any(path)
    if isinstance(recipe, Recipe) and recipe.task.start:
        sources = {"digits": "fedavg/digits", "cifar10": "unlearn/cifar10-original"}
        _, original = load_any(find_recipe(sources[path.stem]))
        assert isinstance(original, Recipe)
        assert recipe.task.start == f"runs/{choose_name(original)}"
