"""normagg: FedNova's numbers by hand, its toy problem, and who is left out."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from replies import rounds

from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState
from fpcli.methods.normagg import (
    Options,
    choose_clients,
    compare_lengths,
    find_factors,
    measure_steps,
)
from fpcli.settings.learning import LocalConfig
from fpcli.train.setup import prepare_run

X = (1.0, 2.0)
TRAINED = ((0.0, 2.0), (1.0, 0.0), (-1.0, 1.0))
SIZES = (10.0, 20.0, 70.0)
PLAIN = LocalConfig()


def play(tmp_path: Path, method: str, **changes: Any) -> tuple[ServerState, list[RoundRecord]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    played = list(rounds(setup))
    return played[-1][0], [record for _, record in played]


def average(sizes: tuple[float, ...], trained: Any, factors: list[float]) -> list[float]:
    """Return x + sum_k p_k factor_k (x_k - x), as the engine merges changes."""
    parts = [n / sum(sizes) * factor for n, factor in zip(sizes, factors, strict=True)]
    return [
        x + sum(part * (own[at] - x) for part, own in zip(parts, trained, strict=True))
        for at, x in enumerate(X)
    ]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [((2, 4, 14), (-0.62, 0.38)), ((3, 3, 3), (-0.5, 0.9)), ((1, 5, 2), (-1.0, 0.925))],
)
def test_normalised_averaging_by_hand(steps: tuple[int, ...], wanted: tuple[float, ...]) -> None:
    """x = (1, 2), three clients of 10, 20 and 70 samples; FedAvg gives (-0.5, 0.9)."""
    norms = [measure_steps(tau, PLAIN) for tau in steps]
    factors = find_factors(SIZES, steps, norms)
    assert average(SIZES, TRAINED, factors) == pytest.approx(wanted)


def test_shares_are_those_of_the_clients_that_trained() -> None:
    """Clients 1 and 3 with 1 and 2 steps: tau_eff is 1.875."""
    factors = find_factors((10, 70), (1, 2), (1, 2))
    assert factors == pytest.approx([1.875, 0.9375])
    found = average((10.0, 70.0), (TRAINED[0], TRAINED[2]), factors)
    assert found == pytest.approx([-0.875, 1.1796875])


@pytest.mark.parametrize("scale", [1, 7])
def test_steps_in_proportion_to_samples_weigh_clients_alike(scale: int) -> None:
    """tau_k = c n_k: all changes' sum times sum n_k^2 / (sum n_k)^2, whatever c is."""
    steps = [scale * int(n) for n in SIZES]
    share = sum(n * n for n in SIZES) / sum(SIZES) ** 2
    wanted = [x - share * sum(x - own[at] for own in TRAINED) for at, x in enumerate(X)]
    assert average(SIZES, TRAINED, find_factors(SIZES, steps, steps)) == pytest.approx(wanted)
    assert wanted == pytest.approx([-0.62, 0.38])


@pytest.mark.parametrize(
    ("steps", "wanted"), [(1, 1.0), (2, 2.9), (3, 5.61), (5, 13.1441), (10, 41.38106)]
)
def test_momentum_repeats_gradients(steps: int, wanted: float) -> None:
    local = LocalConfig(momentum=0.9)
    assert measure_steps(steps, local) == pytest.approx(wanted, abs=1e-6)
    rho = 0.9
    closed = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
    assert measure_steps(steps, local) == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize(("steps", "wanted"), [(1, 1.0), (2, 1.9), (5, 4.0951), (10, 6.513216)])
def test_a_proximal_term_takes_gradients_back(steps: int, wanted: float) -> None:
    """alpha = lr mu = 0.1."""
    assert measure_steps(steps, LocalConfig(lr=0.2), 0.5) == pytest.approx(wanted, abs=1e-6)


def test_adam_counts_steps() -> None:
    assert measure_steps(7, LocalConfig(optimizer="adam", momentum=0.9), 0.5) == 7.0


