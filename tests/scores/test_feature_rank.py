from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fpcli.scores.feature_rank import feature_rank


class Plain(nn.Module):
    """Maps that differ in rank before and behind the activation, and a sum that overwrites one."""

    def __init__(self, norm: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.norm, self.act = norm, act
        self.out = nn.Conv2d(2, 2, 4)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        if not self.training:  # which would need what is overwritten here
            x += 1.0
        return self.out(x).flatten(1)


def image() -> Tensor:
    full = torch.eye(4)
    # One row and its negatives: rank 1; two once the activation has cut the signs apart.
    row = torch.tensor([1.0, -1.0, 2.0, -2.0])
    return torch.stack([full, torch.stack([row, -row, row, -row])])[None]


def test_maps_are_taken_behind_the_activation(task: Callable) -> None:
    for act in (torch.relu, nn.ReLU(), nn.ReLU(inplace=True), Tensor.relu):
        assert feature_rank(*task(Plain(nn.Identity(), act), image()))["conv"].tolist() == [4, 2]


def test_without_one_they_are_taken_behind_the_norm(task: Callable) -> None:
    norm = nn.BatchNorm2d(2)
    norm.eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([0.0, 1.0]))
    net = Plain(norm, nn.Identity()).eval()
    # A constant taken off adds a second direction to the second map.
    assert feature_rank(*task(net, image()))["conv"].tolist() == [4, 2]


def test_ranks_average_over_images(task: Callable) -> None:
    net = Plain(nn.Identity(), torch.relu)
    half = image()
    half[0, 0, 2:] = 0
    args = task(net, torch.cat([image(), half]), torch.zeros(2, 2, 4, 4))
    assert feature_rank(*args)["conv"].tolist() == [(4 + 2) / 4, (2 + 2) / 4]
