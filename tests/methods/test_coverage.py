"""The coverage method's arithmetic: types, masks, assignment, means over holders and its index."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from contexts import round_context
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fpcli import plugins
from fpcli.engine import server
from fpcli.engine.exchange import exchange, make_job
from fpcli.engine.executors.inline import Inline
from fpcli.engine.method import merge_answers
from fpcli.engine.planning import foresee
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import Answer, Ask, ServerState, Timing, Traffic, Work
from fpcli.errors import LayoutError, RecipeError, UsageError
from fpcli.methods.coverage import (
    TYPES,
    Coverage,
    Options,
    State,
    assign_types,
    choose_layers,
    count_holders,
    count_uncovered,
    cover_most,
    deal_quarters,
    grade_layers,
    make_part,
    rank_quarters,
    stretch_types,
)
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.min_coverage import count_least_holders
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.train.setup import Setup, prepare_run

WEIGHTS = torch.tensor([3.0, -1.0, 2.0, 0.25, -5.0, 4.0, 1.5, -2.5])
FOUR = Layout({"x": TensorSpec((4,), True)}, {})

MASKED: dict[str, object] = {}
HAS_WIDE_MASKS = True


def context(options: Options, layout: Layout = FOUR, num: int = 4, **changes: Any) -> RoundContext:
    return round_context(options, layout, num, **changes)


def answer(client: int, support: Support, change: Tensor, num_examples: int = 1) -> Answer:
    return Answer(
        ask=Ask(client, support=support),
        work=Work({"x": change}, metrics={"loss": 0.0}, num_steps=1),
        support=support,
        num_examples=num_examples,
        traffic=Traffic(0, 0),
        time=Timing(0.0, 0.0, 0.0),
        pruning_error=0.0,
    )


def mask(bits: str) -> Support:
    return Support(mask={"x": torch.tensor([bit == "1" for bit in bits])})


def average(values: Tensor, replies: Sequence[Answer], **options: Any) -> tuple[Tensor, State]:
    state = ServerState(0, {"x": values}, Support(), State())
    ctx = context(Options(policy="PT", **options), num=len(replies))
    new = Coverage().aggregate(ctx, state, replies)
    return new.values["x"], new.method


def test_quarters_follow_the_true_rank() -> None:
    """|w| ascending: .25 1 | 1.5 2 | 2.5 3 | 4 5. A rank is not what argsort returns."""
    assert rank_quarters(WEIGHTS.abs()).tolist() == [3, 1, 2, 1, 4, 4, 2, 3]
    assert WEIGHTS[rank_quarters(WEIGHTS.abs()) == 1].tolist() == [-1.0, 0.25]
    assert rank_quarters(WEIGHTS.reshape(2, 4)).shape == (2, 4)
    assert rank_quarters(torch.zeros(4)).tolist() == [
        4,
        3,
        2,
        1,
    ]  # ties: the lower index ranks higher
    assert rank_quarters(torch.arange(6.0)).tolist() == [
        1,
        1,
        2,
        3,
        3,
        4,
    ]  # floor(4 * rank / 6) + 1


def test_pruning_error_of_the_least_important_quarter() -> None:
    """delta2 = (1 + .0625) / 63.5625 = .016716."""
    layout = Layout({"x": TensorSpec((8,), True)}, {})
    support = make_part({"x": rank_quarters(WEIGHTS.abs())}, TYPES["4"], "WP")
    kept = support.gather(layout, {"x": WEIGHTS})["x"]
    assert kept.tolist() == [3.0, 0.0, 2.0, 0.0, -5.0, 4.0, 1.5, -2.5]
    error = 1 - float(kept.square().sum() / WEIGHTS.square().sum())
    assert error == pytest.approx(1.0625 / 63.5625)
    assert error == pytest.approx(0.016716, abs=1e-6)


@pytest.mark.parametrize(
    ("setting", "want", "gamma"),
    [
        ("1111111111", (10, 10, 10, 10), 10),
        ("1111223344", (8, 8, 8, 10), 8),
        ("1111113477", (7, 7, 10, 10), 7),
        ("1111234567", (7, 7, 7, 10), 7),
        ("1455666777", (3, 5, 5, 10), 3),
        ("1234556677", (5, 5, 5, 10), 5),
        ("1477777777", (1, 2, 10, 10), 1),
        ("4444444444", (0, 10, 10, 10), 0),
    ],
)
def test_coverage_of_settings(setting: str, want: tuple[int, ...], gamma: int) -> None:
    layout = Layout({"x": TensorSpec((8,), True)}, {})
    kept = assign_types(Options(setting=setting), setting)
    assert count_holders(kept) == want
    parts = [make_part({"x": rank_quarters(WEIGHTS.abs())}, one, "WP") for one in kept]
    assert min(want) == gamma
    assert count_least_holders(layout, parts) == gamma
    assert count_uncovered(layout, parts) == (2 if gamma == 0 else 0)


def test_types_keep_the_most_important_quarter() -> None:
    assert [len(kept) / 4 for kept in TYPES.values()] == [1, 0.75, 0.75, 0.75, 0.5, 0.5, 0.5]
    assert all(4 in kept for kept in TYPES.values())


def test_maxcover_of_two_examples() -> None:
    mild = cover_most([0] * 4 + [1] * 6)
    assert count_holders(mild) == (8, 8, 8, 10)
    drops = [0, 1, *[2] * 8]
    assert min(count_holders(cover_most(drops))) == 4
    assert min(count_holders([TYPES[one] for one in "1455666777"])) == 3  # by hand, at equal cost
    assert sorted(4 - len(kept) for kept in cover_most(drops)) == drops


def test_maxcover_drops_the_best_covered_quarter_first() -> None:
    """N = 3: the last drops 1 and 2 -> (2, 2, 3); then the first drops 3; all have 2."""
    assert cover_most([1, 0, 2]) == [(1, 2, 4), (1, 2, 3, 4), (3, 4)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_maxcover_reaches_the_bound(drops: list[int]) -> None:
    kept = cover_most(drops)
    assert [4 - len(one) for one in kept] == drops
    assert min(count_holders(kept)) == len(drops) - math.ceil(sum(drops) / 3)


def test_settings_stretch_in_proportion() -> None:
    assert stretch_types("1111223344", 10) == "1111223344"
    assert stretch_types("1111223344", 20) == "11111111222233334444"
    assert stretch_types("1111223344", 4) == "1123"
    assert stretch_types("14", 5) == "11144"


def test_slots_are_dealt_anew_and_clients_keep_theirs() -> None:
    setting = "1111223344"
    ctx = context(Options(setting=setting), num=10)
    rounds = [deal_quarters(replace(ctx, round=number)) for number in (1, 2, 3)]
    for types in rounds:
        assert sorted(types.values()) == sorted(TYPES[one] for one in setting)
    assert len({tuple(types.values()) for types in rounds}) == 3
    assert deal_quarters(ctx) == deal_quarters(ctx)
    owned = replace(ctx, options=Options(setting=setting, types="client"), cohort=(0, 4, 9))
    assert deal_quarters(owned) == {0: TYPES["1"], 4: TYPES["2"], 9: TYPES["4"]}
    best = replace(owned, options=replace(owned.options, assign="maxcover"), cohort=(4, 6, 9))
    assert count_holders([*deal_quarters(best).values()]) == (2, 2, 2, 3)


REPLIES = [
    ("1111", [1.2, 2.4, 2.8, 4.4], 100),
    ("1100", [0.8, 2.2, 0.0, 0.0], 300),
    ("0110", [0.0, 1.6, 3.3, 0.0], 50),
    ("1010", [1.3, 0.0, 3.2, 0.0], 50),
]
THETA = torch.tensor([1.0, 2.0, 3.0, 4.0])


def replies(first: str = "1111") -> list[Answer]:
    out = []
    for client, (bits, trained, num) in enumerate(REPLIES):
        support = mask(first if client == 0 else bits)
        change = torch.where(support.mask["x"], torch.tensor(trained) - THETA, 0.0)
        out.append(answer(client, support, change, num))
    return out


def test_each_parameter_is_averaged_over_its_holders() -> None:
    """C = (3, 3, 3, 1): (1.2 + .8 + 1.3) / 3, (2.4 + 2.2 + 1.6) / 3, (2.8 + 3.3 + 3.2) / 3, 4.4."""
    values, state = average(THETA, replies())
    assert values.tolist() == pytest.approx([1.1, 2.0666667, 3.1, 4.4])
    assert state.gamma_min == 1
    weighted, _ = average(THETA, replies(), weights="samples")
    assert weighted.tolist() == pytest.approx([0.944444, 2.177778, 3.025, 4.4], abs=1e-6)


def test_an_uncovered_parameter_keeps_its_value_and_is_reported() -> None:
    notes: dict[str, Any] = {}
    ctx = context(Options(policy="PT"), log=lambda _, **values: notes.update(values))
    state = ServerState(0, {"x": THETA}, Support(), State(gamma_min=3))
    new = Coverage().aggregate(ctx, state, replies(first="1110"))
    assert new.values["x"].tolist() == pytest.approx([1.1, 2.0666667, 3.1, 4.0])
    assert float(new.values["x"][3]) == 4.0
    assert notes == {"gamma": 0, "gamma_min": 0, "uncovered": 1}
    better = Coverage().aggregate(ctx, new, replies())
    assert (notes["gamma"], notes["gamma_min"], notes["uncovered"]) == (1, 0, 0)
    assert better.method.gamma_min == 0


def test_a_separable_quadratic_converges_alike_whatever_its_coverage() -> None:
    """F = |theta - a|^2 / 2, T steps: theta_q = a + (1 - lr)^(q T) (theta_0 - a) if covered."""
    target, start = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([4.0, 1.0, -1.0, 2.0])
    theta, lr, steps = start, 0.1, 3
    supports = [mask(bits) for bits in ("1110", "1100", "1000")]
    for number in range(1, 5):
        sent = []
        for client, support in enumerate(supports):
            block = support.gather(FOUR, {"x": theta})["x"]
            local = block.clone()
            for _ in range(steps):
                local -= lr * (local - target) * support.mask["x"]
            sent.append(answer(client, support, local - block))
        theta, _ = average(theta, sent)
        want = target + (1 - lr) ** (number * steps) * (start - target)
        assert theta[:3].tolist() == pytest.approx(want[:3].tolist(), abs=1e-5)
        assert theta[3] == start[3]


@pytest.mark.parametrize(
    ("kind", "params", "macs"),
    [("1", 159_010, 158_800), ("4", 119_260, 119_100), ("7", 79_510, 79_400)],
)
@pytest.mark.parametrize("policy", ["NP", "FS"])
def test_size_of_the_mnist_mlp(policy: Any, kind: str, params: int, macs: int) -> None:
    """h hidden neurons have 784 h + h + 10 h + 10 parameters and 794 h multiply-adds."""
    torch.manual_seed(0)
    model = plugins.lookup("models", "mnist-mlp")((1, 28, 28), 10)
    layout = trace(model, torch.zeros(1, 1, 28, 28))
    values = {name: model.state_dict()[name] for name in layout.tensors}
    options = Options(policy=policy, setting="1")
    support = make_part(grade_layers(layout, values, options), TYPES[kind], policy)
    size = count_cost(layout, support)
    assert (size.params, size.macs) == (params, macs)
    if kind != "1":
        (kept,) = support.keep.values()
        size_l1 = values["fc1.weight"].abs().sum(1)
        gone = torch.ones(200, dtype=torch.bool)
        gone[kept] = False
        if policy == "NP":
            assert size_l1[kept].min() >= size_l1[gone].max()
        else:
            assert kept.tolist() == list(range(len(kept)))


def test_weights_of_the_mnist_mlp() -> None:
    """A quarter of the 156,800 first weights is 39,200; biases and the class layer stay."""
    torch.manual_seed(0)
    model = plugins.lookup("models", "mnist-mlp")((1, 28, 28), 10)
    layout = trace(model, torch.zeros(1, 1, 28, 28))
    values = {name: model.state_dict()[name] for name in layout.tensors}
    for layers in ("first", "all", "fc1"):
        quarter_of = grade_layers(layout, values, Options(layers=layers))
        assert set(quarter_of) == {"fc1.weight"}
    assert torch.bincount(quarter_of["fc1.weight"].flatten()).tolist() == [0, *[39_200] * 4]
    assert make_part(quarter_of, TYPES["6"], "WP").num_alive(layout) == 159_010 - 2 * 39_200
    size = values["fc1.weight"].abs()  # not signed, as one of the official scripts has it
    bounds = [size[quarter_of["fc1.weight"] == quarter].aminmax() for quarter in (1, 2, 3, 4)]
    assert all(a.max <= b.min for a, b in itertools.pairwise(bounds))


def groups() -> Layout:
    """Two hidden layers: one of eight channels in blocks of two, one of three channels."""
    wide = Member("a.weight", 0, torch.arange(8)[:, None], produces=True)
    narrow = Member("b.weight", 0, torch.arange(3)[:, None], produces=True)
    specs = {"a.weight": TensorSpec((8, 2), True, 1.0), "b.weight": TensorSpec((3, 1), True, 1.0)}
    return Layout(specs, {"a": Group("a", 8, (wide,), block=2), "b": Group("b", 3, (narrow,))})


def test_blocks_stay_together_and_narrow_layers_whole() -> None:
    values = {"a.weight": torch.arange(16.0).reshape(8, 2), "b.weight": torch.ones(3, 1)}
    found = grade_layers(groups(), values, Options(policy="NP", layers="all"))
    assert {name: one.tolist() for name, one in found.items()} == {"a": [1, 1, 2, 2, 3, 3, 4, 4]}
    assert make_part(found, TYPES["7"], "NP").keep["a"].tolist() == [4, 5, 6, 7]
    fixed = grade_layers(groups(), values, Options(policy="FS", setting="1", layers="a, b"))
    assert fixed["a"].tolist() == [4, 4, 3, 3, 2, 2, 1, 1]
    weights = grade_layers(groups(), values, Options(layers="all"))
    assert set(weights) == {"a.weight"}


def test_layers_by_name() -> None:
    assert choose_layers(["conv1", "fc1"], "first") == ["conv1"]
    assert choose_layers(["conv1", "fc1"], "fc1") == ["fc1"]
    with pytest.raises(RecipeError, match="`conv2`, not a layer to prune"):
        choose_layers(["conv1", "fc1"], "fc1,conv2")
    with pytest.raises(LayoutError, match="no layer to prune"):
        choose_layers([], "first")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"setting": "1128"}, "types 1 to 7"),
        ({"setting": ""}, "types 1 to 7"),
        ({"policy": "FS"}, "1, 4 and 7"),
        ({"policy": "FS", "setting": "147", "assign": "maxcover"}, "nested"),
        ({"policy": "NP", "mask_grad": False}, "mask"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Options(**options)
    flags = {f"method__{key}": value for key, value in options.items()}
    with pytest.raises(UsageError, match=text):
        toy_recipe("coverage", **flags)


def start(tmp_path: Path, **changes: Any) -> tuple[Setup, Inline, ServerState, Any]:
    name = changes.pop("name", "coverage")
    setup = prepare_run(toy_recipe(name, **changes), tmp_path / "memory")
    executor = Inline(setup.site)
    return (setup, executor, *server.begin_training(setup.fed, setup.values, executor))


def play(tmp_path: Path, **changes: Any) -> tuple[Setup, ServerState, list[Any]]:
    setup, executor, state, totals = start(tmp_path, **changes)
    played = list(server.play(setup.fed, state, executor, totals))
    return setup, played[-1][0], [record for _, record in played]


def test_a_setting_without_holders_is_refused_before_round_1(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="`4444` leaves parameters that no client holds"):
        start(tmp_path, method__setting="4")
    # Parameters between a channel of quarter 1 and one of quarter 2 need a holder of both.
    with pytest.raises(RecipeError, match="no client holds"):
        start(tmp_path, method__setting="5677", method__policy="NP", method__layers="all")
    start(tmp_path, method__setting="5677", method__policy="WP", method__layers="all")


def test_clients_without_samples_hold_nothing(tmp_path: Path) -> None:
    """Client 0 alone has the whole model, until it has no samples."""
    changes = {"method__setting": "1444", "method__types": "client"}
    setup, executor, *_ = start(tmp_path, **changes)
    fed = replace(setup.fed, num_examples=(0, *setup.fed.num_examples[1:]))
    with pytest.raises(RecipeError, match="`444` leaves parameters that no client holds"):
        server.begin_training(fed, setup.values, executor)


def test_uncovered_parameters_stay_and_are_counted(tmp_path: Path) -> None:
    """The toy's first layer has 72 weights, so a quarter is 18."""
    changes = {"method__setting": "4", "method__policy": "PT", "method__allow_uncovered": True}
    setup, state, records = play(tmp_path, **changes)
    least = state.method.quarters["stem.weight"] == 1
    assert int(least.sum()) == 18
    before, after = setup.values["stem.weight"], state.values["stem.weight"]
    assert torch.equal(before[least], after[least])
    assert not (before[~least] == after[~least]).any()
    for record in records:
        assert record.notes == {"gamma": 0, "gamma_min": 0, "uncovered": 18}
        assert record.coverage == 0


