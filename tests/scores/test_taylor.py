"""The tiny network of the specification, in float64."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fpcli.scores.sample import Sample
from fpcli.scores.taylor import measure_saliency, taylor
from fpcli.structure.layout import Layout
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

IMAGES = [
    [[1, 2, 0, 1], [0, 1, 3, 1], [2, 0, 1, 0], [1, 1, 0, 2]],
    [[0, 1, 1, 0], [2, 1, 0, 1], [1, 0, 2, 1], [0, 1, 1, 1]],
]
CONV1 = [
    [[1, 0, -1], [0, 1, 0], [0, 0, 1]],
    [[0.5, 0.5, 0], [0, 0.5, 0], [0, 0, -0.5]],
    [[-1, 1, 0], [0, 0, 1], [0.2, 0, 0]],
]
CONV2 = [
    [[[0.3, -0.1], [0.2, 0.4]], [[0.1, 0.2], [-0.3, 0.1]], [[0.2, 0.1], [0, 0.1]]],
    [[[-0.2, 0.3], [0.1, 0.1]], [[0.4, -0.1], [0.2, 0.3]], [[-0.1, 0.3], [0.2, -0.2]]],
]
X = torch.tensor(IMAGES, dtype=torch.float64)[:, None]
Y = torch.tensor([0, 1])


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten())
    net = net.double().eval()
    values = {
        "0.weight": torch.tensor(CONV1, dtype=torch.float64)[:, None],
        "0.bias": torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64),
        "2.weight": torch.tensor(CONV2, dtype=torch.float64),
        "2.bias": torch.tensor([0.05, 0.02], dtype=torch.float64),
    }
    net.load_state_dict(values)
    return net


def layout_of(net: nn.Module) -> Layout:
    return trace(deepcopy(net).float(), X[:1].float())


def open_layout(net: nn.Module) -> Layout:
    """Return the layout with the output's group open, which a real layout protects."""
    layout = layout_of(net)
    groups = {name: replace(group, protected=False) for name, group in layout.groups.items()}
    return replace(layout, groups=groups)


@pytest.mark.parametrize(
    ("with_bias", "first", "second"),
    [
        (False, (0.4814029805, 0.1919987443, 0.0615111456), (0.7889142038, 0.5182496187)),
        (True, (0.4980846295, 0.1687083482, 0.0587116962), (0.8051484525, 0.5247433181)),
    ],
)
def test_the_worked_network(
    with_bias: bool, first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    net = network()
    loss = F.cross_entropy(net(X), Y)
    assert loss.item() == pytest.approx(0.7181999133, abs=1e-9)
    loss.backward()
    gradients = {name: weight.grad for name, weight in net.named_parameters()}
    found = measure_saliency(open_layout(net), net.state_dict(), gradients, with_bias=with_bias)
    assert found["0"].tolist() == pytest.approx(first, abs=1e-9)
    assert found["2"].tolist() == pytest.approx(second, abs=1e-9)


def test_a_batch_scores_with_the_bias() -> None:
    net = network()
    found = taylor(layout_of(net), net.state_dict(), Sample(net, [(X, Y)], Classify(2)))
    assert found["0"].tolist() == pytest.approx((0.4980846295, 0.1687083482, 0.0587116962))


def test_batches_average_absolutes_and_leave_the_network_alone() -> None:
    """Each image alone moves the loss in its own direction; the mean of the sizes counts."""
    net = network()
    layout, state = layout_of(net), net.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    one, two = (
        taylor(layout, state, Sample(net, [(X[i : i + 1], Y[i : i + 1])], Classify(2)))["0"]
        for i in (0, 1)
    )
    both = taylor(layout, state, Sample(net, [(X[:1], Y[:1]), (X[1:], Y[1:])], Classify(2)))["0"]
    assert both.tolist() == pytest.approx(((one + two) / 2).tolist())
    whole = taylor(layout, state, Sample(net, [(X, Y)], Classify(2)))["0"]
    assert not torch.allclose(both, whole)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
