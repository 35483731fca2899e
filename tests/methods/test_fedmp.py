"""FedMP's arithmetic: bandit, reward and recovery by hand-made numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.methods.fedmp import (
    Agent,
    Options,
    Pull,
    choose_ratio,
    compute_rewards,
    learn,
    scale_rewards,
    summarise_intervals,
)
from fpcli.rng import stream
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.merge import Contribution, merge
from fpcli.structure.support import Support
from fpcli.train.setup import prepare_run

PRINTED = Options(ratio_max=1.0, reward_norm="none", ucb_scale=1.0, discount=0.9)


def pulled(*observations: tuple[float, float]) -> tuple[Pull, ...]:
    return tuple(Pull(arm, reward, arm, arm) for arm, reward in observations)


def test_statistics_of_the_printed_form() -> None:
    """Weights of three pulls under 0.9 are .729, .81, .9; the second lies in the first interval.

    N = (.81, 1.629), n = 2.439; R2 = (.729 * .2 + .9 * .4) / 1.629; c = sqrt(2 ln 2.439 / N).
    """
    agent = Agent(((0.0, 0.4), (0.4, 1.0)), pulled((0.5, 0.2), (0.1, 0.6), (0.7, 0.4)))
    first, second = summarise_intervals(agent, PRINTED)
    assert (first.num, second.num) == pytest.approx((0.81, 1.629))
    assert (first.mean, second.mean) == pytest.approx((0.6, 0.310497), abs=1e-6)
    assert (first.bonus, second.bonus) == pytest.approx((1.483729, 1.046253), abs=1e-6)
    assert (first.bound, second.bound) == pytest.approx((2.083729, 1.356750), abs=1e-6)
    assert 0.0 <= choose_ratio(agent, PRINTED, stream(0, "arm")) < 0.4


def test_one_observation_leaves_no_nan() -> None:
    """n = lambda < 1 clamps to 1, so the visited interval has no bonus and the other is open."""
    agent = Agent(((0.0, 0.4), (0.4, 1.0)), pulled((0.5, 0.2)))
    first, second = summarise_intervals(agent, PRINTED)
    assert first.bound == float("inf")
    assert (second.num, second.mean, second.bonus, second.bound) == (0.9, 0.2, 0.0, 0.2)


@pytest.mark.parametrize("norm", ["none", "minmax"])
def test_rewards_divide_the_drop_by_the_distance_from_the_mean_time(norm: Any) -> None:
    """Mean of 12, 20, 16 s is 16; distances 4, 4 and the floor 0.01 * 16 = 0.16; drop 0.08."""
    options = Options(reward_norm=norm, gap_floor=0.01)
    assert compute_rewards([0.08] * 3, [12, 20, 16], options) == pytest.approx([0.02, 0.02, 0.5])
    assert compute_rewards([-0.08], [5.0], options) == pytest.approx([-0.08 / 0.05])


@pytest.mark.parametrize("drop", [0.08, 0.0, -3.0])
def test_the_reward_of_a_round_is_nearness_to_its_mean_time_alone(drop: float) -> None:
    """The floor is 0.1 * 16 = 1.6: distances 4, 4, 0 give 0.4, 0.4, 1; and 1, 1, 0 give 1."""
    options = Options()
    assert (options.reward_norm, options.gap_floor) == ("round", 0.1)
    assert (options.discount, options.ucb_scale) == (0.999, 0.1)
    assert compute_rewards([drop] * 3, [12, 20, 16], options) == pytest.approx([0.4, 0.4, 1.0])
    assert compute_rewards([drop] * 3, [15, 17, 16], options) == [1.0, 1.0, 1.0]
    assert compute_rewards([drop], [5.0], options) == [1.0]


def test_minmax_maps_rewards_to_the_unit_interval() -> None:
    options = Options(reward_norm="minmax")
    assert scale_rewards([2.0, 4.0, 3.0], options) == [0.0, 1.0, 0.5]
    assert scale_rewards([2.0, 2.0], options) == [0.5, 0.5]
    assert scale_rewards([2.0, 4.0], PRINTED) == [2.0, 4.0]
    assert scale_rewards([0.4, 1.0], Options()) == [0.4, 1.0]


SMALLEST = 5e-324
"""The smallest number above 0 in double precision."""


@pytest.mark.parametrize("discount", [SMALLEST, 1e-310, 1e-160, 1e-5, 0.5])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1e300])
def test_old_pulls_under_a_strong_discount_leave_no_nan(discount: float, scale: float) -> None:
    """Counts from next to nothing down to 0 keep their mean; without a bonus it is the bound."""
    options = replace(PRINTED, discount=discount, ucb_scale=scale)
    agent = Agent(((0.0, 0.4), (0.4, 0.7), (0.7, 1.0)), pulled((0.5, 0.2), (0.5, 0.4), (0.1, 0.6)))
    first, second, third = summarise_intervals(agent, options)
    assert first.mean == pytest.approx(0.6)
    assert second.mean == pytest.approx((0.4 + discount * 0.2) / (1 + discount))
    assert third.bound == float("inf")
    for stats in (first, second):
        assert stats.bound == stats.mean + (scale * stats.bonus if scale else 0.0)
        assert stats.bound == stats.bound  # no NaN
        assert scale or 0.0 <= stats.bound <= 1.0


def test_a_tiny_count_has_a_finite_bonus() -> None:
    """Many new pulls make n large, and the one old pull counts 0.4 ** 790: below normal numbers."""
    options = replace(PRINTED, discount=0.4, ucb_scale=1.0, inherit="copy")
    new = tuple(Pull(0.5, 0.5, 0.4, 1.0) for _ in range(789))
    agent = Agent(((0.0, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.0)), (*pulled((0.1, 0.3)), *new))
    old, *_ = summarise_intervals(agent, options)
    assert 0.0 < old.num < 2.3e-308
    assert old.mean == pytest.approx(0.3)
    assert old.bonus == pytest.approx((2 * math.log(2)) ** 0.5 / 0.4**395, rel=1e-6)


def test_an_arm_stays_in_an_interval_of_rounding_errors() -> None:
    """Between 0.4 and the next number, every second draw would round up to the end."""
    high = math.nextafter(0.4, 1.0)
    agent = Agent(((0.4, high),))
    for step in range(20):
        arm = choose_ratio(agent, Options(), stream(0, "arm", step))
        assert arm == 0.4
        assert learn(agent, arm, 1.0, Options(split_above=1e-300)).leaves == ((0.4, high),)


def test_fast_and_slow_clients_part_and_stay_parted() -> None:
    """Four agents, two of clients that take three times as long; no training, times alone.

    A loss that falls hundredfold, as in a run, drowns what `minmax` has learned.
    """
    options = Options(ratio_max=0.8)
    agents = [Agent(((0.0, 0.8),))] * 4
    factors, late = (1, 3, 1, 3), []
    for step in range(80):
        arms = [choose_ratio(a, options, stream(i, "arm", step)) for i, a in enumerate(agents)]
        times = [f * (4 * (1 - a) ** 2 + 2 * (1 - a)) for f, a in zip(factors, arms, strict=True)]
        earned = compute_rewards([0.9**step] * 4, times, options)
        agents = [learn(*each, options) for each in zip(agents, arms, earned, strict=True)]
        if step >= 50:
            late.append(arms)
    fast = [arms[i] for arms in late for i in (0, 2)]
    slow = [arms[i] for arms in late for i in (1, 3)]
    assert sum(slow) / len(slow) - sum(fast) / len(fast) > 0.25


def test_a_pull_splits_its_interval_at_the_arm() -> None:
    agent = learn(Agent(((0.0, 1.0),)), 0.3, 1.0, PRINTED)
    assert agent.leaves == ((0.0, 0.3), (0.3, 1.0))
    assert [s.num for s in summarise_intervals(agent, PRINTED)] == [0.0, 0.9]  # [lo, a) is untried
    halved = learn(Agent(((0.0, 1.0),)), 0.3, 1.0, replace(PRINTED, split="midpoint"))
    assert halved.leaves == ((0.0, 0.5), (0.5, 1.0))
    assert [s.num for s in summarise_intervals(halved, PRINTED)] == [0.9, 0.0]


def test_the_first_round_splits_but_records_nothing() -> None:
    agent = learn(Agent(((0.0, 1.0),)), 0.3, None, PRINTED)
    assert len(agent.leaves) == 2
    assert agent.pulls == ()


def test_narrow_intervals_and_arms_on_the_border_do_not_split() -> None:
    narrow = learn(Agent(((0.0, 0.05), (0.05, 1.0))), 0.03, 1.0, PRINTED)
    assert narrow.leaves == ((0.0, 0.05), (0.05, 1.0))
    border = learn(Agent(((0.0, 0.4), (0.4, 1.0))), 0.4, 1.0, PRINTED)
    assert border.leaves == ((0.0, 0.4), (0.4, 1.0))


def test_copied_pulls_count_in_both_halves() -> None:
    options = replace(PRINTED, inherit="copy")
    agent = learn(Agent(((0.0, 1.0),)), 0.3, 1.0, options)
    assert [s.num for s in summarise_intervals(agent, options)] == [0.9, 0.9]


def test_old_pulls_are_dropped_below_a_weight() -> None:
    """0.9 ** 4 = 0.6561 and 0.9 ** 5 = 0.59049, so four pulls stay above 0.6."""
    options = replace(PRINTED, forget_below=0.6)
    agent = Agent(((0.0, 1.0),))
    for reward in range(8):
        agent = learn(agent, 0.5, float(reward), options)
    assert [pull.reward for pull in agent.pulls] == [4.0, 5.0, 6.0, 7.0]


def test_intervals_partition_the_arms_for_ever() -> None:
    options = Options()
    agent = Agent(((0.0, 0.8),))
    for step in range(60):
        arm = choose_ratio(agent, options, stream(0, "arm", step))
        agent = learn(agent, arm, -((arm - 0.4) ** 2), options)
    assert agent.leaves[0][0] == 0.0
    assert agent.leaves[-1][1] == 0.8
    assert all(a[1] == b[0] for a, b in zip(agent.leaves, agent.leaves[1:], strict=False))
    assert len(agent.leaves) <= 61
    for pull in agent.pulls:
        assert sum(low <= pull.arm < high for low, high in agent.leaves) == 1


@pytest.mark.parametrize(
    ("weights", "want"),
    [((1, 1, 1), [1.2, 2.3, 2.9, 4.1]), ((100, 200, 100), [1.075, 2.375, 2.925, 4.075])],
)
def test_residual_recovery(weights: tuple[float, ...], want: list[float]) -> None:
    """x = (1, 2, 3, 4), masks 1111, 1100, 1010; a client that cut a value returns the server's."""
    layout = Layout(
        {"x": TensorSpec((4,), True)},
        {"g": Group("g", 4, (Member("x", 0, torch.arange(4).reshape(4, 1)),))},
    )
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    trained = [([0, 1, 2, 3], [1.3, 2.3, 3.3, 4.3]), ([0, 1], [0.7, 2.6]), ([0, 2], [1.6, 2.4])]
    contributions = [
        Contribution(
            Support({"g": torch.tensor(keep)}), {"x": torch.tensor(values) - x[keep]}, weight
        )
        for (keep, values), weight in zip(trained, weights, strict=True)
    ]
    merged = merge(layout, {"x": x}, contributions, absent="keep")["x"]
    assert merged.tolist() == pytest.approx(want)


