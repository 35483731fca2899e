"""Choosing kernels, with a timer that needs no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from fpcli.structure.choice import (
    DENSITIES,
    Limits,
    find_limit,
    find_limits,
    list_sparse_layers,
    list_within,
    sparsify,
)
from fpcli.structure.packed_kernel import PackedLinear
from fpcli.structure.stopwatch import TimedRun, Times


class Script:
    """Say that sparse takes ``ratio`` times what dense takes; the n-th question the n-th ratio."""

    def __init__(self, *ratios: float) -> None:
        self.ratios, self.asked = list(ratios), 0

    def __call__(self, runs: Sequence[TimedRun]) -> list[Times]:
        for run in runs:
            run()
        ratio = self.ratios[min(self.asked, len(self.ratios) - 1)]
        self.asked += 1
        return [Times(seconds, seconds, 1) for seconds in (1.0, ratio)]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3))
    with torch.no_grad():
        for number in (0, 2):
            model[number].weight[:, ::2] = 0.0
    return model


X = torch.ones(4, 8)


def test_every_layer_is_decided_by_its_own_measurement() -> None:
    model = net()
    want = model(X)
    timer = Script(0.5, 2.0)
    found, choices = sparsify(model, None, X, timer=timer)
    assert [(c.name, c.density, c.sparse_s, c.is_sparse) for c in choices] == [
        ("0.weight", 0.5, 0.5, True), ("2.weight", 0.5, 2.0, False),
    ]  # fmt: skip
    assert timer.asked == 2, "a whole layer is not asked"
    assert [isinstance(layer, PackedLinear) for layer in found] == [True, False, False, False]
    torch.testing.assert_close(found(X), want, rtol=1e-5, atol=1e-6)


def test_always_measures_nothing() -> None:
    timer = Script(9.0)
    found, choices = sparsify(net(), None, X, "always", timer=timer)
    assert timer.asked == 0
    assert all(choice.is_sparse for choice in choices)
    assert isinstance(found[2], PackedLinear)


def test_masks_say_more_than_zeros() -> None:
    """A weight that is 0 by chance is alive; a mask for another tensor does not matter."""
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[:, 0] = False
    _, choices = sparsify(net(), {"0.weight": mask, "other": mask}, X, timer=Script(0.5))
    assert [(c.name, c.density) for c in choices] == [("0.weight", 0.875)]


def test_layers_keep_the_mode_and_note_what_they_meet() -> None:
    model = net().train()
    found = list_sparse_layers(model, X)
    assert model.training
    assert {name: tuple(layer.example.shape) for name, layer in found.items()} == {
        "0.weight": (4, 8), "2.weight": (4, 6), "3.weight": (4, 6),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "want"),
    [((0.5, 0.7, 0.8, 0.95), 0.05), ((1.0,), 0.0), ((0.5,), DENSITIES[0])],
)
def test_a_limit_is_searched_from_the_sparsest_on(ratios: Any, want: float) -> None:
    timer = Script(*ratios)
    (layer, *_) = list_sparse_layers(net(), X).values()
    assert find_limit(layer, "train", timer=timer) == want
    assert timer.asked == (len(DENSITIES) if want == DENSITIES[0] else len(ratios))


def test_equal_layers_are_measured_once() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    timer = Script(2.0)
    found = find_limits(model, torch.ones(2, 5), "evaluate", timer=timer)
    assert found == {"0.weight": 0.0, "1.weight": 0.0}
    assert timer.asked == 1


def test_the_real_stopwatch_decides_something() -> None:
    _, choices = sparsify(net(), None, X)
    assert all(c.is_sparse == (c.sparse_s < 0.9 * c.dense_s) and c.dense_s > 0 for c in choices)


def test_no_limit_means_dense() -> None:
    masks = {"a": torch.tensor([True, False])}
    assert list_within(masks, Limits().train) == set()
    assert list_within(masks, {"a": 0.4}) == set()
    assert list_within(masks, {"a": 0.5}) == {"a"}
