from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import toy_recipe
from driver import begin
from safetensors.torch import load_file

from fpcli.errors import FpError
from fpcli.models.build import build
from fpcli.recipe.load import load_recipe
from fpcli.settings.recipes import FitRecipe
from fpcli.tasks.classify import Classify
from fpcli.train.fit_run import prepare_fit
from fpcli.train.setup import prepare_run

pytestmark = pytest.mark.usefixtures("no_figures")


def test_a_run_starts_from_a_trained_model(tmp_path: Path) -> None:
    task = {"task__data": "digits", "task__model": "digits-cnn", "rounds": 1}
    begin(tmp_path, "first", "fedavg", **task)
    setup = prepare_run(
        toy_recipe("fedavg", **task, task__start=str(tmp_path / "first")), tmp_path / "memory"
    )
    final = load_file(tmp_path / "first" / "final" / "model.safetensors")
    assert all(torch.equal(setup.values[name], value) for name, value in final.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__model": "vgg11@0.05"}, "holds `digits-cnn`, not `vgg11@0.05`"),
        ({"task__start": "nowhere"}, "nowhere does not exist"),
        ({"method__name": "uniform"}, "is pruned, and `uniform` chooses itself"),
    ],
)
def test_a_start_that_does_not_fit(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    task = {"task__data": "digits", "task__model": "digits-cnn", "rounds": 1}
    begin(tmp_path, "first", "unlearn", **task)
    changes = {"task__start": str(tmp_path / "first"), **task, **changes}  # type: ignore[dict-item]
    method = changes.pop("method__name", "fedavg")
    with pytest.raises(FpError, match=message):
        prepare_run(toy_recipe(method, **changes), tmp_path / "memory")


def test_training_starts_from_weights_of_a_file(tmp_path: Path) -> None:
    task = {"task__data": "digits", "task__model": "digits-cnn"}
    own = build("digits-cnn", (1, 8, 8), Classify(10), seed=5)
    torch.save({"model": own.state_dict(), "epoch": 3}, tmp_path / "own.pt")
    start = {"task__start": str(tmp_path / "own.pt"), **task}
    setup = prepare_run(toy_recipe("fedmp", **start), tmp_path / "memory")
    assert all(torch.equal(setup.values[key], x) for key, x in own.state_dict().items())
    assert "the weights are read from `model`" in setup.fed.dataset.notes[-1]
    recipe = load_recipe(
        None, flags={k.replace("__", "."): v for k, v in start.items()}, cls=FitRecipe
    )
    central = prepare_fit(recipe)
    assert all(
        torch.equal(central.model.state_dict()[key], x) for key, x in own.state_dict().items()
    )
    assert central.dataset.notes == setup.fed.dataset.notes


def test_a_new_head_has_the_initial_values_of_the_seed(tmp_path: Path) -> None:
    wide = build("digits-cnn", (1, 8, 8), Classify(100), seed=5)
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    task = {"task__data": "digits", "task__model": "digits-cnn"}
    start = {"task__start": str(tmp_path / "wide.pt"), **task}
    with pytest.raises(FpError, match="`fc2` has 100 outputs, and the data 10 classes"):
        prepare_run(toy_recipe("fedavg", **start), tmp_path / "memory")
    fresh = prepare_run(toy_recipe("fedavg", **task), tmp_path / "memory").values
    found = prepare_run(toy_recipe("fedavg", **start, task__head="new"), tmp_path / "memory").values
    for name, value in found.items():
        wanted = fresh[name] if name.startswith("fc2") else wide.state_dict()[name]
        assert torch.equal(value, wanted), name


def test_a_new_head_needs_weights_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(FpError, match="which is for weights of a file"):
        prepare_run(toy_recipe("fedavg", task__head="new"), tmp_path / "memory")
    with pytest.raises(FpError, match=r"no file .*absent\.pt"):
        prepare_run(toy_recipe("fedavg", task__start="absent.pt"), tmp_path / "memory")