def test_a_proximal_term_leaves_the_mean_of_steps() -> None:
    """tau_eff is (1 * 2 + 3 * 5) / 4 = 4.25 steps, over norms of 1.9 and 4.0951."""
    norms = [measure_steps(tau, LocalConfig(lr=0.2), 0.5) for tau in (2, 5)]
    factors = find_factors((1, 3), (2, 5), norms, 0.5)
    assert factors == pytest.approx([4.25 / 1.9, 4.25 / 4.0951])


@pytest.mark.parametrize(("momentum", "tau"), [(0.0, 9), (0.9, 12)])
def test_equal_steps_change_nothing_at_all(momentum: float, tau: int) -> None:
    norm = measure_steps(tau, LocalConfig(momentum=momentum))
    assert find_factors((3, 7, 11), (tau,) * 3, (norm,) * 3) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("lr", "averaged", "normalised"), [(0.001, 8.9964, 4.9900), (0.1, 8.5966, 4.0499)]
)
def test_fednovas_toy(lr: float, averaged: float, normalised: float) -> None:
    """f_k = (w - c_k)^2 / 2 with c = (0, 10), equal data, 1 and 9 steps of gradient descent.

    A client shrinks its distance to c_k by a share s_k = 1 - (1 - lr)^tau_k. So FedAvg's fixed
    point is sum s_k c_k / sum s_k, and with changes over their steps sum (s_k / tau_k) c_k over
    sum (s_k / tau_k); the optimum, 5, only as lr tau goes to 0.
    """
    centres, steps, w = (0.0, 10.0), (1, 9), {"fedavg": 0.0, "normagg": 0.0}
    shares = [1 - (1 - lr) ** tau for tau in steps]
    factors = {"fedavg": [1.0, 1.0], "normagg": find_factors((1, 1), steps, steps)}
    for _ in range(round(20 / lr)):
        for name, own in factors.items():
            changes = [s * (c - w[name]) for s, c in zip(shares, centres, strict=True)]
            w[name] += sum(f * change / 2 for f, change in zip(own, changes, strict=True))
    assert w["fedavg"] == pytest.approx(averaged, abs=1e-4)
    assert w["normagg"] == pytest.approx(normalised, abs=1e-4)
    assert w["fedavg"] == pytest.approx(10 * shares[1] / sum(shares), abs=1e-6)
    per_step = [s / tau for s, tau in zip(shares, steps, strict=True)]
    assert w["normagg"] == pytest.approx(10 * per_step[1] / sum(per_step), abs=1e-6)


def test_lengths_per_tensor() -> None:
    """Mean length by samples (1 * 5 + 3 * 1) / 4 = 2; a change of length 0 stays as it is."""
    first = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2)}
    second = {"a": torch.tensor([0.0, 1.0]), "b": torch.ones(1)}
    assert compare_lengths((1, 3), (first, second)) == [
        {"a": pytest.approx(0.4), "b": 1.0},
        {"a": pytest.approx(2.0), "b": pytest.approx(0.75)},
    ]


PAST = dict(enumerate([10.0, 12.0, 11.0, 40.0, 13.0]))


def choose(sizes: list[int], elapsed: int = 1, **options: Any) -> list[int]:
    return choose_clients(Options(**options), elapsed, PAST, dict(enumerate(sizes))).clients


def test_the_slow_are_left_out_unless_they_have_too_much() -> None:
    """Median 12, limit 18. Without client 3, 40 of 100 samples are left, less than half."""
    assert choose_clients(Options(), 1, PAST, dict.fromkeys(range(5), 10)).limit_s == 18
    assert choose([10] * 5) == [0, 1, 2, 4]
    assert choose([10, 10, 10, 60, 10]) == [0, 1, 2, 3, 4]
    assert choose([10, 10, 10, 60, 10], coverage=0.4) == [0, 1, 2, 4]


