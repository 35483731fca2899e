from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from prunings import context, named, trained_of
from torch import Tensor, nn

from fpcli.data.datasets import Dataset
from fpcli.engine.trained import Trained
from fpcli.errors import CheckError, NeedError, RecipeError
from fpcli.pruning.filters import Filters
from fpcli.pruning.layers import count_weights_and_macs
from fpcli.pruning.prune import plan_cut
from fpcli.pruning.pruner import PruneTarget

QUARTER = PruneTarget("ratio", 0.25)
WHOLE = [[0.9], [0.2], [1.5], [0.6]]
SECOND = [[0.1, 2.0, 0.3, 0.2], [0.9, 0.1, 0.5, 0.4], [0.4, 0.9, 0.6, 0.1]]
THIRD = [[0.5, 0.4, 0.1], [0.2, 1.0, 0.9], [0.8, 0.1, 0.3]]


class Chain(nn.Module):
    """Three layers and an output, which may be listed in any order."""

    def __init__(self, order: tuple[str, ...]) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "one": nn.Linear(1, 4), "two": nn.Linear(4, 3), "three": nn.Linear(3, 3),
            "out": nn.Linear(3, 2),
        }  # fmt: skip
        for name in order:
            self.add_module(name, layers[name])
        for name, weight in (("one", WHOLE), ("two", SECOND), ("three", THIRD)):
            # Signs do not count.
            layers[name].weight.data = -torch.tensor(weight)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.three(torch.relu(self.two(torch.relu(self.one(x))))))
        return self.out(x)


@pytest.mark.parametrize("order", [("one", "two", "three", "out"), ("out", "three", "two", "one")])
@pytest.mark.parametrize(
    ("strategy", "removed"),
    [
        # Sums of layer 2: 2.6, 1.9, 2.0; of layer 3: 1.0, 2.1, 1.2.
        ("independent", {"one": 1, "two": 1, "three": 0}),
        # Without input 1: 0.6, 1.8, 1.1; then without input 0: 0.5, 1.9, 0.4.
        ("greedy", {"one": 1, "two": 0, "three": 2}),
    ],
)
def test_the_chain_of_three_layers(
    strategy: str, removed: dict[str, int], order: tuple[str, ...]
) -> None:
    net = trained_of(Chain(order), (1,), 2)
    cut = Filters().cut(context(strategy=strategy), net, QUARTER)
    for name, gone in removed.items():
        width = net.layout.groups[name].width
        assert cut.support.keep[name].tolist() == [c for c in range(width) if c != gone]


RESNET34 = ("torchvision:resnet34", (21_607_616, 3_644_493_824))
COUNTS = {
    "vgg16-A": ("vgg16", (14_977_728, 313_463_808), (5_390_176, 206_279_680)),
    "resnet56-A": ("resnet56-pad", (848_944, 125_485_696), (769_456, 112_435_840)),
    "resnet56-B": ("resnet56-pad", (848_944, 125_485_696), (732_016, 90_907_264)),
    "resnet110-A": ("resnet110-pad", (1_719_856, 252_887_680), (1_680_688, 212_779_648)),
    "resnet110-B": ("resnet110-pad", (1_719_856, 252_887_680), (1_161_712, 155_124_352)),
    "resnet34-A": (*RESNET34, (19_962_560, 3_080_916_992)),
    "resnet34-B": (*RESNET34, (19_280_576, 2_763_001_856)),
    "resnet34-C": (*RESNET34, (20_050_112, 3_374_446_592)),
}  # fmt: skip
"""Preset -> network, and weights and multiply-adds of table 1 before and after."""


@pytest.mark.parametrize("preset", COUNTS)
def test_presets_cut_what_the_paper_cuts(preset: str) -> None:
    name, before, after = COUNTS[preset]
    is_large = name.startswith("torchvision")
    net = named(name, (3, 224, 224), 1000) if is_large else named(name)
    result = plan_cut(Filters(), context(preset=preset), net, PruneTarget("ratio", 0.0))
    assert count_weights_and_macs(net.layout, net.support) == before
    assert count_weights_and_macs(net.layout, result.trained.support) == after
    widths = {group: narrow for group, (_, narrow) in result.widths.items()}
    first = [widths[group] for group in widths if group.endswith(".conv1")]
    if preset == "resnet56-B":
        assert first == [6] * 7 + [16, 16, 32] + [22] * 6 + [32, 22, 64] + [57] * 7 + [64]
    if preset == "resnet110-B":
        assert first == [8] * 17 + [16, 32] + [19] * 17 + [64] + [44] * 17
    if preset == "resnet34-B":
        assert first == [64, 32, 32, 128, 51, 51, 128, 256, 153, 153, 153, 153, 256, 512, 512, 512]


def test_a_preset_is_for_its_network_and_stands_alone(cnn: Trained) -> None:
    with pytest.raises(RecipeError, match="for a network of 56 layers, `digits-cnn` has 4"):
        plan_cut(Filters(), context(preset="resnet56-A"), cnn, PruneTarget("ratio", 0.0))
    with pytest.raises(RecipeError, match="says how much goes"):
        plan_cut(Filters(), context(preset="resnet56-A"), named("resnet56-pad"), QUARTER)


