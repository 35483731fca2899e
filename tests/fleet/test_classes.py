"""Who has which class of device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fpcli.errors import RecipeError
from fpcli.fleet.classes import make_fleet, spread_evenly
from fpcli.fleet.devices import Level
from fpcli.settings.hardware import DeviceClass


def device(name: str, **changes: Any) -> DeviceClass:
    return DeviceClass(name, 1e9, 2e6, 1e6, 10**9, **changes)


def level(name: str) -> Level:
    return Level(1.0, 1.0, 1.0, 1, name)


@pytest.mark.parametrize(
    ("shares", "length"),
    [([1.0], 1), ([1.0, 1.0], 2), ([0.5, 0.2, 0.3], 10), ([2.0, 1.0], 3), ([0.333, 0.667], 1000)],
)
def test_any_number_of_clients_has_its_shares(shares: list[float], length: int) -> None:
    order = spread_evenly([(level(str(i)), share) for i, share in enumerate(shares)])
    assert len(order) == length
    seen: Counter[str] = Counter()
    for number, item in enumerate(order, start=1):
        seen[item.name] += 1
        for i, share in enumerate(shares):
            assert abs(seen[str(i)] - number * share / sum(shares)) < 1.0 + 1e-9


def test_clients_with_devices_of_their_own() -> None:
    classes = [
        device("rest", share=1.0),
        device("mine", clients=(0, 3), availability=0.5),
        device("more", share=1.0),
    ]
    fleet = make_fleet("lab", classes, seed=3, variation=0.2, num_clients=6)
    names = [fleet.level(client).name for client in range(6)]
    assert names == ["mine", "more", "rest", "mine", "rest", "more"]
    assert (fleet.profile, fleet.seed, fleet.variation) == ("lab", 3, 0.2)
    assert fleet.level(3).availability == 0.5
    nominal = fleet.nominal(0)
    assert (nominal.flops_per_s, nominal.down_bps, nominal.up_bps) == (1e9, 2e6, 1e6)
    assert nominal.memory_bytes == 10**9


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([device("a", clients=(0, 4)), device("b")], "client 4 of `a` does not exist"),
        ([device("a", clients=(0,)), device("b", clients=(0,))], "client 0 of `b` has `a` too"),
        ([device("a", clients=(0, 1, 3))], "client 2 has no device"),
    ],
)
def test_classes_that_do_not_fit_the_clients(classes: list[DeviceClass], message: str) -> None:
    with pytest.raises(RecipeError, match=f"fleet `lab`: {message}") as caught:
        make_fleet("lab", classes, 0, 0.1, num_clients=4)
    assert caught.value.hint


def test_all_clients_named_need_no_share() -> None:
    fleet = make_fleet("lab", [device("a", clients=(0, 1))], 0, 0.0, num_clients=2)
    assert fleet.at(1, 1) == fleet.nominal(1)
