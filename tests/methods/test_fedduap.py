"""fedduap: the server's step and the pruning rates by hand, and what a run does with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from prunings import named
from replies import plain
from torch import Tensor, nn

from fpcli.data.distances import measure_skews
from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState, Support, Tensors
from fpcli.errors import LayoutError
from fpcli.methods.fedduap import FedDUAP, Options, choose_share, weigh_server
from fpcli.pruning.fedap import average_rates, choose_filters, list_kernels, measure_rate
from fpcli.scores.curvature import Spectrum
from fpcli.scores.rates import measure_mass_above, spread_rate
from fpcli.settings.pruning_rate import RateRule
from fpcli.structure.cost import count_cost
from fpcli.structure.merge import interpolate
from fpcli.structure.shrink import shrink
from fpcli.train.setup import Setup, prepare_run

AT_ONCE = {
    "method__prune_round": 1, "method__residual": "group-sum", "method__lanczos_steps": 8,
    "clients_per_round": 2,
}  # fmt: skip

STEP: dict[str, Any] = {"method__prune_round": 0, "clients_per_round": 2}
CUT: dict[str, Any] = {
    "method__server_update": "none", "method__prune_round": 1, "method__rate_rule": "fixed",
    "task__model": "digits-cnn", "rounds": 2, "eval_every": 2,
}  # fmt: skip
FEDAVG: dict[str, Any] = {"task__server_share": 0.1}

Played = tuple[ServerState, RoundRecord]

UNIFORM = torch.ones(10)


def holding(*counts: float) -> torch.Tensor:
    """Return counts of ten classes, of which the first ones are given."""
    return torch.tensor([*counts, *[0.0] * (10 - len(counts))])


def made(tmp_path: Path, name: str = "fedduap", **changes: Any) -> Setup:
    return prepare_run(toy_recipe(name, **changes), tmp_path / "memory")


def play(setup: Setup) -> tuple[ServerState, list[Played]]:
    """Return the state before the first round, and every round."""
    executor = Inline(setup.site)
    begun, totals = server.begin_training(setup.fed, setup.values, executor)
    return begun, list(server.play(setup.fed, begun, executor, totals))


def assert_equal(ours: Sequence[Played], others: Sequence[Played]) -> None:
    """Make sure that rounds end in the same values, and sent as much but for the method's name."""
    for (mine, record), (theirs, reference) in zip(ours, others, strict=True):
        assert plain(mine.values) == plain(theirs.values)
        longer = len("fedduap") - len("fedavg")
        assert record.down_bytes - reference.down_bytes == longer * len(record.cohort)
        assert record.up_bytes == reference.up_bytes


def test_skews_of_labels() -> None:
    found = measure_skews([holding(1, 1), holding(1), holding(1, 1, 1, 1, 1), UNIFORM], UNIFORM)
    assert found == pytest.approx([0.6099865470, 0.7582766572, 0.3112781245, 0.0])
    assert found[-1] == 0.0


def test_the_servers_share_by_hand() -> None:
    """Three classes, two clients and a server."""
    mean = torch.tensor([0.4, 0.4, 0.2])
    rows = torch.tensor([[0.8, 0.2, 0], [0.2, 0.4, 0.4], [0.5, 0.5, 0]])
    pooled = (100 * rows[0] + 300 * rows[1]) / 400
    skews = measure_skews([*rows, pooled], mean)
    expected = [0.1735337494, 0.0490224996, 0.1080315461, 0.0096686274]
    assert skews == pytest.approx(expected, abs=1e-7)
    weight = weigh_server(80, skews[2], 400, skews[3])
    assert weight == pytest.approx(0.0175848743, abs=1e-7)
    share = choose_share(Options(), 0.35, weight, 7)
    assert share == pytest.approx(0.0106536638, abs=1e-7)


