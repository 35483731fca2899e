from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from prunable import Convs, context, of_model, shaken
from torch import Tensor, nn
from torch.nn import functional as F

from fpcli.engine.central import train_centrally
from fpcli.engine.measure import measure_gradients
from fpcli.errors import CheckError, LayoutError
from fpcli.pruning.gates import gate_channels
from fpcli.pruning.gdp import GDP, Options, bn_gate, list_competitors
from fpcli.pruning.pruner import PruneTarget
from fpcli.scores.taylor import measure_saliency
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Layout
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.structure.trace import trace

IMAGES = torch.tensor(
    [
        [[[1, 2, 0, 1], [0, 1, 3, 1], [2, 0, 1, 0], [1, 1, 0, 2]]],
        [[[0, 1, 1, 0], [2, 1, 0, 1], [1, 0, 2, 1], [0, 1, 1, 1]]],
    ],
    dtype=torch.float64,
)
LABELS = torch.tensor([0, 1])
WITH_BIAS = (0.4980846295, 0.1687083482, 0.0587116962)


class Worked(nn.Module):
    """The two convolutions of the worked example; the two outputs of the second are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3)
        self.conv2 = nn.Conv2d(3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x)))).flatten(1)


@pytest.fixture
def worked() -> Worked:
    model = Worked().double()
    kernels = [
        [[1, 0, -1], [0, 1, 0], [0, 0, 1]],
        [[0.5, 0.5, 0], [0, 0.5, 0], [0, 0, -0.5]],
        [[-1, 1, 0], [0, 0, 1], [0.2, 0, 0]],
    ]
    second = [
        [[[0.3, -0.1], [0.2, 0.4]], [[0.1, 0.2], [-0.3, 0.1]], [[0.2, 0.1], [0, 0.1]]],
        [[[-0.2, 0.3], [0.1, 0.1]], [[0.4, -0.1], [0.2, 0.3]], [[-0.1, 0.3], [0.2, -0.2]]],
    ]
    with torch.no_grad():
        model.conv1.weight.copy_(torch.tensor(kernels)[:, None])
        model.conv1.bias.copy_(torch.tensor([0.1, -0.2, 0.05]))  # type: ignore[union-attr]
        model.conv2.weight.copy_(torch.tensor(second))
        model.conv2.bias.copy_(torch.tensor([0.05, 0.02]))  # type: ignore[union-attr]
    return model


@pytest.fixture
def layout(worked: Worked) -> Layout:
    return trace(Worked(), torch.zeros(1, 1, 4, 4))


def of_conv1(
    model: nn.Module, layout: Layout, *, with_bias: bool = True
) -> tuple[float, list[float], dict[str, Tensor]]:
    loss = F.cross_entropy(model(IMAGES), LABELS)
    slopes = measure_gradients(model, loss)
    values = dict(model.named_parameters())
    scores = measure_saliency(layout, values, slopes, with_bias=with_bias)
    return float(loss.detach()), scores["conv1"].tolist(), slopes


def test_the_saliency_of_the_worked_example(worked: Worked, layout: Layout) -> None:
    loss, scores, _ = of_conv1(worked, layout)
    assert loss == pytest.approx(0.7181999133)
    assert scores == pytest.approx(WITH_BIAS)
    _, scores, _ = of_conv1(worked, layout, with_bias=False)
    assert scores == pytest.approx((0.4814029805, 0.1919987443, 0.0615111456))


def test_a_masked_filter_cannot_return_by_itself(worked: Worked, layout: Layout) -> None:
    """Under its mask filter 1 has no score and no gradient; scored unmasked it has both."""
    masks = {"conv1": torch.tensor([1.0, 0.0, 1.0])}
    groups = [layout.groups["conv1"]]
    with gate_channels(worked, groups, masks):
        loss, scores, slopes = of_conv1(worked, layout)
        assert loss == pytest.approx(0.8969857328)
        assert scores[1] == 0.0
        assert not bool(slopes["conv1.weight"][1].any())
        masks["conv1"].fill_(1)
        assert of_conv1(worked, layout)[1] == pytest.approx(WITH_BIAS)
    assert of_conv1(worked, layout)[1] == pytest.approx(WITH_BIAS)


def test_a_straight_through_gate_keeps_a_masked_filter_learning(
    worked: Worked, layout: Layout
) -> None:
    masks = {"conv1": torch.tensor([1.0, 0.0, 1.0])}
    with gate_channels(worked, [layout.groups["conv1"]], masks, is_straight_through=True):
        loss, scores, slopes = of_conv1(worked, layout)
    assert loss == pytest.approx(0.8969857328)
    assert scores[1] == pytest.approx(0.1880291429)
    assert float(slopes["conv1.weight"][1].abs().sum()) == pytest.approx(1.1663426702)


def test_gates_compute_what_the_cut_network_computes() -> None:
    torch.manual_seed(0)
    model = shaken(Convs())
    trained = of_model(model)
    keep = {"conv1": torch.tensor([0, 2, 5])}
    masks = {"conv1": torch.zeros(6).index_fill_(0, keep["conv1"], 1.0)}
    block = Support(keep).gather(trained.layout, trained.values)
    small = shrink(model, block).eval()
    x = torch.rand(4, 1, 8, 8)
    with gate_channels(model, [trained.layout.groups["conv1"]], masks):
        assert torch.allclose(model(x), small(x), atol=1e-6)
    assert not torch.allclose(model(x), small(x), atol=1e-3)


def test_filters_that_feed_a_sum_take_part_only_if_asked() -> None:
    layout = of_model(Convs()).layout
    assert [group.name for group in list_competitors(layout, frozenset(), "skip")] == ["conv1"]
    names = [group.name for group in list_competitors(layout, frozenset(), "groups")]
    assert names == ["conv1", "conv2"]
    with pytest.raises(LayoutError, match="no convolution"):
        list_competitors(layout, frozenset({"conv1"}), "skip")


def prune(ratio: float, **options: Any) -> tuple[Any, Any, list[dict[str, Any]]]:
    torch.manual_seed(0)
    trained = of_model(shaken(Convs()))
    logged: list[dict[str, Any]] = []
    usual = {"epochs": 2, "period": 3, "saliency_batches": 2, "lr": 0.05}
    px = context(Options(**(usual | options)), log=lambda **values: logged.append(values))
    return GDP().cut(px, trained, PruneTarget("ratio", ratio)), trained, logged


def test_the_budget_holds_after_every_redrawing() -> None:
    """8 steps per epoch: masks are drawn at steps 0, 3, 6, 9, 12, 15; floor(0.6 * 11) = 6 stay."""
    pruned, _, logged = prune(0.4, residual="groups")
    drawn = [line for line in logged if line["event"] == "mask"]
    assert [line["step"] for line in drawn] == [0, 3, 6, 9, 12, 15]
    assert all(sum(line["kept"].values()) == 6 for line in drawn)
    kept = {name: len(channels) for name, channels in pruned.support.keep.items()}
    assert kept == {name: n for name, n in drawn[-1]["kept"].items() if name in kept}
    assert drawn[-1]["params"] == count_cost(pruned.layout, pruned.support).params
    assert [line["epoch"] for line in logged if line["event"] == "gdp"] == [1, 2]


def test_masked_filters_stay_exactly_as_they_are() -> None:
    """With one drawing at the start, what it masks never moves, momentum and decay or not."""
    pruned, _, logged = prune(0.5, period=1000)
    (drawn,) = [line for line in logged if line["event"] == "mask"]
    assert drawn["kept"] == {"conv1": 3}
    assert len(pruned.support.keep["conv1"]) == 3
    torch.manual_seed(0)
    model = shaken(Convs())
    masks = {"conv1": torch.zeros(6).index_fill_(0, pruned.support.keep["conv1"], 1.0)}
    assert not torch.equal(
        pruned.values["conv1.weight"][masks["conv1"] > 0],
        model.state_dict()["conv1.weight"][masks["conv1"] > 0],
    )
    assert not bool(pruned.values["conv1.weight"][masks["conv1"] == 0].any())  # removed


def test_beta_1_is_plain_training_bit_for_bit() -> None:
    pruned, trained, _ = prune(0.0)
    px = context(Options())
    model = trained.module()
    config = replace(px.retraining, epochs=2, lr=0.05, schedule="steps", drop_at=())
    for _ in train_centrally(model, px.dataset, config, seed=px.seed, purpose="gdp"):
        pass
    assert pruned.support.keep == {}
    state = model.state_dict()
    for name, value in pruned.values.items():
        assert torch.equal(value, state[name]), name


def test_straight_through_training_lets_masked_filters_move() -> None:
    pruned, _, logged = prune(0.5, recover="ste", period=2)
    assert len(pruned.support.keep["conv1"]) == 3
    assert all(line["kept"]["conv1"] == 3 for line in logged if line["event"] == "mask")


def test_saliency_of_scale_and_shift() -> None:
    """|.5 * 2 + 1 * -3| = 2 and |1 * 0 + -1 * .5| = .5."""
    trained = of_model(Convs())
    weights = {"norm1.weight": torch.ones(6), "norm1.bias": torch.ones(6)}
    slopes = {
        "norm1.weight": torch.tensor([1.0, 0.0, 0, 0, 0, 0]),
        "norm1.bias": torch.tensor([-3.0, -0.5, 0, 0, 0, 0]),
    }
    assert bn_gate(trained.layout, weights, slopes)["conv1"].tolist() == [2.0, 0.5, 0, 0, 0, 0]
    pruned, _, _ = prune(0.5, saliency="bn-gate", scale="layer")
    assert len(pruned.support.keep["conv1"]) == 3


def test_targets_of_size_and_work() -> None:
    torch.manual_seed(0)
    trained = of_model(shaken(Convs()))
    full = count_cost(trained.layout, Support())
    px = context(Options(epochs=1, saliency_batches=1, residual="groups"))
    pruned = GDP().cut(px, trained, PruneTarget("macs", 0.5))
    assert count_cost(trained.layout, pruned.support).macs <= 0.5 * full.macs
    with pytest.raises(CheckError, match="the closest is"):
        GDP().cut(px, trained, PruneTarget("params", 0.99))


def test_a_second_cut_never_brings_back_what_is_gone() -> None:
    first, _, _ = prune(0.5)
    px = context(Options(epochs=1, period=4, saliency_batches=1))
    second = GDP().cut(px, first, PruneTarget("ratio", 0.7))
    gone = set(range(6)) - set(first.support.keep["conv1"].tolist())
    assert not gone & set(second.support.keep["conv1"].tolist())
    assert len(second.support.keep["conv1"]) == 1  # floor(0.3 * 6)
