from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import toy_recipe
from driver import begin
from safetensors.torch import load_file

from fpcli.errors import FpError
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
