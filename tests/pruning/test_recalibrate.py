from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from prunings import context, trained_of
from torch import nn

from fpcli.data.datasets import Dataset
from fpcli.data.split import Split
from fpcli.engine.trained import Trained
from fpcli.errors import DataError
from fpcli.pruning.filters import Filters
from fpcli.pruning.prune import prune_in_steps
from fpcli.pruning.pruner import PruneTarget
from fpcli.pruning.recalibrate import has_running_norms, recalibrate_norms


@pytest.fixture
def net() -> Trained:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten()
    return trained_of(nn.Sequential(*layers, nn.Linear(256, 10)), (1, 8, 8))


def test_statistics_are_those_of_what_the_cut_network_sends(net: Trained, digits: Dataset) -> None:
    """All training images, in batches: mean and unbiased variance over all their pixels at once."""
    px = context(digits, recalibrate=1000)
    cut = Filters().cut(px, net, PruneTarget("ratio", 0.5))
    again = recalibrate_norms(px, cut, purpose="recalibrate/1")
    small = again.module()
    assert isinstance(small, nn.Sequential)
    x = small[0](digits.normalise(digits.train.images)).transpose(0, 1).flatten(1)
    norm = small[1]
    torch.testing.assert_close(norm.running_mean, x.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, x.var(1), rtol=1e-4, atol=1e-5)
    for name, value in cut.values.items():
        assert torch.equal(value, again.values[name]) == ("running" not in name), name


def test_the_same_samples_are_drawn_again(net: Trained, digits: Dataset) -> None:
    px = context(digits, recalibrate=1)
    one, two, three = (recalibrate_norms(px, net, purpose=name).values for name in "aab")
    assert torch.equal(one["1.running_mean"], two["1.running_mean"])
    assert not torch.equal(one["1.running_mean"], three["1.running_mean"])


def test_every_step_is_followed_by_one(net: Trained, digits: Dataset) -> None:
    events = list[str]()
    px = context(digits, recalibrate=1, epochs=1, log=lambda **e: events.append(e["event"]))
    result = prune_in_steps(Filters(), px, net, PruneTarget("ratio", 0.5), num_steps=2)
    assert events == ["before", *["cut", "recalibrated", "epoch"] * 2, "after"]
    assert result.recalibrated is not None
    assert result.recalibrated.cost == result.pruned.cost
    assert result.recalibrated.validation != result.pruned.validation


def test_one_sample_has_no_variance(net: Trained, digits: Dataset) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))
    lone = replace(digits, train=Split(digits.train.images[:1], digits.train.labels[:1]))
    with pytest.raises(DataError, match="batch norm"):
        recalibrate_norms(context(lone, recalibrate=1), trained_of(flat, (1, 8, 8)), purpose="a")


def test_only_running_statistics_can_be_measured_again() -> None:
    assert has_running_norms(nn.Sequential(nn.BatchNorm1d(2)))
    assert not has_running_norms(nn.BatchNorm1d(2, track_running_stats=False))
    assert not has_running_norms(nn.GroupNorm(1, 2))
