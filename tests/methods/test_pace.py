"""Pace: learned factors, the grid, and what clients that are slow in one thing only come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import server
from fpcli.engine.balance import Balance, find_ratio_within, time_limit
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState
from fpcli.errors import FpError
from fpcli.fleet.devices import Fleet, Level
from fpcli.methods.pace import Options, learn_factor
from fpcli.train.setup import prepare_run

FAST = Level(20e9, 20e6, 10e6, 10**9, "fast")
RULE = Balance()


def w(ratio: float) -> float:
    """Seconds on the reference device: 4 of computing and 2 of sending at full size."""
    return 4 * (1 - ratio) ** 2 + 2 * (1 - ratio)


def play(
    method: str, folder: Path, levels: Sequence[Level], **changes: Any
) -> tuple[ServerState, list[RoundRecord]]:
    """Play the toy task with clients of constant speed."""
    setup = prepare_run(toy_recipe(method, **changes), folder / "memory")
    fed = replace(setup.fed, fleet=Fleet("own", 0, 0.0, tuple(levels)))
    executor = Inline(setup.site)
    state, totals = server.begin_training(fed, setup.values, executor)
    played = list(server.play(fed, state, executor, totals))
    return played[-1][0], [record for _, record in played]


def ratios(record: RoundRecord) -> list[float]:
    return [client.notes["ratio"] for client in record.clients]


def seconds(record: RoundRecord) -> list[float]:
    return [client.compute_s + client.down_s + client.up_s for client in record.clients]


def test_worked_numbers() -> None:
    """Factors 1 and 3: tau = 1.05 * 6; 3 w(.48) = 6.3648 is too long, 3 w(.49) = 6.1812 is not.

    Then 8 s at 0.49, where w = 2.0604: the factor is sqrt(3 * 8 / 2.0604) = 3.412949, and w(.53) is
    the first that fits, in 6.2239 s. Forty times slower: 40 w(.8) = 22.4 s, so the cap.
    """
    tau = time_limit([1 * w(0), 3 * w(0)], RULE)
    assert tau == pytest.approx(6.3)
    assert find_ratio_within(w, tau, RULE) == 0.0
    assert find_ratio_within(lambda a: 3 * w(a), tau, RULE) == 0.49
    factor = learn_factor(3.0, 8 / w(0.49), keep=0.5)
    assert factor == pytest.approx(3.412949, abs=1e-6)
    assert find_ratio_within(lambda a: factor * w(a), tau, RULE) == 0.53
    assert find_ratio_within(lambda a: 40 * w(a), tau, RULE) == 0.8


def test_a_factor_is_a_geometric_mean() -> None:
    assert learn_factor(None, 5.0, keep=1.0) == 5.0
    assert learn_factor(3.0, 5.0, keep=0.0) == 5.0
    assert learn_factor(3.0, 5.0, keep=1.0) == 3.0
    assert learn_factor(4.0, 9.0, keep=0.5) == pytest.approx(6.0)


@pytest.mark.parametrize(("cap", "step"), [(0.8, 0.01), (0.75, 0.1), (0.0, 0.01), (0.5, 1.0)])
def test_the_smallest_ratio_of_the_grid(cap: float, step: float) -> None:
    """As searching one after the other; a cap that is no multiple of the step ends the grid."""
    rule = Balance(cap=cap, step=step)
    grid = [round(i * step, 9) for i in range(1000) if round(i * step, 9) < cap] + [cap]
    for factor in (0.5, 1.0, 1.06, 1.3, 2.0, 3.0, 5.0, 9.0, 40.0):
        want = next((a for a in grid if factor * w(a) <= 6.3), cap)
        assert find_ratio_within(lambda a, f=factor: f * w(a), 6.3, rule) == want


def test_the_anchor_is_the_fastest_or_a_quantile() -> None:
    """Between the second and the third of 1, 2, 4, 8, 16 s lies the quantile 0.375, at 3 s."""
    whole_s = [4.0, 1.0, 16.0, 2.0, 8.0]
    assert time_limit(whole_s, RULE) == pytest.approx(1.05)
    assert time_limit(whole_s, Balance(slack=1.0, anchor="quantile:0.375")) == pytest.approx(3.0)
    assert time_limit(whole_s, Balance(slack=1.0, anchor="quantile:1")) == pytest.approx(16.0)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("anchor", "slowest", "write fastest, or quantile:Q"),
        ("anchor", "quantile", "write fastest, or quantile:Q"),
        ("anchor", "fastest:0.5", "write fastest, or quantile:Q"),
        ("anchor", "quantile:1.5", "between 0 and 1"),
        ("anchor", "quantile:nan", "between 0 and 1"),
        ("step", 0.0, "step"),
        ("reference", "two-sped", "two-speed"),
        ("reference", "os:abort", "known: uniform"),
    ],
)
def test_wrong_options_are_refused(option: str, value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(FpError) as caught:
        play("pace", tmp_path, [FAST], **{f"method__{option}": value})
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_newcomers_get_the_first_ratio_and_others_what_their_speed_asks_for(tmp_path: Path) -> None:
    """Two clients of four per round: whoever was not there has no factor yet."""
    slow = replace(FAST, flops_per_s=2e9, down_bps=2e6, up_bps=1e6)
    state, records = play(
        "pace", tmp_path, [FAST, slow], clients_per_round=2, rounds=4, method__first=0.3
    )
    known: set[int] = set()
    for record in records:
        for client in record.clients:
            if client.client not in known:
                assert client.notes["ratio"] == 0.3
        known |= set(record.cohort)
    assert set(state.method.factors) == known


def test_what_never_came_teaches_nothing(tmp_path: Path) -> None:
    changes = {"fleet__dropout": 0.5, "min_clients": 1, "round_retries": 9, "rounds": 1}
    setup = prepare_run(toy_recipe("pace", **changes), tmp_path / "memory")
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    state, record = next(server.play(setup.fed, state, executor, totals))
    assert 0 < len(record.clients) < len(record.cohort)
    assert set(state.method.factors) == {client.client for client in record.clients}


def test_equal_speeds_are_fedavg_bit_for_bit(tmp_path: Path) -> None:
    changes = {"task__partition__kind": "iid"}
    plain, plain_records = play("fedavg", tmp_path / "a", [FAST], **changes)
    paced, paced_records = play("pace", tmp_path / "b", [FAST], method__first=0.0, **changes)
    for name, value in plain.values.items():
        assert torch.equal(value, paced.values[name])
    for a, b in zip(plain_records, paced_records, strict=True):
        assert ratios(b) == [0.0] * 4
        # The jobs differ by the method's name alone, which is two letters shorter.
        assert a.down_bytes - b.down_bytes == 2 * len(a.clients)


def test_factors_are_relative_to_the_reference(tmp_path: Path) -> None:
    """Client 1 is four times slower in all things; the fleet's first device is the reference.

    Messages have headers, which the reference's seconds leave out.
    """
    slow = replace(FAST, flops_per_s=5e9, down_bps=5e6, up_bps=2.5e6)
    changes = {"task__model": "digits-cnn", "task__partition__kind": "iid", "rounds": 1}
    own, _ = play("pace", tmp_path / "a", [slow, FAST], **changes)
    assert [own.method.factors[i] for i in (0, 1)] == pytest.approx([1.0, 0.25], rel=0.05)
    fixed, _ = play("pace", tmp_path / "b", [slow, FAST], method__reference="uniform", **changes)
    assert [fixed.method.factors[i] for i in (0, 1)] == pytest.approx([4.0, 1.0], rel=0.05)


def test_eight_times_slower_in_computing_alone_converges_within_five_rounds() -> None:
    """One factor is wrong about a client whose link is as fast as the others'.

    Its true seconds are ``8 * 4 (1-a)^2 + 2 (1-a)``; tau = 6.3 is met at a = 0.5885, so 0.59.
    """

    def true_s(ratio: float) -> float:
        return 8 * 4 * (1 - ratio) ** 2 + 2 * (1 - ratio)

    factor, ratio, chosen = None, 0.5, []
    for _ in range(8):
        factor = learn_factor(factor, true_s(ratio) / w(ratio), keep=0.5)
        ratio = find_ratio_within(lambda a, f=factor: f * w(a), 6.3, RULE)
        chosen.append(ratio)
    assert abs(chosen[0] - 0.59) > 0.01  # one reply is not enough
    assert all(abs(one - 0.59) < 0.011 for one in chosen[4:])
    assert true_s(chosen[4]) == pytest.approx(6.3, rel=0.05)


def test_a_client_slow_in_computing_keeps_up_after_five_rounds(tmp_path: Path) -> None:
    """The same through the engine, where channels are whole numbers: in time, but not by half."""
    slow = replace(FAST, flops_per_s=FAST.flops_per_s / 8)
    changes = {"task__model": "digits-cnn", "task__partition__kind": "iid", "rounds": 7}
    _, records = play("pace", tmp_path, [FAST, FAST, FAST, slow], eval_every=7, **changes)
    fast_s = seconds(records[-1])[0]
    for record in records[5:]:
        assert ratios(record)[:3] == [0.0] * 3
        assert 0.9 * fast_s < seconds(record)[3] <= 1.1 * fast_s
    assert abs(ratios(records[-1])[3] - ratios(records[-2])[3]) <= 0.02


def test_one_warning_where_most_channels_have_a_single_client(tmp_path: Path) -> None:
    """One client of four is a thousand times faster: the three others sit at the cap."""
    slow = replace(FAST, flops_per_s=2e7, down_bps=2e4, up_bps=1e4)
    levels = [FAST, slow, slow, slow]
    state, records = play("pace", tmp_path / "a", levels, rounds=4)
    assert all(ratios(record) == [0.0, 0.8, 0.8, 0.8] for record in records[1:])
    assert all(record.notes["rare_channels"] > 0.5 for record in records[1:])
    assert ["warning" in record.notes for record in records] == [False, True, False, False]
    assert "quantile" in records[1].notes["warning"]
    assert state.method.has_warned
    _, records = play("pace", tmp_path / "b", levels, method__anchor="quantile:0.5")
    assert [record.notes["rare_channels"] for record in records[1:]] == [0.0, 0.0]
    assert not any("warning" in record.notes for record in records)


def test_true_speeds_bring_every_client_in_on_time(tmp_path: Path) -> None:
    """From the first round on, and on the clock itself, up to the bytes of headers."""
    slow = replace(FAST, flops_per_s=5e9, down_bps=8e6, up_bps=4e6)
    changes = {"task__model": "digits-cnn", "task__partition__kind": "iid", "rounds": 2}
    _, records = play("known-speeds", tmp_path, [FAST, slow], **changes)
    for record in records:
        fast_s, *others = seconds(record)
        assert ratios(record)[::2] == [0.0, 0.0]
        assert all(0 < ratio < 0.8 for ratio in ratios(record)[1::2])
        assert all(0.9 * fast_s < other <= 1.1 * fast_s for other in others)


def test_true_speeds_of_equal_clients_are_fedavg_bit_for_bit(tmp_path: Path) -> None:
    changes = {"task__partition__kind": "iid"}
    plain, _ = play("fedavg", tmp_path / "a", [FAST], **changes)
    known, _ = play("known-speeds", tmp_path / "b", [FAST], **changes)
    assert all(torch.equal(value, known.values[name]) for name, value in plain.values.items())


def test_options_of_both_share_the_rule() -> None:
    assert Options(slack=1.2, anchor="quantile:0.5").quantile == 0.5
    assert Options().quantile == 0.0
