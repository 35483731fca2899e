"""Runs of the toy task that are to forget, for tests of what comes before the forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import toy_recipe
from driver import begin, digits_file

from fpcli.settings.recipes import Recipe
from fpcli.store.run_folder import RunFolder
from fpcli.unlearn.original import Original, read_original


def finished(runs: Path, name: str = "run", method: str = "fedavg", **changes: Any) -> Recipe:
    """Train a run for one round, and return its recipe."""
    settings = {"task__data": digits_file(runs), "rounds": 1, **changes}
    begin(runs, name, method, **settings)
    return toy_recipe(method, **settings)


def source(runs: Path, **changes: Any) -> Original:
    """Train a run called `run`, and return it as the start of an unlearning."""
    return read_original(RunFolder(runs / "run"), finished(runs, **changes))


def unlearn(runs: Path, classes: tuple[int, ...], **changes: Any) -> Recipe:
    """Return the recipe of an unlearning of that run."""
    return toy_recipe(
        "unlearn", task__data=digits_file(runs), task__withhold=list(classes),
        task__start=str(runs / "run"), **changes,
    )  # fmt: skip
