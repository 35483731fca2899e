"""Shared fixtures: a small task that exercises residuals, batch norm, dropout and a flatten."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fpcli.engine.process import prepare_libraries

prepare_libraries()
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "bench")]  # for workers too

import pytest  # noqa: E402

from fpcli.engine.process import settle_process  # noqa: E402
from fpcli.recipe.load import load_recipe  # noqa: E402
from fpcli.settings.recipes import Recipe  # noqa: E402

settle_process()

TOY = {
    "task.data": "digits",
    "task.model": "nets:tiny",
    "task.clients": 4,
    "task.partition.kind": "dirichlet",
    "task.partition.alpha": 1.0,
    "local.batch_size": 64,
    "local.lr": 0.05,
    "local.momentum": 0.5,
    "local.weight_decay": 0.001,
    "rounds": 3,
    "checkpoint_every": 1,
    "executor.kind": "inline",
    "seed": 7,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our switches."""
    parser.addoption("--update-traces", action="store_true", help="write tests/traces/*.json anew")


def toy_recipe(method: str, **changes: object) -> Recipe:
    """Return the toy recipe with some dotted keys changed (``__`` stands for a dot)."""
    flags = TOY | {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe(None, flags={"method.name": method} | flags)


@pytest.fixture
def no_figures() -> Iterator[pytest.MonkeyPatch]:
    """Save the time of drawing, which is most of that of a toy run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fpcli.train.federated_run.draw_run", lambda history, folder: [])
        patch.setattr("fpcli.train.fit_run.draw_fit", lambda history, folder: [])
        yield patch


@pytest.fixture
def data_dir() -> Path:
    """Folder with the real MNIST and CIFAR-10, for tests marked `data`."""
    found = os.environ.get("FP_DATA_DIR")
    if not found:
        pytest.skip("set FP_DATA_DIR to the folder that holds MNIST/ and cifar10.npz")
    return Path(found)