@pytest.mark.parametrize(
    ("accuracy", "elapsed", "decay", "share"),
    [
        (0.1, 0, 0.99, 0.7776826417),
        (0.4, 50, 0.99, 0.3136684777),
        (0.6, 200, 0.999, 0.2829551041),
    ],
)
def test_the_share_falls(accuracy: float, elapsed: int, decay: float, share: float) -> None:
    theirs, own = measure_skews([holding(1, 1, 1, 1), holding(1, 1, 1, 1, 1)], UNIFORM)
    assert theirs == pytest.approx(0.3958156020)
    options = Options(server_decay=decay)
    found = choose_share(options, accuracy, weigh_server(4000, own, 800, theirs), elapsed)
    assert found == pytest.approx(share)
    constant = replace(options, server_f="constant", server_c=2.0)
    twice = choose_share(constant, accuracy, weigh_server(4000, own, 800, theirs), elapsed)
    assert twice == pytest.approx(2 * share / (1 - accuracy))


def test_where_labels_say_nothing_samples_do() -> None:
    assert weigh_server(100, 0.0, 300, 0.0) == 0.25
    assert weigh_server(100, 0.2, 300, 0.0) == 0.0
    assert weigh_server(0, 0.0, 300, 0.3) == 0.0
    assert weigh_server(100, 0.0, 300, 0.3) == 1.0


def test_a_share_of_the_way_is_as_many_steps_with_the_mean_gradient() -> None:
    curvature, linear = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5])
    start = torch.tensor([1.0, -2.0])
    end, gradients = start, []
    for _ in range(4):
        gradients.append(curvature * end - linear)
        end = end - 0.1 * gradients[-1]
    mean = torch.stack(gradients).mean(0)
    assert end.tolist() == pytest.approx([0.82805, -0.35355])
    assert mean.tolist() == pytest.approx([0.429875, -4.116125])
    moved = interpolate({"w": start}, {"w": end}, 0.25)["w"]
    assert moved.tolist() == pytest.approx([0.9570125, -1.5883875])
    assert moved.tolist() == pytest.approx((start - 0.25 * 4 * 0.1 * mean).tolist())


def test_rates_are_averaged_by_samples_and_labels() -> None:
    """One client with all labels alike counts for nearly everything, by design."""
    skews = measure_skews([holding(1, 1, 1, 1, 1), holding(1, 1), UNIFORM, holding(1)], UNIFORM)
    sizes = [4000, 400, 400, 200]
    rate = average_rates([0.55, 0.30, 0.60, 0.45], sizes, skews)
    assert rate == pytest.approx(0.5997811139)
    shares = [average_rates([float(i == j) for j in range(4)], sizes, skews) for i in range(4)]
    expected = [0.00320052, 0.00016335, 0.99657043, 0.00006570]
    assert shares == pytest.approx(expected, abs=1e-8)


def test_a_rate_of_all_weights_becomes_one_of_each_layer() -> None:
    values = {
        "conv1": torch.tensor([[0.9, -0.05], [0.2, 0.4]]),
        "conv2": torch.tensor([[-0.3, 0.01, 0.6], [0.02, 0.07, -0.8]]),
        "fc": torch.tensor([0.03, -0.5, 0.15, 0.11]),
        "bias": torch.tensor([0.0, 0.25]),
    }
    kernels = {"one": ["conv1"], "two": ["conv2"]}
    assert spread_rate(values, kernels, 0.4) == pytest.approx({"one": 0.25, "two": 1 / 3})
    assert spread_rate(values, kernels, 0.5) == pytest.approx({"one": 0.25, "two": 0.5})
    assert spread_rate(values, kernels, 0.0) == {"one": 0.0, "two": 0.0}
    assert spread_rate(values, {"both": ["conv1", "conv2"]}, 0.5) == pytest.approx({"both": 0.4})


