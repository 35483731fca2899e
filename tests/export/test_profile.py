"""Device profiles: the line, the constant, and the way into `fp train --fleet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fpcli.errors import RecipeError
from fpcli.export.profile import TIMED_DENSITIES, profile_device, step_time
from fpcli.fleet.classes import make_fleet
from fpcli.fleet.clock import train_seconds
from fpcli.fleet.linear import model_measured_time, model_slowest_time
from fpcli.recipe.fleet_file import fleet_text, read_fleet
from fpcli.recipe.load import load_recipe, to_yaml
from fpcli.settings.hardware import DeviceClass, StepTime
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.structure.stopwatch import TimedRun, Times
from fpcli.tasks.classify import Classify
from fpcli.train.setup import build_fleet


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 3))


def scripted(sparse_s: float) -> Any:
    """Return a timer: dense layers take 1 s, sparse ones ``sparse_s`` times density, a step 5 s."""
    left: list[float] = []

    def timer(runs: Sequence[TimedRun]) -> list[Times]:
        if len(runs) == 1:
            return [Times(5.0, 5.0, 1)]
        left[:] = left or TIMED_DENSITIES
        own = sparse_s * left.pop(0)
        return [Times(seconds, seconds, 1) for seconds in (1.0, own)]

    return timer


def test_the_line_goes_through_the_faster_kernels() -> None:
    """Sparse takes as many seconds as its density: 1 / 2000 and 1 / 150 per weight; 5 - 1 - 1."""
    step, whole_s = step_time(net(), (40,), 8, Classify(3), timer=scripted(1.0))
    assert (step.batch_size, whole_s) == (8, 5.0)
    assert step.weight_s["0.weight"] == pytest.approx(1 / 2000, rel=0.1)
    assert step.weight_s["2.weight"] == pytest.approx(1 / 150, rel=0.3)
    whole = step.constant_s + step.weight_s["0.weight"] * 2000 + step.weight_s["2.weight"] * 150
    assert whole == pytest.approx(5.0)


def test_a_weight_costs_nothing_where_dense_always_wins() -> None:
    step, _ = step_time(net(), (40,), 8, Classify(3), timer=scripted(100.0))
    assert step == StepTime(8, 5.0, {"0.weight": 0.0, "2.weight": 0.0})


def test_the_clock_comes_to_the_measured_seconds() -> None:
    found = profile_device("here", net(), (40,), 8, Classify(3), timer=scripted(100.0))
    fleet = make_fleet("x", [found], 0, 0.0, 1)
    assert train_seconds(2150, 8, fleet.nominal(0)) == pytest.approx(5.0)
    assert (found.down, found.up) == (20e6, 10e6)


def test_a_profile_comes_back_from_its_file_and_from_a_recipe(tmp_path: Path) -> None:
    found = profile_device("here", net(), (40,), 8, Classify(3), timer=scripted(1.0))
    path = tmp_path / "here.yaml"
    path.write_text(fleet_text([found], "a remark"))
    assert path.read_text().startswith("# a remark\nfleet: 2\n")
    (back,) = (DeviceClass(**{**item, "step": StepTime(**item["step"])})
               for item in read_fleet(path))  # fmt: skip
    assert found.step is not None and back.step is not None
    assert back.step.constant_s == pytest.approx(found.step.constant_s, rel=1e-4)
    assert back.step.weight_s == pytest.approx(found.step.weight_s, rel=1e-4)
    assert replace(back, step=None) == replace(found, step=None, flops=back.flops)
    recipe = load_recipe(None, flags={"fleet.profile": str(path)})
    assert build_fleet(recipe).level(3).step == back.step
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(to_yaml(recipe))
    assert load_recipe(resolved) == recipe


@pytest.mark.parametrize(
    "step",
    ["3", "{batch_size: 0, constant_s: 1, weight_s: {}}", "{batch_size: 1, constant_s: 1}",
     "{batch_size: 1, constant_s: 1, weight_s: {a: -1}}",
     "{batch_size: 1, constant_s: 1, weight_s: {}, more: 1}"],
)  # fmt: skip
def test_wrong_steps_in_a_file(step: str, tmp_path: Path) -> None:
    path = tmp_path / "here.yaml"
    path.write_text(f"devices:\n- device: jetson-tx2\n  step: {step}\n")
    with pytest.raises(RecipeError, match=r"here\.yaml:3: `step` must be"):
        read_fleet(path)


LAYOUT = Layout(
    {
        "a": TensorSpec((4, 5), True, 1.0),
        "b": TensorSpec((3, 2), True, 1.0),
        "bias": TensorSpec((7,), True),
    },
    {},
)


def test_measured_seconds_of_a_round_by_hand() -> None:
    """10 steps of 2 + 0.5 x 6 (b has no mask), 0.1 per weight of a; 27 + 6 more floats travel.

    A float there and back takes 32 bits / 32 + 32 bits / 64 = 1.5 s.
    """
    step = StepTime(8, 2.0, {"a": 0.1, "b": 0.5})
    item = DeviceClass("x", 1.0, 32.0, 64.0, 1, step=step)
    fleet = make_fleet("x", [item], 0, 0.0, 2)
    time = model_measured_time(LAYOUT, ["a"], fleet.nominal(0), step, 80.0)
    assert time.constant_s == pytest.approx(10 * (2.0 + 3.0) + 1.5 * 13)
    assert time.weight_s == {"a": pytest.approx(10 * 0.1 + 1.5)}
    assert model_slowest_time(LAYOUT, ["a"], fleet, [8.0, 80.0]) == time
    with pytest.raises(RecipeError, match="says nothing about `bias`"):
        model_measured_time(LAYOUT, ["bias"], fleet.nominal(0), step, 80.0)


def test_a_real_profile_has_every_layer() -> None:
    torch.manual_seed(0)
    step, whole_s = step_time(net(), (40,), 4, Classify(3))
    assert set(step.weight_s) == {"0.weight", "2.weight"}
    assert step.constant_s > 0 and whole_s > 0
