"""Sparse kernels in a run: same results, one measurement, kept in the folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.types import ServerState
from fpcli.errors import RecipeError, ResumeError
from fpcli.structure import sparse_kernels
from fpcli.structure.stopwatch import TimedRun, Times
from fpcli.train.kernels import KERNELS_FILE, add_kernels
from fpcli.train.setup import Setup, prepare_run

QUICK = {"method__ip_passes": 21, "method__ip_interval": 5, "rounds": 2}


def setup_of(tmp_path: Path, **changes: Any) -> Setup:
    return prepare_run(toy_recipe("prunefl", **QUICK, **changes), tmp_path / "memory")


def play(setup: Setup) -> ServerState:
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    *_, (last, _) = server.play(setup.fed, state, executor, totals)
    return last


def faster(runs: Sequence[TimedRun]) -> list[Times]:
    return [Times(seconds, seconds, 1) for seconds in (1.0, 0.5)]


def test_off_changes_nothing(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    assert add_kernels(setup, tmp_path, print) is setup
    assert not (tmp_path / KERNELS_FILE).exists()


def test_always_trains_and_judges_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = play(setup_of(tmp_path / "a"))
    made: list[str] = []
    original = sparse_kernels.make_sparse
    monkeypatch.setattr(
        sparse_kernels,
        "make_sparse",
        lambda *a: (made.append(type(a[0]).__name__), original(*a))[1],
    )
    setup = add_kernels(setup_of(tmp_path / "b", executor__sparse="always"), tmp_path, print)
    ours = play(setup)
    assert {"Linear", "Conv2d"} <= set(made)
    for name, mask in plain.support.mask.items():
        assert torch.equal(ours.support.mask[name], mask)
    for name, value in plain.values.items():
        torch.testing.assert_close(ours.values[name], value, rtol=1e-3, atol=1e-4)


def test_auto_is_measured_once_and_kept(tmp_path: Path) -> None:
    told: list[str] = []
    setup = setup_of(tmp_path, executor__sparse="auto")
    found = add_kernels(setup, tmp_path, told.append, timer=faster)
    assert found.fed.sparse == found.site.sparse
    assert set(found.fed.sparse.train.values()) == {0.5}
    assert "training: " in told[0] and "up to 50%" in told[0]
    stored = json.loads((tmp_path / KERNELS_FILE).read_text())
    assert stored["evaluate"] == found.fed.sparse.evaluate

    def never(runs: Sequence[TimedRun]) -> list[Times]:
        raise AssertionError("measured again")

    again = add_kernels(setup, tmp_path, told.append, timer=never)
    assert again.fed.sparse == found.fed.sparse
    assert len(told) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"train": {"a": 2}, "evaluate": {}}', "[1]"])
def test_a_damaged_file(text: str, tmp_path: Path) -> None:
    (tmp_path / KERNELS_FILE).write_text(text)
    with pytest.raises(ResumeError, match=KERNELS_FILE):
        add_kernels(setup_of(tmp_path, executor__sparse="auto"), tmp_path, print)


def test_another_device_is_refused(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, executor__sparse="auto")
    choice = replace(setup.recipe.executor, device="cuda")
    setup = replace(setup, recipe=replace(setup.recipe, executor=choice))
    with pytest.raises(RecipeError, match=r"executor\.sparse"):
        add_kernels(setup, tmp_path, print)
