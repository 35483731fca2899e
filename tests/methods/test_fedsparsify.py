"""FedSparsify: schedule, purge, merge by votes, and what the rounds of both variants keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from contexts import round_context

from fpcli.engine import server
from fpcli.engine.exchange import exchange
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.planning import foresee
from fpcli.engine.types import Answer, Ask, ServerState, Support, Timing, Traffic, Work
from fpcli.methods.fedsparsify import FedSparsify, Options, purge_weights
from fpcli.pruning.polynomial import find_sparsity
from fpcli.recipe.idle import find_idle
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire.codecs import Sparse

AT_ONCE: dict[str, Any] = {"method__initial_sparsity": 0.3}
MASKED: dict[str, Any] = {}
LOCAL = {"method__variant": "local"}

A = torch.tensor([[0.5, -0.1, 0.3], [0.05, -0.7, 0.2]])
B = torch.tensor([0.0, -0.25, 0.4])
LAYOUT = Layout(
    {
        "a": TensorSpec((2, 3), True, 1.0),
        "b": TensorSpec((3,), True),
        "mean": TensorSpec((3,), False),
    },
    {},
)
VALUES = {"a": A, "b": B, "mean": torch.tensor([0.01, 0.02, 0.03])}


def play(
    tmp_path: Path, method: str = "fedsparsify", **changes: Any
) -> tuple[Setup, list[ServerState], list[RoundRecord]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    played = list(server.play(setup.fed, state, executor, totals))
    return setup, [state, *(one for one, _ in played)], [record for _, record in played]


def alive(setup: Setup, state: ServerState) -> int:
    return state.support.num_alive(setup.fed.layout)


def num_parameters(setup: Setup) -> int:
    return Support().num_alive(setup.fed.layout)


def test_the_schedule_of_every_round() -> None:
    """T=200, t0=1, n=3, from 0 to 0.95; worked out by hand from the formula."""
    options = Options(final_sparsity=0.95)
    wanted = {
        1: 0.0, 2: 0.01425, 3: 0.028356, 10: 0.123153, 50: 0.543146, 100: 0.829451, 150: 0.934931,
        200: 0.95,
    }  # fmt: skip
    for number, sparsity in wanted.items():
        assert options.find_target(number, 200) == pytest.approx(sparsity, abs=1e-6)
    assert options.find_target(201, 200) == 0.95


def test_the_schedule_of_every_fifth_round() -> None:
    """Before round 5 the formula gives less than 0, which prunes nothing."""
    options = Options(final_sparsity=0.95, prune_every=5)
    wanted = {2: 0.0, 4: 0.0, 5: 0.056143, 9: 0.056143, 10: 0.123153, 11: 0.123153, 199: 0.949985}
    for number, sparsity in wanted.items():
        assert options.find_target(number, 200) == pytest.approx(sparsity, abs=1e-6)


def test_controls_of_the_schedule() -> None:
    """At once after a round, in the last round only, and in a straight line."""
    once = Options(final_sparsity=0.8, initial_sparsity=0.8, prune_start=3)
    assert [once.find_target(number, 6) for number in range(1, 7)] == [0, 0, 0, 0.8, 0.8, 0.8]
    last = Options(final_sparsity=0.8, prune_start=5)
    assert [last.find_target(number, 6) for number in range(1, 7)] == [0, 0, 0, 0, 0, 0.8]
    line = [find_sparsity(at, start=0, end=4, final=0.8, exponent=1.0) for at in range(1, 5)]
    assert line == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_one_ranking_of_all_tensors() -> None:
    """int(0.497119 * 9) = 4 leave, so that the threshold is 0.25; the buffer is not asked."""
    masks = purge_weights(LAYOUT, VALUES, Options(), 0.497119)
    assert masks.keys() == {"a", "b"}
    assert masks["a"].tolist() == [[True, False, True], [False, True, False]]
    assert masks["b"].tolist() == [False, True, True]


def test_a_ranking_of_each_tensor() -> None:
    masks = purge_weights(LAYOUT, VALUES, Options(ranking="layer"), 0.6)
    assert masks["a"].tolist() == [[True, False, True], [False, True, False]]
    assert masks["b"].tolist() == [False, True, True]


def test_weights_alone_are_ranked() -> None:
    masks = purge_weights(LAYOUT, VALUES, Options(prune_scope="weights"), 0.5)
    assert masks.keys() == {"a"}
    assert masks["a"].tolist() == [[True, False, True], [False, True, False]]


def test_ties_at_the_threshold_stay() -> None:
    layout = Layout({"w": TensorSpec((5,), True)}, {})
    masks = purge_weights(layout, {"w": torch.tensor([0.1, 0.1, 0.1, 0.2, 0.3])}, Options(), 0.4)
    assert masks["w"].all()


def test_chance_leaves_whatever_the_values_and_more_of_the_same() -> None:
    options = Options(ranking="random")
    few, many = (purge_weights(LAYOUT, VALUES, options, share, seed=3) for share in (0.4, 0.8))
    assert sum(int((~mask).sum()) for mask in few.values()) == 3
    assert sum(int((~mask).sum()) for mask in many.values()) == 7
    assert all(bool((few[name] | ~many[name]).all()) for name in many)
    other = purge_weights(
        LAYOUT, {name: -2 * x for name, x in VALUES.items()}, options, 0.4, seed=3
    )
    assert all(torch.equal(few[name], other[name]) for name in few)


@pytest.mark.parametrize(
    ("size", "left", "value_bytes", "bitmap_bytes"),
    [(118_282, 5_915, 23_660, 14_786), (2_948_801, 147_441, 589_764, 368_601)],
)
def test_sizes_at_95_percent(size: int, left: int, value_bytes: int, bitmap_bytes: int) -> None:
    """Of the MLP and of the network for brain ages; masks travel in their smallest form."""
    layout = Layout({"w": TensorSpec((size,), True)}, {})
    values = torch.randperm(size, generator=torch.Generator().manual_seed(0)).float() + 1
    (mask,) = purge_weights(layout, {"w": values}, Options(), 0.95).values()
    assert int(mask.sum()) == left
    parts = Sparse().encode("w", values, mask, known=False)
    assert (parts["w"].nbytes, parts["w#bitmap"].nbytes) == (value_bytes, bitmap_bytes)


MODELS = ([[1, 0], [3, 4]], [[2, 1], [0, 0]], [[3, 0], [6, 0]], [[4, 4], [0, 0]])


def merge_models(options: Options, models: Sequence[Any] = MODELS, **changes: Any) -> ServerState:
    """Return the state after clients of 10, 20, ... samples have purged what is 0 in round 2."""
    layout = Layout({"w": TensorSpec((2, 2), True, 1.0)}, {})
    old = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    answers = []
    for client, rows in enumerate(models):
        new = torch.tensor(rows, dtype=torch.float32)
        support = Support(mask={"w": new.ne(0)})
        work = Work({"w": torch.where(new.ne(0), new - old, 0.0)}, metrics={"loss": 0.0})
        times = Timing(0.0, 0.0, 0.0)
        num = 10 * (client + 1)
        answers.append(Answer(Ask(client), work, support, num, Traffic(0, 0), times, 0.0))
    counts = [answer.num_examples for answer in answers]
    more = {"round": 2, "rounds": 2, "num_examples": counts, **changes}
    ctx = round_context(options, layout, len(models), **more)
    state = ServerState(1, {"w": old}, Support())
    return FedSparsify().aggregate(ctx, state, answers)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("fedavg", [[3.0, 1.8], [2.1, 0.4]]),
        ("nnz", [[3.0, 3.0], [5.25, 4.0]]),
        ("mv", [[3.0, 1.8], [2.1, 0.0]]),
        ("nnz-mv", [[3.0, 3.0], [5.25, 0.0]]),
    ],
)
def test_four_ways_to_merge(rule: Any, wanted: list[list[float]]) -> None:
    state = merge_models(Options(variant="local", merge=rule))
    torch.testing.assert_close(state.values["w"], torch.tensor(wanted))
    assert torch.equal(state.support.mask["w"], torch.tensor(wanted).ne(0))
    assert not state.values["w"][~state.support.mask["w"]].any()


def test_what_is_a_majority() -> None:
    wanted = {
        "majority": [1, 1, 2, 2, 3],
        "official-floor": [1, 1, 1, 2, 2],
        "strict": [1, 2, 2, 3, 3],
    }
    for rule, least in wanted.items():
        options = Options(variant="local", vote=rule)  # type: ignore[arg-type]
        assert [options.least_votes(num) for num in range(1, 6)] == least
    kept = merge_models(Options(variant="local", vote="strict")).support.mask["w"]
    assert kept.tolist() == [[True, False], [False, False]]
    two = [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[1, 1], [1, 0]]]
    floor = merge_models(Options(variant="local", vote="official-floor"), two).support.mask["w"]
    most = merge_models(Options(variant="local"), two).support.mask["w"]
    assert floor.tolist() == [[True, True], [True, False]]
    assert most.tolist() == [[True, True], [False, False]]


def test_an_exact_0_is_alive_unless_zeros_are_masks() -> None:
    """Of two models 1 and -1 that weigh alike the mean is 0."""
    models = [[[1, 1], [1, 1]], [[-0.5, 1], [1, 1]]]
    for is_dead in (False, True):
        state = merge_models(Options(variant="local", mask_from_zeros=is_dead), models)
        assert float(state.values["w"][0, 0]) == 0.0
        assert bool(state.support.mask["w"][0, 0]) != is_dead


@pytest.mark.parametrize("variant", ["global", "local"])
def test_without_sparsity_it_is_fedavg_bit_for_bit(variant: str, tmp_path: Path) -> None:
    changes = {"method__variant": variant, "method__final_sparsity": 0.0}
    _, ours, records = play(tmp_path / "a", **changes)
    _, plain, others = play(tmp_path / "b", "fedavg", wire__codec="sparse")
    for name, value in plain[-1].values.items():
        assert torch.equal(ours[-1].values[name], value)
    assert ours[-1].support.mask == {}
    for one, other in zip(records, others, strict=True):
        assert one.up_bytes == other.up_bytes
        assert one.down_bytes - other.down_bytes == 4 * len("sparsify") - 4 * len("avg")


def test_the_server_purges_to_the_target_and_nothing_returns(tmp_path: Path) -> None:
    """Momentum and weight decay move no dead weight either; all messages shrink."""
    setup, states, records = play(tmp_path, rounds=5)
    size = num_parameters(setup)
    options: Options = setup.fed.options
    assert states[1].support.mask == {}
    for state in states[2:]:
        target = options.find_target(state.round, 5)
        assert alive(setup, state) == size - int(target * size + 1e-9)
    for before, after in pairwise(states[2:]):
        assert after.support.is_within(setup.fed.layout, before.support)
    asks = foresee(setup.fed, states[3], 4)
    answers = exchange(setup.fed, states[3], asks, Inline(setup.site), round=4).answers
    for name, mask in states[3].support.mask.items():
        assert not states[3].values[name][~mask].any()
        for answer in answers:
            assert answer.work.mask is None
            assert not answer.work.values[name][~mask].any()
    ups = [record.up_bytes for record in records]
    for number in (3, 4):  # rounds 4 and 5 differ by the values that died
        died = alive(setup, states[number - 1]) - alive(setup, states[number])
        assert ups[number - 1] - ups[number] == pytest.approx(4 * died * 4, abs=64)
    assert records[-1].notes["sparsity"] == pytest.approx(0.9, abs=1 / size)


def test_clients_purge_to_the_target_and_the_server_votes(tmp_path: Path) -> None:
    setup, states, records = play(tmp_path, **LOCAL, rounds=4)
    size = num_parameters(setup)
    target = setup.fed.options.find_target(3, 4)
    asks = foresee(setup.fed, states[2], 3)
    answers = exchange(setup.fed, states[2], asks, Inline(setup.site), round=3).answers
    for answer in answers:
        assert answer.support.num_alive(setup.fed.layout) == size - int(target * size)
        assert answer.support.is_within(setup.fed.layout, states[2].support)
    votes = sum(answer.support.mask["out.weight"].long() for answer in answers)
    assert torch.equal(states[3].support.mask["out.weight"], votes >= 2)
    for before, after in pairwise(states[2:]):
        assert after.support.is_within(setup.fed.layout, before.support)
    shares = records[2].notes["votes"]
    assert len(shares) == 5
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)
    kept = sum(shares[2:]) * alive(setup, states[2])
    assert kept == pytest.approx(alive(setup, states[3]), abs=3e-4 * size)
    for name, mask in states[4].support.mask.items():
        assert not states[4].values[name][~mask].any()


def test_one_client_that_purges_is_as_a_server_that_does(tmp_path: Path) -> None:
    ends = []
    for variant in ("global", "local"):
        changes = {"method__variant": variant, "task__clients": 1}
        _, states, _ = play(tmp_path / variant, **changes)
        ends.append(states[-1])
    for name, value in ends[0].values.items():
        torch.testing.assert_close(value, ends[1].values[name])
    for name, mask in ends[0].support.mask.items():
        assert torch.equal(mask, ends[1].support.mask[name])


def test_fine_tuning_keeps_what_is_purged_at_0_and_takes_time(tmp_path: Path) -> None:
    found = {}
    for epochs in (0, 2):
        changes = {**LOCAL, "rounds": 2, "method__finetune_epochs": epochs, "local__epochs": 1}
        setup, states, _ = play(tmp_path / str(epochs), **changes)
        asks = foresee(setup.fed, states[1], 2)
        answers = exchange(setup.fed, states[1], asks, Inline(setup.site), round=2).answers
        found[epochs] = answers[0]
    plain, tuned = found[0], found[2]
    assert tuned.work.num_steps == 3 * plain.work.num_steps
    assert tuned.time.compute_s == pytest.approx(3 * plain.time.compute_s)
    for name, mask in plain.support.mask.items():
        assert torch.equal(tuned.support.mask[name], mask)
        assert not tuned.work.values[name][~mask].any()
    assert not torch.equal(plain.work.values["out.weight"], tuned.work.values["out.weight"])


def test_the_controls_are_as_sparse_and_other_weights_stay(tmp_path: Path) -> None:
    masks = {}
    for name, changes in {
        "magnitude": {},
        "random": {"method__ranking": "random"},
        "last": {"method__prune_start": 2},
    }.items():
        setup, states, _ = play(tmp_path / name, **changes)
        assert alive(setup, states[3]) == num_parameters(setup) - int(0.9 * num_parameters(setup))
        masks[name] = states[3].support.mask["out.weight"]
        assert (states[2].support.mask == {}) == (name == "last")
    assert not torch.equal(masks["magnitude"], masks["random"])


def test_a_layer_without_weights_is_reported_and_trains_on(tmp_path: Path) -> None:
    """Of 99 % of random weights whole layers go; every message and evaluation still works."""
    changes = {"method__initial_sparsity": 0.999, "method__final_sparsity": 0.999}
    _, states, records = play(tmp_path, **changes, rounds=4)
    dead = records[1].notes["dead_layers"]
    assert dead
    assert records[1].notes["warning"] == f"no weight of {', '.join(dead)} is left"
    assert "warning" not in records[2].notes
    assert records[2].notes["dead_layers"] == dead
    assert records[-1].evaluation is not None
    assert all(not states[-1].values[name].any() for name in dead)


def test_local_rounds_resume_with_the_same_bits(tmp_path: Path) -> None:
    """A round depends on the state before it alone: clients keep nothing."""
    setup, states, _ = play(tmp_path / "a", **LOCAL)
    executor = Inline(replace(setup.site, home=tmp_path / "b"))
    *_, (last, _) = server.play(setup.fed, states[1], executor, server.Totals())
    for name, value in states[3].values.items():
        assert torch.equal(last.values[name], value)


def test_impossible_options() -> None:
    refused: Mapping[str, dict[str, Any]] = {
        "is above": {"initial_sparsity": 0.95},
        "belong to variant local": {"merge": "nnz"},
        "belong to variant": {"finetune_epochs": 1},
        "random belongs": {"variant": "local", "ranking": "random"},
        "vote belongs": {"variant": "local", "merge": "nnz", "vote": "strict"},
    }
    for words, options in refused.items():
        with pytest.raises(ValueError, match=words):
            Options(**options)


def test_what_has_no_effect_within_the_rounds_is_told() -> None:
    def tell(**changes: Any) -> list[str]:
        return [
            line for line in find_idle(toy_recipe("fedsparsify", **changes)) if "method." in line
        ]

    assert tell() == []
    assert "no round purges" in tell(method__prune_start=3)[0]
    assert "is not reached, the last round has 0.7875" in tell(method__prune_every=2)[0]
    assert "is not reached, the last round has 0:" in tell(method__prune_every=4)[0]
    assert tell(method__final_sparsity=0.0, method__prune_start=3) == []