def test_all_type_1_is_fedavg(tmp_path: Path) -> None:
    """By samples it is FedAvg bit for bit; by default it is FedAvg with equal weights."""
    _, plain, plain_records = play(tmp_path / "a", name="fedavg", wire__codec="sparse")
    _, mine, my_records = play(tmp_path / "b", method__setting="1", method__weights="samples")
    for name, value in plain.values.items():
        assert torch.equal(value, mine.values[name])
    for a, b in zip(plain_records, my_records, strict=True):
        # The jobs differ by the method's name alone, which is two letters longer.
        assert b.down_bytes - a.down_bytes == 2 * len(a.clients)
        assert a.up_bytes == b.up_bytes
    setup, executor, state, _ = start(tmp_path / "c", name="fedavg")
    ctx = setup.fed.context(1, "round", lambda *_, **__: None)
    asks = foresee(setup.fed, state, 1)
    answers = exchange(setup.fed, state, asks, executor, round=1).answers
    equal = merge_answers(ctx, state, answers, weights=[1.0] * 4)
    _, once, _ = play(tmp_path / "d", method__setting="1", rounds=1)
    for name, value in equal.values.items():
        assert torch.equal(value, once.values[name])


@pytest.mark.parametrize("policy", ["WP", "NP", "FS", "PT"])
def test_every_policy_trains_and_without_a_learning_rate_changes_nothing(
    policy: str, tmp_path: Path
) -> None:
    changes = {"method__policy": policy, "method__setting": "1447", "method__layers": "all"}
    setup, state, records = play(tmp_path / "still", local__lr=0.0, **changes)
    for name, spec in setup.fed.layout.tensors.items():
        if spec.is_parameter:
            assert torch.equal(state.values[name], setup.values[name])
    setup, state, records = play(tmp_path / "moving", **changes)
    for record in records:
        assert sorted(client.notes["type"] for client in record.clients) == [1, 4, 4, 7]
        assert record.notes["gamma"] == record.coverage == 1
        for client in record.clients:
            assert (client.pruning_error == 0) == (client.notes["ratio"] == 0)
            assert client.notes["ratio"] == {1: 0.0, 4: 0.25, 7: 0.5}[client.notes["type"]]
    fixed = policy in ("FS", "PT")
    first = grade_layers(setup.fed.layout, setup.values, setup.fed.options)
    changed = any(not torch.equal(first[name], state.method.quarters[name]) for name in first)
    assert changed != fixed


