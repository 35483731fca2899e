from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fpcli.scores import activation

IMAGES = torch.tensor(
    [
        [[[1.0, -1], [2, 0]], [[3, 3], [3, 3]]],
        [[[0.0, 0], [1, -3]], [[3, 3], [3, 3.5]]],
    ]
)


def passing() -> nn.Sequential:
    """A convolution that gives its input out, before a batch norm and an activation."""
    conv = nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(2)[:, :, None, None])
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.bias.fill_(5.0)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()


@pytest.mark.parametrize("parts", [(IMAGES,), (IMAGES[:1], IMAGES[1:])], ids=["one", "two"])
@pytest.mark.parametrize(
    ("score", "want"),
    [
        (activation.mean_mean, (0, 3.0625)),
        (activation.mean_std, (1.3090169944, 0.1082531755)),
        (activation.mean_l1, (4, 12.25)),
        (activation.mean_l2, (2.8058836965, 6.1324909960)),
        (activation.var_l2, (0.12701665, 0.01755387)),
    ],
)
def test_the_worked_numbers_before_norm_and_activation(
    task: Callable, score: Callable, want: tuple[float, float], parts: tuple
) -> None:
    assert score(*task(passing(), *parts))["0"].tolist() == pytest.approx(want, abs=2e-6)


def test_a_linear_layers_map_is_a_number(task: Callable) -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    args = task(net, torch.tensor([[1.0, 1.0], [3.0, 2.0]]))
    assert activation.mean_l1(*args)["0"].tolist() == [2.0, 3.0]
    assert activation.mean_std(*args)["0"].tolist() == [0.0, 0.0]
