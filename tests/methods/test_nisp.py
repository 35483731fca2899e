"""nisp: masks by propagated importance, dense training behind them, and what all of it costs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from replies import plain, rounds
from torch import nn

from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.planning import foresee
from fpcli.engine.round_context import RoundContext
from fpcli.engine.server import begin_training
from fpcli.engine.types import Answer, Ask, ServerState, Support, Timing, Traffic, Work
from fpcli.errors import NeedError, RecipeError
from fpcli.fleet.clock import forward_seconds, train_seconds
from fpcli.methods.nisp import (
    RESPONSES,
    Options,
    average_responses,
    measure_importance,
    prune_neurons,
)
from fpcli.recipe.idle import find_idle
from fpcli.scores.magnitude import l1
from fpcli.scores.response_propagation import score_by_propagation, start_at_output
from fpcli.scores.sample import Sample
from fpcli.structure.cost import count_cost
from fpcli.structure.patterns import keep_ranked
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify
from fpcli.train.setup import Setup, prepare_run

AT_ONCE = {"method__ratio": 0.25, "method__mask_every": 1, "method__server": "retain"}


def play(
    tmp_path: Path, method: str = "nisp", **changes: Any
) -> tuple[Setup, list[tuple[ServerState, RoundRecord]]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    return setup, list(rounds(setup))


def context(setup: Setup, **options: Any) -> RoundContext:
    ctx = setup.fed.context(1, "round", lambda *_, **__: None)
    return replace(ctx, options=Options(**options))


def make_2nn() -> nn.Module:
    """Return the network of two hidden layers of 200 neurons that FedAvg's paper trained."""
    return nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(), fc1=nn.Linear(784, 200), relu1=nn.ReLU(),
            fc2=nn.Linear(200, 200), relu2=nn.ReLU(), out=nn.Linear(200, 10),
        )
    )  # fmt: skip