def test_types_of_clients_lower_the_running_minimum(tmp_path: Path) -> None:
    """Two of four clients with types 1, 1, 1, 4 hold quarter 1 once or twice."""
    changes = {"method__setting": "1114", "method__types": "client", "clients_per_round": 2}
    _, state, records = play(tmp_path, rounds=6, **changes)
    gammas = [record.notes["gamma"] for record in records]
    assert gammas == [1 if 3 in record.cohort else 2 for record in records]
    assert set(gammas) == {1, 2}
    lowest = [min(gammas[: number + 1]) for number in range(6)]
    assert [record.notes["gamma_min"] for record in records] == lowest
    assert state.method.gamma_min == 1


def test_masks_that_never_change_travel_once(tmp_path: Path) -> None:
    changes = {"method__policy": "PT", "method__types": "client", "method__setting": "1234"}
    _, state, records = play(tmp_path, wire__codec="sparse", **changes)
    first, second, _ = records
    assert sorted(state.masks_held) == [0, 1, 2, 3]
    for a, b in zip(first.clients, second.clients, strict=True):
        saved = a.down_bytes - b.down_bytes
        assert (saved >= 9) == (a.notes["type"] != 1)  # 72 bits, and their name
        assert a.up_bytes - b.up_bytes in range(-8, 9)


