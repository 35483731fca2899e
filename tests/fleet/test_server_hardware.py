"""What the server computes on, by name."""

from __future__ import annotations

import pytest

from fpcli.errors import RecipeError
from fpcli.fleet.boards import BOARDS
from fpcli.fleet.classes import make_fleet
from fpcli.fleet.devices import SERVER, two_speed, uniform
from fpcli.fleet.server_hardware import find_server
from fpcli.settings.hardware import DeviceClass

LAB = [
    DeviceClass("laptop", 1e9, 2e6, 1e6, 10**9),
    DeviceClass("rack", 7e12, 1e9, 1e9, 10**12, share=0.0),
]


def test_the_usual_server_is_ten_times_the_fast_device() -> None:
    assert uniform(0).server == find_server("server", "uniform", ()) == SERVER
    assert pytest.approx(10 * uniform(0).level(0).flops_per_s) == SERVER.flops_per_s


def test_classes_of_the_fleet_and_published_boards_have_names() -> None:
    assert find_server("slow", "two-speed", ()) == two_speed(0).level(1)
    assert find_server("jetson-tx2", "two-speed", ()) == BOARDS["jetson-tx2"].level("jetson-tx2")
    assert find_server("rack", "lab.yaml", LAB).flops_per_s == 7e12
    assert find_server("server", "lab.yaml", LAB) == SERVER
    own = DeviceClass("server", 3e9, 1.0, 1.0, 1)
    assert find_server("server", "lab.yaml", [own]).flops_per_s == 3e9


def test_hardware_of_the_server_alone_is_no_clients() -> None:
    fleet = make_fleet("lab", LAB, seed=0, variation=0.0, num_clients=3)
    assert {fleet.level(client).name for client in range(3)} == {"laptop"}
    with pytest.raises(RecipeError, match="client 0 has no device"):
        make_fleet("lab", LAB[1:], seed=0, variation=0.0, num_clients=3)


def test_an_unknown_name() -> None:
    with pytest.raises(RecipeError, match="unknown hardware `jetson-tx`") as caught:
        find_server("jetson-tx", "two-speed", ())
    assert caught.value.hint == "did you mean `jetson-tx2`?"
    with pytest.raises(RecipeError) as caught:
        find_server("abacus", "lab.yaml", LAB)
    assert caught.value.hint.startswith("known: laptop, rack, server, raspberry-pi-3")