def test_sizes_of_the_mlp_by_ratio() -> None:
    torch.manual_seed(0)
    model, blank = make_2nn(), torch.zeros(1, 1, 28, 28)
    layout, values = trace(model, blank), model.state_dict()
    sample = Sample(model, [(blank, torch.zeros(1))], Classify(10))
    scores = score_by_propagation(layout, values, sample, start_at_output)
    sizes = [
        count_cost(layout, Support(keep_ranked(layout, scores, ratio))).params
        for ratio in (0, 0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    assert sizes == [199_210, 175_690, 131_050, 89_610, 51_370, 16_330]
    assert sum(group.width for group in layout.prunable.values()) == 400


@pytest.mark.parametrize("changes", [{}, {"method__local": "frozen", "method__propagate": "kept"}])
def test_ratio_0_is_fedavg_bit_for_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    _, ours = play(tmp_path / "a", method__ratio=0.0, **changes)
    _, theirs = play(tmp_path / "b", "fedavg")
    assert plain(ours[-1][0].values) == plain(theirs[-1][0].values)


def test_a_mask_is_made_when_it_is_due() -> None:
    scheduled = Options(prune_start=2, mask_every=3)
    assert [r for r in range(12) if scheduled.is_due(r)] == [2, 5, 8, 11]
    assert [r for r in range(12) if Options(prune_start=4).is_due(r)] == [4]


def test_everybody_has_the_mask_of_the_importance_of_the_model(tmp_path: Path) -> None:
    setup, played = play(tmp_path, method__ratio=0.5, method__prune_start=2)
    supports = [state.support for state, _ in played]
    assert not supports[0].keep
    assert {name: len(kept) for name, kept in supports[1].keep.items()} == {"stem": 4, "hidden": 6}
    assert plain(supports[2]) == plain(supports[1])
    asks = foresee(setup.fed, played[1][0], 3)
    assert len(asks) == 4 and all(plain(ask.support) == plain(supports[1]) for ask in asks)
    first, _, third = (record.clients for _, record in played)
    kept = count_cost(setup.fed.layout, supports[2])
    assert {client.params for client in third} == {kept.params}
    assert {client.notes["ratio"] for client in first} == {0.0}
    assert {client.notes["ratio"] for client in third} == {0.5}


def test_zeros_at_the_server_keep_the_mask_and_retained_values_may_return(tmp_path: Path) -> None:
    setup, _ = play(tmp_path, rounds=1)
    values = {name: x.clone() for name, x in setup.values.items()}
    start = ServerState(1, values, Support())
    zero = prune_neurons(context(setup), start)
    gone = [i for i in range(12) if i not in zero.support.keep["hidden"].tolist()]
    assert zero.values["hidden.weight"][gone].abs().sum() == 0
    assert zero.values["hidden.bias"][gone].abs().sum() == 0
    assert zero.values["out.weight"][:, gone].abs().sum() == 0
    assert plain(prune_neurons(context(setup), zero).support) == plain(zero.support)
    kept = prune_neurons(context(setup, server="retain"), start)
    assert plain(kept.support) == plain(zero.support) and plain(kept.values) == plain(values)
    stronger = dict(values)
    stronger["out.weight"] = values["out.weight"].index_fill(1, torch.tensor(gone), 9.0)
    again = prune_neurons(context(setup, server="retain"), replace(kept, values=stronger))
    assert again.support.keep["hidden"].tolist() == gone


def test_removed_values_stay_as_they_were_or_are_zero(tmp_path: Path) -> None:
    for server, is_zero in (("zero", True), ("retain", False)):
        _, played = play(tmp_path / server, method__server=server)
        (before, _), _, (after, _) = played
        keep = after.support.keep["hidden"]
        removed = torch.ones(12).index_fill(0, keep, 0).bool()
        rows = after.values["hidden.weight"][removed]
        assert torch.equal(rows, before.values["hidden.weight"][removed])
        assert bool((rows == 0).all()) == is_zero


class Bent(nn.Sequential):
    """A network whose activation is not 0 at 0."""

    def __init__(self, act: nn.Module) -> None:
        flat = OrderedDict(flat=nn.Flatten(), fc1=nn.Linear(64, 8), act=act, out=nn.Linear(8, 10))
        super().__init__(flat)


def sigmoids(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return Bent(nn.Sigmoid())


def rectified(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return Bent(nn.ReLU())


@pytest.mark.parametrize(("model", "is_same"), [("rectified", True), ("sigmoids", False)])
def test_dense_training_moves_removed_neurons_only_if_the_activation_of_0_is_not_0(
    model: str, is_same: bool, tmp_path: Path
) -> None:
    """A neuron with no weights in and out has no gradient where its response is 0; where it is
    not, the weights out of it grow, act on the others' gradients, and are then dropped."""
    ends = []
    for local in ("dense", "frozen"):
        name = f"{__name__}:{model}"
        changes: dict[str, Any] = {"method__local": local, "task__model": name}
        changes["local__batch_size"] = 16
        ends.append(play(tmp_path / local, **changes)[1][-1][0])
    assert plain(ends[0].support) == plain(ends[1].support)
    pairs = [(ends[0].values[name], ends[1].values[name]) for name in ends[0].values]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs) == is_same


def test_dense_training_costs_the_whole_model_and_bytes_are_those_of_what_is_kept(
    tmp_path: Path,
) -> None:
    clients = {}
    for local in ("dense", "frozen"):
        setup, played = play(tmp_path / local, method__local=local, rounds=2)
        clients[local] = [record.clients for _, record in played]
        small = played[0][0].support
    layout = setup.fed.layout
    full, kept = count_cost(layout, Support()), count_cost(layout, small)
    for (whole, dense), (_, frozen) in zip(
        zip(*clients["dense"], strict=True), zip(*clients["frozen"], strict=True), strict=True
    ):
        device = setup.fed.fleet.at(2, dense.client)
        for client, macs in ((dense, full.macs), (frozen, kept.macs)):
            seconds = train_seconds(macs, client.num_examples, device)
            assert client.compute_s == pytest.approx(seconds)
            saved = whole.up_bytes - client.up_bytes
            assert saved == pytest.approx(full.bytes - kept.bytes, abs=16)
        saved = whole.down_bytes - frozen.down_bytes
        assert saved == pytest.approx(full.bytes - kept.bytes, abs=16)
        indices = 4 * sum(map(len, small.keep.values()))
        assert indices <= dense.down_bytes - frozen.down_bytes < indices + 300


@pytest.mark.parametrize(("propagate", "passes"), [("all", 1), ("kept", 2)])
def test_the_server_is_charged_for_propagation(propagate: str, passes: int, tmp_path: Path) -> None:
    setup, played = play(tmp_path, method__propagate=propagate, rounds=2)
    macs = count_cost(setup.fed.layout, Support()).macs
    seconds = train_seconds(macs, passes, setup.fed.server_side.level)
    assert played[0][1].notes["server_s"] == pytest.approx(seconds)
    assert "server_s" not in played[1][1].notes


def test_samples_of_the_servers_own(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="server"):
        play(tmp_path / "none", method__frl="inffs")
    options: dict[str, Any] = {"method__frl": "inffs", "task__server_share": 0.1, "rounds": 1}
    setup, played = play(tmp_path / "some", **options)
    side, macs = setup.fed.server_side, count_cost(setup.fed.layout, Support()).macs
    seconds = forward_seconds(macs, side.num_examples, side.level) + train_seconds(
        macs, 1, side.level
    )
    assert played[0][1].notes["server_s"] == pytest.approx(seconds)
    ((state, _),) = played
    assert {name: len(kept) for name, kept in state.support.keep.items()} == {
        "stem": 4,
        "hidden": 6,
    }


def test_clients_may_score_their_own_responses(tmp_path: Path) -> None:
    _, plain_run = play(tmp_path / "a", rounds=1)
    _, told_run = play(tmp_path / "b", rounds=1, method__frl="client-inffs")
    for without, client in zip(plain_run[0][1].clients, told_run[0][1].clients, strict=True):
        assert 48 <= client.up_bytes - without.up_bytes < 160  # 12 numbers and their entry
        assert client.compute_s == pytest.approx(without.compute_s * (1 + 1 / 3))
    assert told_run[0][0].support.keep.keys() == {"stem", "hidden"}


def told(client: int, support: Support, scores: torch.Tensor, num_examples: int) -> Answer:
    work = Work(stats={RESPONSES: scores})
    ask = Ask(client, support=support)
    return Answer(ask, work, support, num_examples, Traffic(0, 0), Timing(0, 0, 0), 0.0)


def test_scores_of_clients_are_averaged_by_samples_at_their_places() -> None:
    net = nn.Sequential(OrderedDict(fc=nn.Linear(2, 3), relu=nn.ReLU(), out=nn.Linear(3, 2)))
    layout = trace(net, torch.zeros(1, 2))
    whole, part = Support(), Support({"fc": torch.tensor([0, 2])})
    answers = [
        told(0, whole, torch.tensor([1.0, 2.0, 3.0]), 3),
        told(1, part, torch.tensor([5.0, 7.0]), 1),
    ]
    assert average_responses(layout, "out", answers).tolist() == [2.0, 1.5, 4.0]
    wrong = told(2, part, torch.tensor([1.0, 2.0, 3.0]), 4)
    assert average_responses(layout, "out", [*answers, wrong]).tolist() == [1.0, 0.75, 2.0]


def test_batch_norms_deviation_counts_or_not(tmp_path: Path) -> None:
    """Two channels with equal weights, one of which varies ten times as much."""
    setup = prepare_run(toy_recipe("nisp", task__model="nets:normed"), tmp_path / "memory")
    values = {name: torch.ones_like(x) for name, x in setup.values.items()}
    values["norm.running_var"] = torch.tensor([1.0, 100.0, *[1.0] * 6])
    by_var = measure_importance(context(setup), values)["hidden"]
    assert (by_var[1] / by_var[0]).item() == pytest.approx(0.1, rel=1e-4)
    ignored = measure_importance(context(setup, bn="ignore"), values)["hidden"]
    assert ignored.tolist() == pytest.approx([1 / 8] * 8)


def test_rivals_rank_by_magnitude_or_chance(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("nisp"), tmp_path / "memory")
    found = measure_importance(context(setup, score="l1"), setup.values)
    for name, scores in l1(setup.fed.layout, setup.values).items():
        assert torch.equal(found[name], scores)
    one, other = (
        measure_importance(replace(context(setup, score="random"), seed=seed), setup.values)
        for seed in (1, 2)
    )
    assert not torch.equal(one["hidden"], other["hidden"])


def test_what_cannot_be_is_refused_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prune_start 1 or more"):
        Options(frl="client-inffs", prune_start=0)
    items = {"task__data": "markov", "task__model": "fmlp@0.25", "task__partition__kind": "iid"}
    setup = prepare_run(toy_recipe("nisp", **items), tmp_path / "memory")
    with pytest.raises(RecipeError, match="cannot follow"):
        begin_training(setup.fed, setup.values, Inline(setup.site))


def test_pruned_before_the_first_round(tmp_path: Path) -> None:
    setup, played = play(tmp_path, method__prune_start=0, rounds=1)
    kept = count_cost(setup.fed.layout, played[0][0].support).params
    assert {client.params for client in played[0][1].clients} == {kept}
    assert kept < count_cost(setup.fed.layout, Support()).params


def test_masks_that_change_nothing_are_told() -> None:
    assert not find_idle(toy_recipe("nisp"))
    (late,) = find_idle(toy_recipe("nisp", method__prune_start=3))
    assert "set it below 3" in late
    (same,) = find_idle(toy_recipe("nisp", method__mask_every=1))
    assert "method.server=retain" in same
    assert not find_idle(toy_recipe("nisp", **AT_ONCE))