def test_everybody_trains_at_first_and_every_few_rounds() -> None:
    left_out = [elapsed for elapsed in range(12) if 3 not in choose([10] * 5, elapsed)]
    assert left_out == [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert [e for e in range(4) if 3 not in choose([10] * 5, e, warmup=3, readmit_every=0)] == [3]
    assert 3 in choose([10] * 5, prune_rule="none")


def test_some_stay_in_any_case_the_fastest() -> None:
    few = {"kappa": 0.1, "coverage": 0.0}
    assert choose([10] * 5, **few) == [0, 2]
    assert choose([10] * 5, **few, keep_at_least=4) == [0, 1, 2, 4]


def test_the_slowest_share_is_left_out() -> None:
    assert choose([10] * 5, prune_rule="quantile") == [0, 1, 2, 4]
    assert choose([10] * 5, prune_rule="quantile", slowest=0.4) == [0, 1, 2]
    assert choose([10] * 5, prune_rule="quantile", slowest=0.0) == [0, 1, 2, 3, 4]


def test_who_has_no_past_is_not_left_out() -> None:
    chosen = choose_clients(Options(), 1, {0: 1.0, 1: 9.0, 2: 1.0}, dict.fromkeys(range(5), 10))
    assert chosen.clients == [0, 2, 3, 4]
    nothing = choose_clients(Options(), 1, MappingProxyType({}), {0: 10, 1: 10})
    assert nothing.clients == [0, 1]


EQUAL = {"task__partition__kind": "iid", "local__batch_size": 500, "rounds": 3}
UNEQUAL = {"local__epochs": 6, "local__momentum": 0.0, "method__work": "random", "rounds": 1}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equal_steps_are_fedavg_bit_for_bit(tmp_path: Path, momentum: float) -> None:
    """All of a client's samples are one batch, so everybody does as many steps."""
    flags = EQUAL | {"local__momentum": momentum, "local__epochs": 2}
    ours, _ = play(tmp_path, "normagg", **flags, method__prune_rule="none")
    plain, _ = play(tmp_path, "fedavg", **flags)
    assert all(torch.equal(ours.values[name], value) for name, value in plain.values.items())


def test_unequal_work_is_normalised_and_logged(tmp_path: Path) -> None:
    """Factors are tau_eff / tau_k by the steps that clients did: their mean by n tau is 1."""
    normalised, records = play(tmp_path, "normagg", **UNEQUAL)
    plain, others = play(tmp_path, "normagg", **UNEQUAL, method__norm="none")
    clients = records[0].clients
    assert len({client.notes["epochs"] for client in clients}) > 1
    work = [client.num_examples * client.num_steps for client in clients]
    mean = sum(work) / sum(client.num_examples for client in clients)
    for client in clients:
        assert client.notes["factor"] == pytest.approx(mean / client.num_steps)
    assert [c.num_steps for c in others[0].clients] == [c.num_steps for c in clients]
    assert any(not torch.equal(plain.values[n], x) for n, x in normalised.values.items())


def test_left_out_clients_send_nothing_and_come_back(tmp_path: Path) -> None:
    """Odd clients of the toy are four times as slow, so that 1 of 3 is left out at kappa 1.5."""
    flags = {"task__partition__kind": "iid", "fleet__variation": 0.0, "task__clients": 3}
    state, records = play(tmp_path, "normagg", **flags, rounds=6)
    cohorts = [[client.client for client in record.clients] for record in records]
    assert cohorts == [[0, 1, 2], *[[0, 2]] * 4, [0, 1, 2]]
    assert {*state.method.past_s} == {0, 1, 2}
    assert records[1].notes["left_out"].keys() == {"1"}
    assert records[0].notes == {"left_out": {}, "limit_s": None}
    slowest = [max(client.compute_s for client in record.clients) for record in records]
    assert slowest[1] < slowest[0] / 2


def test_buffers_are_averaged_plainly_where_that_is_asked(tmp_path: Path) -> None:
    plain, _ = play(tmp_path, "normagg", **UNEQUAL, method__norm="none")
    ends = [
        play(tmp_path, "normagg", **UNEQUAL, method__normalise_buffers=both)[0].values
        for both in (True, False)
    ]
    buffer, weight = "norm.running_mean", "stem.weight"
    assert torch.equal(ends[0][weight], ends[1][weight])
    assert not torch.equal(ends[0][weight], plain.values[weight])
    assert torch.equal(ends[1][buffer], plain.values[buffer])
    assert not torch.equal(ends[0][buffer], plain.values[buffer])