def test_filters_of_lowest_rank_leave() -> None:
    """Of equal ranks the lower index leaves first."""
    ranks = torch.tensor([[4.0, 1, 0, 2], [3, 1, 0, 2], [4, 2, 0, 2], [1, 4, 0, 2]]).mean(0)
    assert ranks.tolist() == [3, 2, 0, 2]
    assert choose_filters(ranks, 0.5, "count").tolist() == [0, 3]
    wide = torch.tensor([1.0, 9, 9, 9.5, 10, 10, 10, 10])
    assert choose_filters(wide, 0.5, "range").tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert choose_filters(wide, 0.5, "count").tolist() == [4, 5, 6, 7]
    assert choose_filters(torch.ones(4), 0.9, "range").tolist() == [0, 1, 2, 3]
    assert len(choose_filters(torch.arange(100.0), 0.29, "count")) == 71
    assert choose_filters(torch.arange(4.0), 0.99, "count").tolist() == [3]
    assert choose_filters(torch.tensor([9.0, 0, 3, 3]), 0.5, "count", block=2).tolist() == [0, 1]


def test_the_codes_reading_of_a_spectrum() -> None:
    values = [-0.2, -0.05, 0, 0.02, 0.1, 0.5, 1.5, 4, 9, 20]
    weights = [0.02, 0.10, 0.35, 0.25, 0.12, 0.08, 0.04, 0.02, 0.015, 0.005]
    for points, shares, rate in (
        (values, weights, 0.696507381),
        ([-1, -0.1, 0.001, 0.3, 2, 6], [0.05, 0.15, 0.45, 0.2, 0.1, 0.05], 0.348358181),
    ):
        pair = [torch.tensor(x, dtype=torch.float64) for x in (points, shares)]
        assert measure_mass_above(Spectrum(*pair, is_exact=False)) == pytest.approx(rate, abs=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"method__server_c": 0.0, **STEP},
        {"method__share_floor": 9.0, **STEP},
        {"method__undo_above": 1e-9, **STEP},
        {"method__prune_round": 0},
    ],
    ids=["C is 0", "below the floor", "undone", "all clients take part"],
)
def test_without_a_step_it_is_fedavg(options: dict[str, Any], tmp_path: Path) -> None:
    short = {"rounds": 2, **{k: v for k, v in options.items() if not k.startswith("method")}}
    _, ours = play(made(tmp_path / "ours", **{**short, **options}))
    _, others = play(made(tmp_path / "others", "fedavg", **short, **FEDAVG))
    assert_equal(ours, others)
    notes = ours[0][1].notes
    if "method__undo_above" in options:
        assert notes["server_step"]["is_undone"]
    assert ("warning" in notes) == (len(options) == 1)


def test_a_rate_of_0_is_fedavg(tmp_path: Path) -> None:
    begun, ours = play(made(tmp_path / "ours", **CUT, method__prune_rate=0.0))
    flags = {key: CUT[key] for key in ("task__model", "rounds", "eval_every")}
    _, others = play(made(tmp_path / "others", "fedavg", **flags, **FEDAVG))
    assert not begun.method.labels, "nobody is asked"
    assert_equal(ours, others)
    assert ours[-1][0].method.is_pruned


def train_by_hand(setup: Setup, values: Tensors) -> dict[str, Tensor]:
    """Return values after the epochs of round 1 on the server's samples."""
    here, local = setup.fed.server_side.at(1), setup.fed.local
    model = here.module(values).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=local.lr, momentum=local.momentum, weight_decay=local.weight_decay
    )
    with here.seeded("train"):
        for epoch in range(local.epochs):
            for x, y in here.batches(epoch, batch_size=local.batch_size):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    return {name: model.state_dict()[name] for name in values}


