from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fpcli.errors import NeedError, RecipeError, UsageError
from fpcli.scores import SCORES
from fpcli.scores.magnitude import l1
from fpcli.scores.sample import Sample, needs_sample, score, score_of_weights
from fpcli.structure.trace import trace

WEIGHTS_ONLY = {"l1", "l2", "bn-scale", "largest"}


class Net(nn.Module):
    """A residual sum, batch norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.hidden, self.out = nn.Linear(64, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.branch(x)
        return self.out(torch.relu(self.hidden(x.flatten(1))))


@pytest.fixture
def scored(task: Callable) -> tuple:
    torch.manual_seed(0)
    return task(Net().eval(), torch.rand(3, 1, 4, 4), torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("name", SCORES)
def test_every_score_judges_every_channel(scored: tuple, name: str) -> None:
    layout, values, sample = scored
    before = {key: value.clone() for key, value in values.items()}
    found = score(name, layout, values, sample)
    assert {group: x.shape for group, x in found.items()} == {"stem": (4,), "hidden": (6,)}
    assert all(bool(x.isfinite().all()) for x in found.values())
    again = score(name, layout, values, sample)
    assert all(torch.equal(found[group], again[group]) for group in found)
    assert all(torch.equal(values[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", SCORES)
def test_what_needs_more_than_weights_says_so(scored: tuple, name: str) -> None:
    layout, values, _ = scored
    assert needs_sample(name) == (name not in WEIGHTS_ONLY)
    if name in WEIGHTS_ONLY:
        assert score_of_weights(name, layout, values).keys() == {"stem", "hidden"}
        return
    with pytest.raises(NeedError, match="validation data") as caught:
        score(name, layout, values)
    assert "l1, l2" in caught.value.hint
    with pytest.raises(RecipeError, match="a server has not"):
        score_of_weights(name, layout, values)


def test_layers_that_share_a_group_add_up(scored: tuple) -> None:
    layout, values, sample = scored
    whole = score("activation-mean-l1", layout, values, sample)["stem"]
    model = sample.module(values)
    x = torch.cat([x for x, _ in sample.batches])
    stem = model.stem(x)
    branch = model.branch(torch.relu(model.norm(stem)))
    parts = [y.abs().sum((2, 3)).mean(0) for y in (stem, branch)]
    assert torch.allclose(whole.float(), parts[0] + parts[1], rtol=1e-5)


def test_controls(scored: tuple) -> None:
    layout, values, sample = scored
    assert torch.equal(score("largest", layout, values)["stem"], -l1(layout, values)["stem"])
    one, two = (
        score("random", layout, values, Sample(sample.template, (), sample.task, seed))["stem"]
        for seed in (0, 1)
    )
    assert not torch.equal(one, two)


def test_batch_norms_scale_where_there_is_one() -> None:
    net = nn.Sequential(
        nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([-3.0, 1.0]))
        net[3].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, -1.0]]))
    layout = trace(net.eval(), torch.zeros(1, 2))
    found = score("bn-scale", layout, net.state_dict())
    assert {name: x.tolist() for name, x in found.items()} == {"0": [3.0, 1.0], "3": [0.5, 1.5]}
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(RecipeError, match="batch norm"):
        score("bn-scale", trace(plain, torch.zeros(1, 2)), plain.state_dict())


def test_an_unknown_score_is_named() -> None:
    with pytest.raises(UsageError, match="tailor") as caught:
        needs_sample("tailor")
    assert "taylor" in caught.value.hint
