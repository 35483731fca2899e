"""Batch-norm statistics against torch's own and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fpcli.structure.norms import merge_statistics, observe_norms

BATCHES = [torch.tensor(values)[:, None] for values in ([1.0, 3.0], [5.0, 7.0], [2.0, 4.0, 9.0])]


@pytest.mark.parametrize("clients", [[[0, 1, 2]], [[0], [1, 2]], [[2], [0], [1]]])
@pytest.mark.parametrize(
    ("is_pooled", "mean", "var"),
    [(False, 13 / 3, (2 + 2 + 13) / 3), (True, 31 / 7, (185 - 31**2 / 7) / 6)],
)
def test_three_batches(clients: list[list[int]], is_pooled: bool, mean: float, var: float) -> None:
    """Batch means 2, 6, 5 and unbiased variances 2, 2, 13; sum 31 and squares 185 of 7 values."""
    told = [
        observe_norms(
            nn.Sequential(nn.BatchNorm1d(1)),
            [(BATCHES[number], torch.empty(0)) for number in numbers],
            is_pooled=is_pooled,
        )
        for numbers in clients
    ]
    statistics = merge_statistics(told, is_pooled=is_pooled)
    assert statistics["0.running_mean"].item() == pytest.approx(mean)
    assert statistics["0.running_var"].item() == pytest.approx(var)


def test_the_same_as_torchs_cumulative_average() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(5, 2, 4, 4, generator=generator) for _ in range(3)]

    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.ReLU()
        )

    told = observe_norms(net(), [(x, torch.empty(0)) for x in batches], is_pooled=False)
    model = net().eval()
    for norm in (model[0], model[2]):
        norm.train().momentum = None
    for x in batches:
        model(x)
    for name, got in merge_statistics([told], is_pooled=False).items():
        assert torch.allclose(got, model.state_dict()[name], atol=1e-6), name


def test_who_has_not_seen_a_layer_leaves_it_to_the_others() -> None:
    """Whoever is named first: the three batches of the test above, and a client without any."""
    batches = [(x, torch.empty(0)) for x in BATCHES]
    seen = observe_norms(nn.Sequential(nn.BatchNorm1d(1)), batches, is_pooled=False)
    for told in ([{}, seen], [seen, {}], [{}, seen, {}]):
        statistics = merge_statistics(told, is_pooled=False)
        assert statistics["0.running_mean"].item() == pytest.approx(13 / 3)
        assert statistics["0.running_var"].item() == pytest.approx(17 / 3)


def test_norms_without_statistics_are_left_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2))
    assert observe_norms(model, [(torch.ones(3, 2), torch.empty(0))], is_pooled=False) == {}
