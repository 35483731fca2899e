from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import replace

import pytest

from fpcli import plugins
from fpcli.fleet import FLEETS
from fpcli.fleet.devices import POINTS, Fleet, long_tail, ten_speed, two_speed, uniform


@pytest.mark.parametrize("name", FLEETS)
def test_profile_is_named_as_in_the_table(name: str) -> None:
    fleet = plugins.lookup("fleets", name)(seed=3)
    assert isinstance(fleet, Fleet)
    assert (fleet.profile, fleet.seed, fleet.variation) == (name, 3, 0.1)


def test_two_speed_levels() -> None:
    fleet = two_speed(0)
    fast, slow = fleet.nominal(4), fleet.nominal(7)
    assert (fast.client, slow.client) == (4, 7)
    assert fast.flops_per_s == 4 * slow.flops_per_s
    assert fast.down_bps == 2 * slow.down_bps
    assert fast.up_bps == 2 * slow.up_bps


def test_ten_speed_is_even_in_seconds_per_operation() -> None:
    fleet = ten_speed(0)
    fastest = fleet.nominal(0).flops_per_s
    slowness = [fastest / fleet.nominal(client).flops_per_s for client in range(20)]
    assert slowness == pytest.approx([*range(1, 11)] * 2)


def test_no_variation_is_nominal() -> None:
    fleet = two_speed(0, variation=0.0)
    assert [fleet.at(5, client) for client in range(4)] == [
        fleet.nominal(client) for client in range(4)
    ]


def test_conditions_depend_on_seed_round_and_client_only() -> None:
    fleet = uniform(1)
    asked_alone = fleet.at(3, 7)
    assert [fleet.at(3, client) for client in range(10)][7] == asked_alone
    others = [fleet.at(4, 7), fleet.at(3, 8), uniform(2).at(3, 7)]
    assert asked_alone.flops_per_s not in [device.flops_per_s for device in others]


def test_compute_and_link_vary_separately_and_as_wide_as_asked() -> None:
    fleet = uniform(0, variation=0.2)
    devices = [fleet.at(round, client) for round in range(1, 41) for client in range(50)]
    nominal = fleet.nominal(0)
    compute = [math.log(device.flops_per_s / nominal.flops_per_s) for device in devices]
    link = [math.log(device.down_bps / nominal.down_bps) for device in devices]
    for sample in (compute, link):
        assert abs(statistics.mean(sample)) < 0.02
        assert statistics.stdev(sample) == pytest.approx(0.2, rel=0.05)
    assert abs(statistics.correlation(compute, link)) < 0.07
    assert all(d.up_bps * 2 == pytest.approx(d.down_bps) for d in devices)


def test_a_golden_value() -> None:
    # Written down so that a change of the streams, which changes every simulated clock, is seen.
    assert uniform(0).at(1, 0).flops_per_s == pytest.approx(20141788863.81375, rel=1e-12)


def test_link_and_speed_vary_as_wide_as_each_was_told() -> None:
    fleet = replace(uniform(0, variation=0.3), link_variation=0.0)
    nominal, varied = fleet.nominal(2), fleet.at(1, 2)
    assert (varied.down_bps, varied.up_bps) == (nominal.down_bps, nominal.up_bps)
    assert varied.flops_per_s == uniform(0, variation=0.3).at(1, 2).flops_per_s
    still = replace(uniform(0, variation=0.0), link_variation=0.3)
    assert still.at(1, 2).flops_per_s == nominal.flops_per_s
    assert still.at(1, 2).down_bps == uniform(0, variation=0.3).at(1, 2).down_bps


def test_of_ten_devices_in_the_long_tail_one_is_forty_times_slower() -> None:
    fleet = long_tail(0)
    slowness = [20e9 / fleet.nominal(client).flops_per_s for client in range(10)]
    assert sorted(slowness) == [1.0] * 7 + [4.0, 4.0, 40.0]


ROUNDS = [(round, client) for round in range(1, 101) for client in range(20)]


def test_availability_is_the_share_of_rounds_and_a_class_may_have_its_own() -> None:
    fleet = replace(uniform(0), availability=0.7)
    told = [fleet.is_available(round, client) for round, client in ROUNDS]
    assert statistics.mean(told) == pytest.approx(0.7, abs=0.03)
    again = [fleet.is_available(round, client, attempt=1) for round, client in ROUNDS]
    assert told != again, "another attempt meets others"
    assert all(uniform(0).is_available(round, client) for round, client in ROUNDS)
    rare = replace(fleet.levels[0], availability=0.2)
    fleet = replace(fleet, own={3: rare})
    assert statistics.mean(fleet.is_available(r, 3) for r in range(2000)) == pytest.approx(
        0.2, abs=0.03
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropouts_are_as_many_as_told_and_evenly_of_three_kinds(share: float) -> None:
    fleet = replace(uniform(1), dropout=share)
    told = [fleet.drops_out(round, client) for round, client in ROUNDS]
    lost = Counter(point for point in told if point)
    assert lost.total() / len(told) == pytest.approx(share, abs=0.03)
    assert all(lost[point] == pytest.approx(lost.total() / 3, rel=0.25) for point in POINTS)
    when = [replace(fleet, dropout_when="after").drops_out(r, c) for r, c in ROUNDS]
    assert [point and "after" for point in told] == when, "where does not change who"
    assert told != [fleet.drops_out(round, client, attempt=1) for round, client in ROUNDS]


def test_dropouts_never_and_always() -> None:
    assert {uniform(0).drops_out(r, c) for r, c in ROUNDS} == {None}
    assert None not in {replace(uniform(0), dropout=1.0).drops_out(r, c) for r, c in ROUNDS}
