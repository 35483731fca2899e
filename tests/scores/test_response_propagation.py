"""Importance propagation: numbers worked out by hand, and what must hold of any network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fpcli.errors import RecipeError
from fpcli.scores.response_propagation import (
    _Absolute,
    inf_fs,
    ones,
    ones_out,
    score_by_propagation,
    score_kept_only,
    score_maps,
    start_at_output,
    start_from,
)

W1 = [[1.0, -2.0, 0.0], [0.5, 0.5, -1.0], [0.0, 1.0, 1.0]]
W2 = [[2.0, -1.0, 0.0], [0.0, 1.0, -3.0]]
W3 = [[1.0, -1.0], [-2.0, 0.5]]


def linear(weight: list[list[float]], *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer


def fully_connected() -> nn.Sequential:
    return nn.Sequential(linear(W1), nn.ReLU(), linear(W2), nn.ReLU(), linear(W3)).eval()


def flat(scores: dict[str, Tensor], name: str) -> list[float]:
    return scores[name].flatten().tolist()


def test_fully_connected() -> None:
    scores = score_maps(fully_connected(), torch.zeros(1, 3), ["0", "2"])
    assert flat(scores, "2") == [3.0, 1.5]
    assert flat(scores, "0") == [6.0, 4.5, 4.5]
    assert flat(scores, "") == [8.25, 18.75, 9.0]


def test_convolution() -> None:
    conv = nn.Conv2d(1, 2, 2)
    head = linear([[1, 0, 0, 1, 2, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, -2]])
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[1.0, -1], [0, 2]]], [[[0.5, 0], [0, -0.5]]]]))
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head).eval()
    scores = score_maps(net, torch.zeros(1, 1, 3, 3), ["0"])
    assert scores["0"][0].tolist() == [[[1, 1], [1, 1]], [[2, 0], [0, 2]]]
    assert scores["0"][0].sum((1, 2)).tolist() == [4.0, 4.0]
    assert scores[""][0, 0].tolist() == [[2, 2, 1], [1, 6, 3], [0, 2, 3]]


def test_stride_and_padding_give_the_exact_input_size() -> None:
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[1.0, -0.75, 0.5], [0.25, 0, -0.25], [0.5, 0.75, -1]]]]))
    net = nn.Sequential(conv, nn.Flatten(), linear([[1.0, 2, 3, 4]])).eval()
    scores = score_maps(net, torch.zeros(1, 1, 4, 4), ["0"])
    assert scores["0"][0, 0].tolist() == [[1, 2], [3, 4]]
    want = [[0, 0.75, 0, 0.5], [3, 7.5, 4.5, 4], [0, 1.75, 0, 1], [2.25, 5, 3, 4]]
    assert scores[""][0, 0].tolist() == want


def test_batch_norm_is_a_factor() -> None:
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -0.5]))
        norm.bias.fill_(9.0)
        norm.running_mean.fill_(5.0)
        norm.running_var.copy_(torch.tensor([3.99999, 0.24999]))
    net = nn.Sequential(norm, linear([[1.0, 0.0], [0.0, 1.0]])).eval()
    assert score_maps(net, torch.zeros(1, 2), [])[""].tolist()[0] == pytest.approx([1, 1])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a1 = linear([[1.0, 0.0], [2.0, -1.0]])
        self.a2 = linear([[0.0, 1.0], [1.0, 1.0]])
        self.out = linear([[1.0, -2.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.a2(torch.relu(self.a1(x))))


def test_both_ways_of_a_sum_add_up() -> None:
    scores = score_maps(Residual().eval(), torch.zeros(1, 2), ["a1", "a2"])
    assert flat(scores, "a2") == [1.0, 2.0]
    assert flat(scores, "a1") == [2.0, 3.0]
    assert flat(scores, "") == [9.0, 5.0]


def test_maximum_pooling_shares_evenly_and_padding_takes_no_part() -> None:
    head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), linear([[4.0]])).eval()
    assert flat(score_maps(head, torch.zeros(1, 1, 2, 2), []), "") == [1.0] * 4
    padded = nn.Sequential(nn.MaxPool2d(2, padding=1), nn.Flatten(), linear([[1.0, 2, 3, 4]]))
    assert flat(score_maps(padded.eval(), torch.zeros(1, 1, 2, 2), []), "") == [1, 2, 3, 4]


def deep() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3), nn.SiLU(), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


def test_score_times_response_is_the_same_at_every_cut() -> None:
    """Conservation: in the twin each cut through the network carries the same total."""
    net, x = deep(), torch.rand(1, 2, 8, 8, dtype=torch.float64)
    scores = score_maps(net, x, ["0", "4", "7", "9"])
    responses = {"": x}
    for name in ("0", "4", "7", "9"):
        net[int(name)].register_forward_hook(
            lambda module, inputs, y, name=name: responses.update({name: y})
        )
    with _Absolute():
        total = net(x).sum().item()
    for name, score in scores.items():
        assert (score * responses[name]).sum().item() == pytest.approx(total, rel=1e-10), name


def test_permuted_neurons_have_permuted_scores() -> None:
    net, order = fully_connected(), torch.tensor([2, 0, 1])
    before = flat(score_maps(fully_connected(), torch.zeros(1, 3), ["0"]), "0")
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[2].weight.copy_(net[2].weight[:, order])
    after = flat(score_maps(net, torch.zeros(1, 3), ["0"]), "0")
    assert after == [before[i] for i in order]


def test_a_scaled_layer_scales_everything_below_it() -> None:
    net = fully_connected()
    with torch.no_grad():
        net[4].weight.mul_(-3)
    scores = score_maps(net, torch.zeros(1, 3), ["0", "2"])
    assert flat(scores, "2") == [9.0, 4.5]
    assert flat(scores, "0") == [18.0, 13.5, 13.5]


def test_a_neuron_that_nobody_reads_has_no_score(task: Callable) -> None:
    net = fully_connected()
    with torch.no_grad():
        net[2].weight[:, 1] = 0
    found = ones_out(*task(net, torch.zeros(1, 3)))
    assert found["0"].tolist()[1] == 0
    assert found["0"].argmin() == 1


def test_scores_of_a_group_sum_to_one_and_starts_differ(task: Callable) -> None:
    net = fully_connected()
    args = task(net, torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 2.0], [5.0, 1.0, 0.0]]))
    out, one, chosen = ones_out(*args), ones(*args), inf_fs(*args)
    assert out["0"].tolist() == pytest.approx([6 / 15, 4.5 / 15, 4.5 / 15])
    assert out["2"].tolist() == pytest.approx([3 / 4.5, 1.5 / 4.5])
    # From ones at the classifier's input: |W2|^T (1, 1) = (2, 2, 3).
    assert one["2"].tolist() == [0.5, 0.5]
    assert one["0"].tolist() == pytest.approx([2 / 7, 2 / 7, 3 / 7])
    assert chosen["2"].sum().item() == pytest.approx(1)
    assert set(chosen) == {"0", "2"}


def test_no_importance_flows_through_what_leaves(task: Callable) -> None:
    """Of layer 2, which scores 3 and 1.5, the second neuron leaves: below is 3 * |W2|'s row 1."""
    args = task(fully_connected(), torch.zeros(1, 3))
    found = score_kept_only(*args, start_at_output, 0.5)
    assert list(found) == ["0", "2"]
    assert found["2"].tolist() == pytest.approx([3 / 4.5, 1.5 / 4.5])
    assert found["0"].tolist() == pytest.approx([6 / 9, 3 / 9, 0])
    whole = score_kept_only(*args, start_at_output, 0.0)
    assert whole["0"].tolist() == ones_out(*args)["0"].tolist()


def test_importance_starts_from_scores_that_are_given(task: Callable) -> None:
    """From (1, 3) at the classifier's input: |W2|^T (1, 3) = (2, 4, 9)."""
    args = task(fully_connected(), torch.zeros(1, 3))
    found = score_by_propagation(*args, start_from(torch.tensor([1.0, 3.0])))
    assert found["2"].tolist() == [0.25, 0.75]
    assert found["0"].tolist() == pytest.approx([2 / 15, 4 / 15, 9 / 15])


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x) * torch.sigmoid(self.b(x)))


def test_a_gated_network_is_refused(task: Callable) -> None:
    with pytest.raises(RecipeError, match="cannot follow Gated"):
        ones_out(*task(Gated(), torch.zeros(1, 3)))
