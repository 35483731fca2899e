from __future__ import annotations

from typing import Any

import pytest
import torch
from prunable import Convs, context, of_model, shaken
from torch import Tensor, nn

from fpcli.errors import CheckError, LayoutError
from fpcli.pruning.ica3pp import (
    ICA3PP,
    Options,
    channel_criterion,
    choose_channels,
    list_normalised,
    weight_criterion,
)
from fpcli.pruning.pruner import PruneTarget
from fpcli.scores.bn_scale import add_l1
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.support import Support

NORMS = {"a": [4.0, 1.0, 2.0, 3.0], "b": [0.5, 1.5, 1.0]}
SCALES = {"a": [0.10, 0.90, -0.50, 0.02], "b": [0.60, 0.05, 0.31]}


def two_layers() -> tuple[Layout, list[Group], dict[str, Tensor]]:
    """Two layers with one weight per filter, so that a weight is its filter's norm."""
    tensors, groups, values = {}, {}, {}
    for name, norms in NORMS.items():
        width = len(norms)
        index = torch.arange(width).reshape(width, 1)
        tensors[f"{name}.weight"] = TensorSpec((width, 1, 1, 1), True, 1.0)
        tensors[f"{name}n.weight"] = TensorSpec((width,), True)
        tensors[f"{name}n.running_mean"] = TensorSpec((width,), False)
        values[f"{name}.weight"] = torch.tensor(norms).reshape(width, 1, 1, 1)
        values[f"{name}n.weight"] = torch.tensor(SCALES[name])
        groups[name] = Group(
            name,
            width,
            (
                Member(f"{name}.weight", 0, index, produces=True),
                Member(f"{name}n.weight", 0, index),
                Member(f"{name}n.running_mean", 0, index),
            ),
        )
    layout = Layout(tensors, groups)
    return layout, list(groups.values()), values


def criteria() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    layout, groups, values = two_layers()
    return weight_criterion(groups, values, "l1"), channel_criterion(layout, groups, values)


def flat(parts: dict[str, Tensor]) -> list[float]:
    return torch.cat(list(parts.values())).tolist()


def test_the_two_criteria_and_their_product() -> None:
    u, v = criteria()
    assert flat(u) == pytest.approx([1.6, 0.4, 0.8, 1.2, 0.5, 1.5, 1.0])
    assert flat(v) == pytest.approx(
        [0.282258, 2.540323, 1.411290, 0.056452, 1.693548, 0.141129, 0.875], abs=1e-6
    )
    product = {name: u[name] * v[name] for name in u}
    assert flat(product) == pytest.approx(
        [0.451613, 1.016129, 1.129032, 0.067742, 0.846774, 0.211694, 0.875], abs=1e-6
    )


@pytest.mark.parametrize(
    ("rule", "num_removed", "kept"),
    [
        ("product", 3, "0110|101"),
        ("product", 5, "0010|001"),
        ("sum", 3, "1110|100"),
        ("gamma", 5, "0100|100"),
        ("weight", 3, "1001|011"),
        ("both", 3, "1111|111"),
    ],
)
def test_which_channels_stay(rule: Any, num_removed: int, kept: str) -> None:
    u, v = criteria()
    has = {name: torch.ones(len(score), dtype=torch.bool) for name, score in u.items()}
    stays = choose_channels(u, v, has, Options(rule=rule), 7 - num_removed)
    text = "|".join("".join(str(int(bit)) for bit in bits) for bits in stays.values())
    assert text == kept


def test_either_removes_the_lowest_of_both() -> None:
    """Lowest three of u are {1, 2, 4}, of v {0, 3, 5}: one channel of each layer is protected."""
    u, v = criteria()
    has = {name: torch.ones(len(score), dtype=torch.bool) for name, score in u.items()}
    stays = choose_channels(u, v, has, Options(rule="either"), 4)
    # Layer a loses all four, and keeps what its weight criterion keeps instead.
    assert stays["a"].tolist() == [True, False, False, True]
    assert stays["b"].tolist() == [False, False, True]


def test_scaling_a_layer_changes_u_nowhere() -> None:
    layout, groups, values = two_layers()
    scaled = values | {"a.weight": 10 * values["a.weight"], "an.weight": 10 * values["an.weight"]}
    assert flat(weight_criterion(groups, scaled, "l1")) == pytest.approx(flat(criteria()[0]))
    assert flat(channel_criterion(layout, groups, scaled)) != pytest.approx(flat(criteria()[1]))