def stage2(net: Trained) -> str:
    """Return the group of the maps that stage 2 adds up."""
    return next(
        name for name, group in net.layout.groups.items()
        if any(m.produces and m.tensor == "stage2.0.conv2.weight" for m in group.members)
    )  # fmt: skip


def test_sums_stay_or_follow_the_projection_or_all_their_writers() -> None:
    net = named("resnet20")
    name = stage2(net)
    assert name not in Filters().cut(context(), net, QUARTER).support.keep

    by_projection = Filters().cut(context(residual="projection"), net, QUARTER).support
    norms = net.values["stage2.0.shortcut.0.weight"].abs().sum((1, 2, 3))
    assert by_projection.keep[name].tolist() == norms.topk(24).indices.sort().values.tolist()
    assert "conv" not in by_projection.keep  # stage 1 has no projection

    by_all = Filters().cut(context(residual="group-sum"), net, QUARTER).support
    made = [m for m in net.layout.groups[name].members if m.produces]
    assert len(made) == 4
    norms = torch.stack([net.values[m.tensor].abs().sum((1, 2, 3)) for m in made]).sum(0)
    assert by_all.keep[name].tolist() == norms.topk(24).indices.sort().values.tolist()
    assert len(by_all.keep["conv"]) == 12


def test_depthwise_layers_pass_channels_on_and_are_no_sum() -> None:
    layers = OrderedDict(
        wide=nn.Conv2d(1, 8, 1), deep=nn.Conv2d(8, 8, 3, groups=8), pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(), out=nn.Linear(8, 3),
    )  # fmt: skip
    net = trained_of(nn.Sequential(layers), (1, 8, 8), 3)
    keep = Filters().cut(context(), net, QUARTER).support.keep
    assert {name: len(channels) for name, channels in keep.items()} == {"wide": 6}


def test_rates_ignored_groups_and_rounding(cnn: Trained) -> None:
    px = context(rates={"conv1": 0.75, "fc1": 0.0}, ignore=frozenset({"conv2"}), round_to=8)
    keep = Filters().cut(px, cnn, PruneTarget("ratio", 0.5)).support.keep
    assert {name: len(channels) for name, channels in keep.items()} == {"conv1": 8}
    with pytest.raises(CheckError, match="no group of `digits-cnn` may lose channels"):
        Filters().cut(context(ignore=frozenset(cnn.layout.groups)), cnn, QUARTER)


def test_a_group_keeps_one_channel_and_says_so(cnn: Trained) -> None:
    told: list[str] = []
    px = context(rates={"conv1": 0.95}, tell=told.append)
    assert len(Filters().cut(px, cnn, PruneTarget("ratio", 0.0)).support.keep["conv1"]) == 1
    assert told == ["warning: all channels of `conv1` were to go; one stays"]


def test_what_is_gone_stays_gone(cnn: Trained) -> None:
    """A channel without weights is not kept in place of a worse one that is alive."""
    px = context(rates={"conv1": 0.5, "conv2": 0.0, "fc1": 0.0})
    cut = Filters().cut(px, cnn, PruneTarget("ratio", 0.0))
    silent = dict(cut.values)
    silent["conv1.weight"] = torch.zeros_like(silent["conv1.weight"])
    silenced = replace(cut, values=silent)
    again = Filters().cut(context(rates={"conv1": 0.75}), silenced, PruneTarget("ratio", 0.0))
    assert set(again.support.keep["conv1"].tolist()) < set(cut.support.keep["conv1"].tolist())


def test_scores_of_data_are_asked_with_few_images(cnn: Trained, digits: Dataset) -> None:
    cut = Filters().cut(context(digits, score="taylor", samples=20), cnn, QUARTER)
    assert len(cut.support.keep["conv2"]) == 24
    greedy = Filters().cut(
        context(digits, score="activation-mean-l1", samples=20, strategy="greedy"), cnn, QUARTER
    )
    assert len(greedy.support.keep["conv2"]) == 24
    with pytest.raises(NeedError, match="looks at the data"):
        Filters().cut(context(score="taylor"), cnn, QUARTER)


def test_iterative_retraining_takes_the_groups_one_by_one(cnn: Trained) -> None:
    px = context(retrain="iterative")
    steps = Filters().steps(px, cnn, PruneTarget("ratio", 0.5), 1)
    assert [list(own.rates) for own, _ in steps] == [
        ["conv1"], ["conv1", "conv2"], ["conv1", "conv2", "fc1"],
    ]  # fmt: skip
    net = cnn
    for own, target in steps:
        net = Filters().cut(own, net, target)
    assert [len(net.support.keep[name]) for name in ("conv1", "conv2", "fc1")] == [8, 16, 32]
    with pytest.raises(RecipeError, match="makes a step of every group"):
        Filters().steps(px, cnn, QUARTER, 2)
