from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from fpcli.fleet.channel import (
    Channel,
    Link,
    bandwidth_for,
    shannon_bps,
    shannon_limit_bps,
    shannon_slope,
)
from fpcli.fleet.devices import Device

DEVICE = Device(client=3, flops_per_s=1e9, down_bps=20e6, up_bps=10e6, memory_bytes=10**9)


@pytest.mark.parametrize(
    ("link", "down_bps", "up_bps"),
    [
        (Link(), 20e6, 10e6),
        (Link(down_bps=1e6), 1e6, 10e6),
        (Link(up_bps=2e6), 20e6, 2e6),
        (Link(3e6, 4), 3e6, 4),
    ],
)
def test_a_link_replaces_the_rates_that_it_names(
    link: Link, down_bps: float, up_bps: float
) -> None:
    assert link.on(DEVICE) == replace(DEVICE, down_bps=down_bps, up_bps=up_bps)


@pytest.mark.parametrize("name", ["down_bps", "up_bps"])
@pytest.mark.parametrize("bps", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_a_link_refuses_what_is_no_rate(name: str, bps: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is {bps}; it must be finite and above 0"):
        Link(**{name: bps})


def at_distance(metres: float) -> Channel:
    return Channel(seed=0, nearest_m=metres, farthest_m=metres)


@pytest.mark.parametrize(
    ("metres", "loss_db", "cn0_hz"),
    [(100, 90.5, 2.2387e10), (250, 105.4625, 7.1408e8), (500, 116.7813, 5.2708e7)],
)
def test_path_loss_and_noise_against_numbers_worked_out_by_hand(
    metres: float, loss_db: float, cn0_hz: float
) -> None:
    channel = at_distance(metres)
    assert channel.distance_m(7) == pytest.approx(metres)
    assert channel.path_loss_db(metres) == pytest.approx(loss_db, abs=5e-5)
    assert channel.noise_w_per_hz == pytest.approx(3.981e-21, rel=1e-4)
    fading = channel.fading(2, 7)
    assert channel.cn0_hz(2, 7) / fading == pytest.approx(cn0_hz, rel=5e-5)
    assert channel.cn0_hz(2, 7, power_w=0.2) == pytest.approx(2 * channel.cn0_hz(2, 7))
    assert replace(channel, power_w=0.2).cn0_hz(2, 7) == channel.cn0_hz(2, 7, power_w=0.2)
    # 3 dB more of loss, or of noise, halves what arrives over it.
    weaker = replace(channel, loss_at_1km_db=128.1 + 10 * math.log10(2))
    assert weaker.gain(2, 7) == pytest.approx(channel.gain(2, 7) / 2)
    noisier = replace(channel, noise_dbm_per_hz=-174 + 10 * math.log10(2))
    assert noisier.cn0_hz(2, 7) == pytest.approx(channel.cn0_hz(2, 7) / 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nearest_m": 0.0}, "`nearest_m` is 0.0"),
        ({"farthest_m": math.inf}, "`farthest_m` is inf"),
        ({"power_w": -1.0}, "`power_w` is -1.0"),
        ({"nearest_m": 600.0}, "`nearest_m` is 600.0, beyond `farthest_m`, 500.0"),
    ],
)
def test_a_channel_refuses_impossible_numbers(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Channel(0, **wrong)


DRAWS = 4000


@pytest.mark.parametrize("over", ["rounds", "clients"])
def test_fading_is_exponential_over_rounds_and_over_clients(over: str) -> None:
    channel = Channel(seed=5)
    places = [(i, 3) if over == "rounds" else (3, i) for i in range(DRAWS)]
    sample = [channel.fading(round, client) for round, client in places]
    # Exp(1) has mean 1 and variance 1; the variance of its square is 20.
    assert statistics.fmean(sample) == pytest.approx(1, abs=3 / math.sqrt(DRAWS))
    squares = statistics.fmean(power**2 for power in sample)
    assert squares == pytest.approx(2, abs=3 * math.sqrt(20 / DRAWS))
    assert kstest(sample, "expon").pvalue > 1e-3
    assert min(sample) > 0


def test_fading_of_neighbours_in_round_and_client_is_unrelated() -> None:
    channel = Channel(seed=6)
    here = [channel.fading(round, 0) for round in range(1, DRAWS)]
    next_client = [channel.fading(round, 1) for round in range(1, DRAWS)]
    next_round = [channel.fading(round + 1, 0) for round in range(1, DRAWS)]
    for other in (next_client, next_round):
        assert abs(statistics.correlation(here, other)) < 3.3 / math.sqrt(DRAWS)


def test_clients_are_spread_evenly_over_the_area() -> None:
    channel = Channel(seed=1)
    metres = [channel.distance_m(client) for client in range(DRAWS)]
    assert min(metres) >= 10
    assert max(metres) <= 500
    # The area within a distance, and so its square, is uniform between 100 and 250,000.
    squares = [distance**2 for distance in metres]
    error = (250_000 - 100) / math.sqrt(12 * DRAWS)
    assert statistics.fmean(squares) == pytest.approx((100 + 250_000) / 2, abs=3 * error)
    assert kstest(squares, "uniform", args=(100, 250_000 - 100)).pvalue > 1e-3


def test_a_client_stays_and_its_fading_changes_whoever_else_is_asked_for() -> None:
    channel = Channel(seed=2)
    asked_alone = channel.cn0_hz(3, 7)
    assert [channel.cn0_hz(3, client) for client in range(10)][7] == asked_alone
    assert Channel(seed=2).cn0_hz(3, 7) == asked_alone
    others = [channel.cn0_hz(4, 7), channel.cn0_hz(3, 8), Channel(seed=3).cn0_hz(3, 7)]
    assert len({asked_alone, *others}) == 4
    # What is left without fading is the position's, in every round.
    unfaded = [channel.gain(round, 7) / channel.fading(round, 7) for round in range(1, 6)]
    assert unfaded == pytest.approx([10 ** (-channel.path_loss_db(channel.distance_m(7)) / 10)] * 5)
    assert channel.distance_m(7) not in [channel.distance_m(8), Channel(seed=3).distance_m(7)]


def test_golden_values() -> None:
    # Written down so that a change of the streams, which changes every simulated clock, is seen.
    channel = Channel(seed=0)
    assert channel.distance_m(0) == pytest.approx(326.89520978949264, rel=1e-12)
    assert channel.fading(1, 0) == pytest.approx(1.0393145734099891, rel=1e-12)


def test_the_link_of_a_share_is_its_rate_up_and_the_devices_own_down() -> None:
    channel = Channel(seed=4)
    link = channel.link(2, 1, bandwidth_hz=1e6)
    cn0_hz = channel.cn0_hz(2, 1)
    assert link.up_bps == pytest.approx(1e6 * math.log2(1 + cn0_hz / 1e6))
    assert link.down_bps is None
    loud = channel.link(2, 1, bandwidth_hz=1e6, power_w=0.3).up_bps
    assert loud == pytest.approx(1e6 * math.log2(1 + 3 * cn0_hz / 1e6))


@pytest.mark.parametrize(
    ("numbers", "name"),
    [((0.0,), "bandwidth_hz"), ((math.inf,), "bandwidth_hz"), ((1e6, 0.0), "power_w"),
     ((1e6, -0.1), "power_w"), ((1e6, math.nan), "power_w")],
)  # fmt: skip
def test_a_link_of_no_bandwidth_or_power_is_refused(numbers: tuple[float, ...], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is"):
        Channel(seed=4).link(1, 0, *numbers)


def test_rate_slope_limit_and_inverse_against_numbers_worked_out_by_hand() -> None:
    assert shannon_bps(1e6, 5e6) == pytest.approx(2584962.501, abs=1e-3)
    assert shannon_slope(1e6, 5e6) == pytest.approx(1.382716633, abs=1e-9)
    assert shannon_limit_bps(5e6) == pytest.approx(7213475.204, abs=1e-3)
    assert bandwidth_for(4e6, 5e6) == pytest.approx(2561084.627, abs=1e-3)


def test_arrays_hold_one_entry_per_client() -> None:
    cn0_hz = np.array([2e7, 5e6, 1e6])
    bps = shannon_bps(np.array([1e6, 2e6, 3e6]), cn0_hz)
    assert bps == pytest.approx([1e6 * math.log2(21), 2e6 * math.log2(3.5), 3e6 * math.log2(4 / 3)])
    assert bandwidth_for(bps, cn0_hz) == pytest.approx([1e6, 2e6, 3e6])
    assert bandwidth_for(2e6, cn0_hz)[2] == math.inf, "only the last has a limit below"
    assert np.isfinite(bandwidth_for(2e6, cn0_hz)[:2]).all()
    with pytest.raises(ValueError, match="bandwidth_hz"):
        shannon_slope(np.array([1e6, 0.0, 1e6]), cn0_hz)


def test_the_rate_rises_ever_more_slowly_towards_its_limit() -> None:
    widths = np.linspace(1e4, 1e8, 2001)
    bps = shannon_bps(widths, 5e6)
    assert (np.diff(bps) > 0).all()
    assert (np.diff(bps, 2) < 0).all()
    assert bps[-1] < shannon_limit_bps(5e6)
    assert shannon_bps(1e15, 5e6) == pytest.approx(shannon_limit_bps(5e6), rel=1e-8)
    slopes = shannon_slope(widths, 5e6)
    assert (np.diff(slopes) < 0).all()
    steps = widths * 1e-4
    rise = (shannon_bps(widths + steps, 5e6) - shannon_bps(widths - steps, 5e6)) / (2 * steps)
    assert slopes == pytest.approx(rise, rel=1e-5)


@pytest.mark.parametrize("exponent", range(-6, 13))
def test_the_inverse_of_the_rate_is_the_bandwidth(exponent: int) -> None:
    """From signals far above the noise down to where Lambert's function alone is off."""
    cn0_hz, snr = 5e6, 10.0**exponent
    width = cn0_hz / snr
    assert bandwidth_for(shannon_bps(width, cn0_hz), cn0_hz) == pytest.approx(width, rel=1e-8)


def test_a_rate_at_or_above_the_limit_needs_infinite_bandwidth() -> None:
    limit = shannon_limit_bps(5e6)
    assert [bandwidth_for(bps, 5e6) for bps in (limit, 2 * limit, math.inf)] == [math.inf] * 3
    assert 5e6 < bandwidth_for(np.nextafter(limit, 0), 5e6) < math.inf


@pytest.mark.parametrize("bps", [0.0, -1.0, math.nan])
def test_what_is_no_rate_needs_no_bandwidth(bps: float) -> None:
    with pytest.raises(ValueError, match=f"`bps` is {bps}; it must be above 0"):
        bandwidth_for(bps, 5e6)