def test_a_cut_network_computes_what_the_masked_one_computes() -> None:
    torch.manual_seed(0)
    trained = of_model(shaken(Convs()))
    assert [group.name for group in list_normalised(trained.layout, frozenset())] == [
        "conv1",
        "conv2",
    ]
    pruned = ICA3PP().cut(context(Options()), trained, PruneTarget("ratio", 0.5))
    # floor(0.5 * 11) = 5 of the 11 channels of both groups leave.
    assert sum(len(kept) for kept in pruned.support.keep.values()) == 6
    dense = {name: value.clone() for name, value in pruned.values.items()}
    for name in pruned.layout.tensors:
        if "norm" in name and name.endswith(("weight", "bias")):
            group = "conv1" if "1" in name else "conv2"
            gone = torch.ones(len(dense[name]), dtype=torch.bool)
            gone[pruned.support.keep[group]] = False
            dense[name][gone] = 0.0
    # conv3 ends in the same sum as conv2, without batch norm: its filters leave with it.
    gone = torch.ones(5, dtype=torch.bool)
    gone[pruned.support.keep["conv2"]] = False
    dense["conv3.weight"][gone] = 0.0
    dense["conv3.bias"][gone] = 0.0
    masked = Convs().eval()
    masked.load_state_dict(dense, strict=False)
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(pruned.module()(x), masked(x), atol=1e-5)


def test_targets_and_extremes() -> None:
    torch.manual_seed(0)
    trained = of_model(shaken(Convs()))
    full = count_cost(trained.layout, trained.support)
    pruned = ICA3PP().cut(context(Options()), trained, PruneTarget("params", 0.5))
    assert count_cost(trained.layout, pruned.support).params <= 0.5 * full.params
    untouched = ICA3PP().cut(context(Options()), trained, PruneTarget("ratio", 0.0))
    assert untouched.support.keep == {}
    almost = ICA3PP().cut(context(Options()), trained, PruneTarget("ratio", 0.999))
    assert [len(kept) for kept in almost.support.keep.values()] == [1, 1]
    with pytest.raises(CheckError, match="the closest is"):
        ICA3PP().cut(context(Options()), trained, PruneTarget("params", 0.99))


def test_sparse_training_shrinks_the_scales() -> None:
    """One step by hand: scale (.5, -.3, 0), gradient (.02, .01, -.03), lr .1, penalty 1e-4."""
    norm = nn.BatchNorm1d(3)
    norm.weight.data = torch.tensor([0.5, -0.3, 0.0])
    norm.weight.grad = torch.tensor([0.02, 0.01, -0.03])
    add_l1(norm, 1e-4)
    torch.optim.SGD([norm.weight], lr=0.1).step()
    assert norm.weight.tolist() == pytest.approx([0.49799, -0.30099, 0.003])
    logged: list[dict[str, Any]] = []
    torch.manual_seed(0)
    trained = of_model(Convs())
    px = context(Options(sparse_epochs=1, penalty=0.05), log=lambda **values: logged.append(values))
    pruned = ICA3PP().cut(px, trained, PruneTarget("ratio", 0.0))
    assert [line["event"] for line in logged] == ["sparse"]
    assert logged[0].keys() == {"event", "epoch", "loss", "lr", "validation", "real_s"}
    assert float(pruned.values["norm1.weight"].mean()) < 1.0


def test_sparse_training_revives_no_masked_weight() -> None:
    torch.manual_seed(0)
    whole = of_model(Convs())
    mask = torch.rand(whole.values["conv3.weight"].shape) > 0.5
    trained = whole.cut(Support(mask={"conv3.weight": mask}))
    pruned = ICA3PP().cut(context(Options(sparse_epochs=1)), trained, PruneTarget("ratio", 0.0))
    assert not pruned.values["conv3.weight"][~mask].any()
    assert not torch.equal(pruned.values["conv3.weight"], trained.values["conv3.weight"])


def test_a_network_without_batch_norm_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(LayoutError, match="batch norm"):
        ICA3PP().cut(context(Options()), of_model(model), PruneTarget("ratio", 0.5))


@pytest.mark.parametrize("channel", ["mean-activation", "taylor"])
def test_the_channel_criterion_can_come_from_data(channel: Any) -> None:
    torch.manual_seed(0)
    trained = of_model(shaken(Convs()))
    px = context(Options(channel=channel, rule="gamma"))
    pruned = ICA3PP().cut(px, trained, PruneTarget("ratio", 0.5))
    by_scale = ICA3PP().cut(context(Options(rule="gamma")), trained, PruneTarget("ratio", 0.5))
    widths = {"conv1": 6, "conv2": 5}
    gone = [widths[name] - len(kept) for name, kept in pruned.support.keep.items()]
    assert sum(gone) == 5  # floor(0.5 * 11)
    kept = {name: channels.tolist() for name, channels in pruned.support.keep.items()}
    assert kept != {name: channels.tolist() for name, channels in by_scale.support.keep.items()}