@pytest.mark.parametrize("update", ["feddu", "hybrid"])
def test_the_step_of_a_run(update: str, tmp_path: Path) -> None:
    """Statistics of batch norm go the way too; the server's seconds count."""
    one = {"rounds": 1, "clients_per_round": 2, "local__epochs": 2}
    setup = made(tmp_path / "ours", **{**STEP, **one}, method__server_update=update)
    ((state, record),) = play(setup)[1]
    ((half, _),) = play(made(tmp_path / "half", "fedavg", **one, **FEDAVG))[1]
    num, side = setup.fed.server_side.num_examples, setup.fed.server_side.at(1)
    seconds = side.charge(2 * num)
    if update == "feddu":
        note = record.notes["server_step"]
        start, share = half.values, note["share"]
        assert 0 < share < 1
        assert share == pytest.approx((1 - note["accuracy"]) * note["weight"])
        assert note["num_steps"] == pytest.approx(share * math.ceil(2 * num / 64))
        seconds += 2 * side.charge(num, passes="forward")
    else:
        start, share = setup.values, num / (num + sum(c.num_examples for c in record.clients))
    assert record.notes["server_s"] == pytest.approx(seconds)
    end = train_by_hand(setup, start)
    for name, value in half.values.items():
        torch.testing.assert_close(state.values[name], value + share * (end[name] - value))
        assert not torch.equal(end[name], value)