def test_a_mask_that_a_client_has_does_not_travel_again(tmp_path: Path) -> None:
    """Types are dealt anew; who gets the type of the round before has its masks, or needs none."""
    changes = {"method__policy": "PT", "method__setting": "1234", "rounds": 7}
    setup, executor, state, totals = start(tmp_path, **changes)
    types: dict[int, int] = {}
    seen: set[tuple[bool, bool]] = set()
    for after, record in server.play(setup.fed, state, executor, totals):
        for ask in foresee(setup.fed, state, after.round):
            has_it, is_whole = types.get(ask.client) == ask.record["type"], not ask.support.mask
            job = make_job(setup.fed, state, ask, after.round)
            assert job.is_mask_known == (has_it and not is_whole)
            seen.add((has_it, is_whole))
        types = {client.client: client.notes["type"] for client in record.clients}
        state = after
    assert len(seen) == 4


def test_unmasked_gradients_move_pruned_weights_but_do_not_upload_them(tmp_path: Path) -> None:
    def run(folder: str, **changes: Any) -> list[Answer]:
        setup, executor, state, _ = start(tmp_path / folder, method__setting="1444", **changes)
        brought = exchange(setup.fed, state, foresee(setup.fed, state, 1), executor, round=1)
        assert brought.refusals == []
        return brought.answers

    masked, free = run("a"), run("b", method__mask_grad=False)
    assert len(masked) == len(free) == 4
    for one, other in zip(masked, free, strict=True):
        mine, its = one.work.values, other.work.values
        assert torch.equal(mine["stem.weight"], its["stem.weight"]) == (one.ask.record["type"] == 1)
        for name, bits in one.ask.support.mask.items():
            assert not mine[name][~bits].any()
            assert not its[name][~bits].any()


def test_pruning_error_is_the_lost_share_of_the_squared_norm(tmp_path: Path) -> None:
    setup, executor, state, _ = start(tmp_path, method__setting="1444")
    _, record = next(server.play(setup.fed, state, executor, server.Totals()))
    names = [n for n, spec in setup.fed.layout.tensors.items() if spec.is_parameter]
    norm = sum(float(setup.values[name].square().sum()) for name in names)
    least = state.method.quarters["stem.weight"] == 1
    lost = float(setup.values["stem.weight"][least].square().sum())
    for client in record.clients:
        want = 0.0 if client.notes["type"] == 1 else lost / norm
        assert client.pruning_error == pytest.approx(want, abs=1e-7)
    assert lost > 0


def linear(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return a model without a hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


def test_a_model_without_hidden_layers_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("nets.tiny", linear)
    with pytest.raises(LayoutError, match="no layer to prune"):
        start(tmp_path)