def play(method: str, tmp_path: Path, **changes: Any) -> tuple[Any, list[Any]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    played = list(server.play(setup.fed, state, executor, totals))
    return played[-1][0], [record for _, record in played]


def test_ratio_zero_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    plain, plain_records = play("fedavg", tmp_path)
    fixed, fixed_records = play("fedmp", tmp_path, method__ratio_max=0.0)
    for name, value in plain.values.items():
        assert torch.equal(value, fixed.values[name])
    # The jobs differ by the method's name alone, which is one letter shorter.
    for a, b in zip(plain_records, fixed_records, strict=True):
        assert a.down_bytes - b.down_bytes == len(a.clients)
        assert a.up_bytes == b.up_bytes


def test_no_learning_rate_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("fedmp", local__lr=0.0), tmp_path / "memory")
    state, _ = play("fedmp", tmp_path, local__lr=0.0)
    for name, value in setup.values.items():
        if setup.fed.layout.tensors[name].is_parameter:
            assert torch.equal(state.values[name], value)


def test_slow_clients_are_told_apart_in_the_log(tmp_path: Path) -> None:
    state, records = play("fedmp", tmp_path, rounds=4)
    first, last = records[0].clients[0].notes, records[-1].clients[0].notes
    assert first["reward"] is None
    assert isinstance(last["reward"], float)
    assert 0 <= last["ratio"] < 0.8
    assert last["leaves"] >= 2
    assert last["seconds"] == pytest.approx(
        sum(getattr(records[-1].clients[0], part) for part in ("compute_s", "down_s", "up_s"))
    )
    assert len(state.method.agents) == 4


def test_agents_of_absent_clients_do_not_move(tmp_path: Path) -> None:
    state, records = play("fedmp", tmp_path, clients_per_round=2, rounds=2)
    took_part = {client for record in records for client in record.cohort}
    for client, agent in state.method.agents.items():
        assert (len(agent.leaves) == 1) == (client not in took_part)


def test_local_losses_reward_each_client_by_its_own(tmp_path: Path) -> None:
    changes = {"method__reward_norm": "none", "method__gap_floor": 0.01}
    _, records = play("fedmp", tmp_path, method__reward_loss="local", rounds=2, **changes)
    drops = {c.client: c.loss for c in records[0].clients}
    seconds = {c.client: c.notes["seconds"] for c in records[1].clients}
    mean = sum(seconds.values()) / len(seconds)
    for client in records[1].clients:
        gap = max(abs(seconds[client.client] - mean), 0.01 * mean)
        assert client.notes["reward"] == pytest.approx((drops[client.client] - client.loss) / gap)