@pytest.mark.parametrize("rank", ["feature-rank", "l1"])
def test_clients_train_a_smaller_model_that_computes_the_same(rank: str, tmp_path: Path) -> None:
    """As the whole one whose maps of pruned filters are 0."""
    setup = made(tmp_path / "ours", **CUT, method__prune_rate=0.5, method__score=rank)
    (first, before), (last, after) = play(setup)[1]
    whole = play(made(tmp_path / "whole", **CUT, method__prune_rate=0.0))[1][0][0]
    layout, support = setup.fed.layout, first.support
    layers = before.notes["pruned"]["layers"]
    assert {name: len(kept) for name, kept in support.keep.items()} == {
        name: layer["width"] // 2 for name, layer in layers.items()
    }
    small = count_cost(layout, support)
    assert small.params < 0.6 * count_cost(layout, Support()).params
    assert {client.params for client in after.clients} == {small.params}
    assert after.down_bytes < 0.6 * before.down_bytes
    assert after.up_bytes < 0.6 * before.up_bytes
    assert plain(last.support) == plain(support), "it never happens again"
    silent = {name: value.clone() for name, value in whole.values.items()}
    for name, kept in support.keep.items():
        gone = torch.ones(layout.groups[name].width, dtype=torch.bool)
        gone[kept] = False
        for member in layout.groups[name].members:
            if member.dim == 1:
                silent[member.tensor][:, member.index[gone].flatten()] = 0
    big = shrink(setup.fed.template, silent).eval()
    cut = shrink(setup.fed.template, support.gather(layout, whole.values)).eval()
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cut(x), big(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("reporters", ["all", "cohort"])
def test_rates_of_clients_and_server_become_those_of_layers(reporters: str, tmp_path: Path) -> None:
    options = {**CUT, **AT_ONCE, "method__rate_rule": "spectrum", "method__rank_images": 20}
    setup = made(tmp_path, **options | {"method__reporters": reporters, "method__lanczos_steps": 5})
    executor = Inline(setup.site)
    begun, totals = server.begin_training(setup.fed, setup.values, executor)
    data, side = setup.fed.dataset, setup.fed.server_side
    counts = [data.train.labels[part].bincount(minlength=10) for part in setup.parts]
    assert plain(begun.method.labels) == plain(dict(enumerate(counts)))
    whole = 4 * sum(x.numel() for x in setup.values.values())
    assert totals.down_bytes < 4 * whole / 5, "the question carries no whole model"
    (first, _), (second, after) = server.play(setup.fed, begun, executor, totals)
    note = after.notes["pruned"]
    asked = [*range(4)] if reporters == "all" else [*after.cohort]
    assert [*map(int, note["clients"])] == asked
    everyone = torch.stack(counts).sum(0)
    told = [*(counts[client] for client in asked), side.label_counts]
    rates = [*note["clients"].values(), note["server"]]
    sizes = [int(x.sum()) for x in told]
    rate = average_rates(rates, sizes, measure_skews(told, everyone))
    assert note["rate"] == pytest.approx(rate)
    parameters = {name: first.values[name] for name in setup.fed.layout.parameters.tensors}
    for name, layer in note["layers"].items():
        expected = spread_rate(parameters, {name: [f"{name}.weight"]}, rate)[name]
        assert layer["rate"] == pytest.approx(expected)
        assert layer["kept"] == layer["width"] - int(layer["rate"] * layer["width"] + 1e-9)
        assert second.support.block_shapes(setup.fed.layout)[f"{name}.weight"][0] == layer["kept"]
    assert second.support.keep
    small = count_cost(setup.fed.layout, second.support).bytes
    asking = after.down_bytes - 2 * small
    assert len(asked) * whole <= asking < len(asked) * (whole + 2000) + 4000
    # Five products of 100 samples count as ten passes over them, and the gradient as one.
    expected_s = side.charge(11 * 100) + side.charge(20, passes="forward")
    assert after.notes["server_s"] == pytest.approx(expected_s)


def test_a_gap_that_is_wide_enough_for_the_way_from_the_initial_model(tmp_path: Path) -> None:
    """Twelve samples leave 640 - 12 x 9 directions flat, which is the gap if L is 0."""
    data = made(tmp_path).fed.dataset
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    at = {"1.weight": model[1].weight.detach().clone()}
    rule = RateRule(rate_rule="gap", curvature_images=12)

    def measure(rule: RateRule, initial: dict[str, Tensor]) -> tuple[float, bool, int]:
        rng = torch.Generator().manual_seed(0)
        return measure_rate(rule, model, data, torch.arange(100), initial, rng)

    rate, has_gap, num = measure(rule, at)
    assert has_gap
    assert rate == pytest.approx(532 / 640, abs=0.02)
    assert num == 12 * (1 + 11 + 2 * 640)
    far = {"1.weight": at["1.weight"] + torch.randn(10, 64)}
    assert measure(rule, far)[:2] == (0.0, False)
    spectrum = replace(rule, no_gap="spectrum")
    rate, has_gap, _ = measure(spectrum, far)
    assert 0 < rate < 1
    assert not has_gap


def test_clients_remember_the_initial_model_for_the_gap(tmp_path: Path) -> None:
    options = {"task__model": "nets:pocket", "rounds": 2, "method__server_update": "none"}
    setup = made(tmp_path, method__prune_round=1, method__rate_rule="gap", **options)
    begun, ((first, _), (last, record)) = play(setup)
    assert plain(begun.method.initial) == plain(setup.values)
    assert len(record.notes["pruned"]["clients"]) == 4
    assert first.method.initial
    assert not last.method.initial
    assert all(0 <= rate <= 0.95 for rate in record.notes["pruned"]["clients"].values())


def test_maps_that_are_added_up_stay_unless_told(tmp_path: Path) -> None:
    net = named("resnet20")
    inner = list_kernels(net.layout, net.template)
    assert [*inner.values()] == [
        [f"stage{s}.{b}.conv1.weight"] for s in (1, 2, 3) for b in range(3)
    ]
    sums = list_kernels(net.layout, net.template, with_sums=True)
    assert inner.items() < sums.items()
    assert len(sums) == len(inner) + 3
    with pytest.raises(LayoutError, match="no convolution of the network may lose filters"):
        play(made(tmp_path))


def test_what_cannot_take_effect_is_told() -> None:
    method = FedDUAP()
    assert method.idle(Options(prune_round=10), 11) == []
    assert method.idle(Options(prune_round=0), 5) == []
    assert method.idle(Options(prune_round=10), 10) == [
        "`method.prune_round` is 10, but the run ends after round 10: no round trains a pruned "
        "model; set method.prune_round below 10, or rounds above 10"
    ]
    with pytest.raises(ValueError, match="leave fedavg"):
        Options(server_update="none", prune_round=0)
    needs = {
        "feddu": Options(prune_round=0),
        "ranks": Options(server_update="none"),
        "weights": Options(server_update="none", score="l1"),
    }
    needed = {name: method.traits_of(o).needs_server_data for name, o in needs.items()}
    assert needed == {"feddu": True, "ranks": True, "weights": False}
