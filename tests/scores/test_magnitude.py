from __future__ import annotations

import pytest
import torch
from torch import nn

from fpcli.scores import SCORES
from fpcli.scores.magnitude import l1, l2
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.trace import trace


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 4, 1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.a(x)
        return self.out(self.up(x + self.b(x)))


def test_layers_of_a_group_add_up_and_the_output_has_no_score():
    model = Residual()
    layout = trace(model, torch.randn(1, 1, 4, 4))
    values = {name: x.detach() for name, x in model.state_dict().items()}
    a, b, up = values["a.weight"], values["b.weight"], values["up.weight"]
    got = l1(layout, values)
    assert list(got) == ["a", "up"]
    assert torch.allclose(got["a"], a.abs().sum((1, 2, 3)) + b.abs().sum((1, 2, 3)))
    assert torch.allclose(got["up"], up.abs().sum((0, 2, 3)))
    squares = a.square().sum((1, 2, 3)) + b.square().sum((1, 2, 3))
    assert torch.allclose(l2(layout, values)["a"], squares.sqrt())


def test_biases_do_not_count():
    model = Residual()
    layout = trace(model, torch.randn(1, 1, 4, 4))
    before = l1(layout, model.state_dict())
    with torch.no_grad():
        model.a.bias.add_(100)
    assert torch.equal(before["a"], l1(layout, model.state_dict())["a"])


def test_a_channel_with_several_filters_scores_their_sum():
    member = Member("w", 0, torch.tensor([[0, 2], [1, 3]]), produces=True)
    layout = Layout({"w": TensorSpec((4, 1), True)}, {"g": Group("g", 2, (member,))})
    values = {"w": torch.tensor([[1.0], [2.0], [-3.0], [4.0]])}
    assert l1(layout, values)["g"].tolist() == [4.0, 6.0]
    assert l2(layout, values)["g"].tolist() == pytest.approx([10**0.5, 20**0.5])


def test_names_are_registered():
    assert {"l1", "l2"} <= set(SCORES)
