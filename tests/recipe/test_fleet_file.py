"""Fleet files: what they may say, how recipes hold it, and each error with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpcli.errors import FpError, RecipeError, UsageError
from fpcli.fleet.boards import BOARDS
from fpcli.recipe.fleet_file import is_fleet_file, read_fleet
from fpcli.recipe.load import digest_recipe, load_recipe, to_yaml
from fpcli.settings.hardware import DeviceClass
from fpcli.train.setup import build_fleet

LAB = """\
fleet: 1
devices:
  - device: raspberry-pi-4
    share: 3
  - name: laptop
    flops: 1.5 GFLOP/s
    down: 20 Mbit/s
    up: 500 kbit/s
    memory: 4 GiB
    availability: 80%
  - {device: jetson-tx2, up: 1 Mbit/s, clients: [0, 3]}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(LAB)
    return path


def test_units_defaults_and_published_devices(lab: Path) -> None:
    first, second, third = (DeviceClass(**item) for item in read_fleet(lab))
    board = BOARDS["raspberry-pi-4"].level("raspberry-pi-4")
    assert (first.name, first.flops, first.memory) == (
        board.name, board.flops_per_s, board.memory_bytes,
    )  # fmt: skip
    assert (first.share, first.clients, first.availability) == (3.0, (), None)
    assert second == DeviceClass("laptop", 1.5e9, 20e6, 5e5, 4 * 2**30, 1.0, (), availability=0.8)
    assert (third.name, third.up, third.clients) == ("jetson-tx2", 1e6, (0, 3))
    assert third.down == BOARDS["jetson-tx2"].link[0]


def test_a_recipe_holds_what_stood_in_the_file(lab: Path) -> None:
    flags = {"fleet.profile": str(lab), "fleet.variation": 0}
    recipe = load_recipe(None, flags=flags)
    fleet = build_fleet(recipe)
    assert [fleet.level(i).name for i in range(4)] == [
        "jetson-tx2", "raspberry-pi-4", "raspberry-pi-4", "jetson-tx2",
    ]  # fmt: skip
    assert fleet.at(1, 3) == fleet.nominal(3)
    resolved = lab.with_name("recipe.yaml")
    resolved.write_text(to_yaml(recipe))
    lab.unlink()
    assert load_recipe(resolved) == recipe, "the file is no longer needed"
    assert load_recipe(resolved, flags={"fleet.profile": "uniform"}).fleet.devices == ()
    lab.write_text(LAB.replace("share: 3", "share: 4"))
    changed = load_recipe(resolved, flags={"fleet.profile": str(lab)})
    assert digest_recipe(changed) != digest_recipe(recipe)
    lab.write_text(f"# the same\n{LAB}")
    assert digest_recipe(load_recipe(resolved, flags={"fleet.profile": str(lab)})) == digest_recipe(
        recipe
    )


def test_a_recipe_names_a_file_beside_it(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("recipe: 1\nfleet: {profile: lab.yaml}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load_recipe(recipe).fleet.devices) == 3
    with pytest.raises(RecipeError, match=r"cannot read fleet file lab\.yaml"):
        load_recipe(None, flags={"fleet.profile": "lab.yaml"})


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "lab.yaml: not a mapping", "fleet, devices"),
        ("- 1", "lab.yaml:1: not a mapping", "fleet, devices"),
        ("measured: {}\nfleet: 3", "lab.yaml:2: fleet format 3 is newer", "pip install"),
        ("fleet: 0\ndevices: []", "lab.yaml:1: `fleet` must be >= 1", ""),
        ("fleet: x\ndevices: []", "lab.yaml:1: `fleet` must be a whole number", ""),
        ("fleet: 1\ndevces: []", "lab.yaml:2: unknown key `devces`", "`devices`"),
        ("fleet: 1", "lab.yaml: `devices` must be a list", "device: raspberry-pi-4"),
        ("fleet: 1\ndevices: []", "lab.yaml:2: `devices` must be a list", ""),
        ("fleet: 1\ndevices: 3", "lab.yaml:2: `devices` must be a list", ""),
        ("devices:\n- 3", "lab.yaml:2: not a mapping", "device, name, flops"),
        ("devices:\n- device: rasberry-pi-4", "lab.yaml:2: unknown device", "`raspberry-pi-4`"),
        ("devices:\n- name: a\n  flop: 1", "lab.yaml:3: unknown key `flop`", "`flops`"),
        ("devices:\n- name: a", "lab.yaml:2: a device needs `flops`", "5 GFLOP/s"),
        ("devices:\n- flops: 1 GHz", "lab.yaml:2: `flops`: `1 GHz` has an unknown unit", ""),
        ("devices:\n- down: 2 MB/s", "lab.yaml:2: `down`: `2 MB/s` has an unknown unit", ""),
        ("devices:\n- down: 20", "lab.yaml:2: `down`: `20` has no unit; write `20 Mbit/s` or", ""),
        ("devices:\n- memory: 4", "lab.yaml:2: `memory`: `4` has no unit; write `4 MB` or", ""),
        ("devices:\n- flops: 5e9", "lab.yaml:2: `flops`: `5e9` has no unit; write", ""),
        (
            "devices:\n- availability: 80",
            "lab.yaml:2: `availability` must be",
            "`0.8` or `80%`",
        ),
        ("devices:\n- memory: 0", "lab.yaml:2: `memory` must be >= 1", ""),
        ("devices:\n- up: 0 bit/s", "lab.yaml:2: `up` must be > 0", ""),
        ("devices:\n- flops: null", "lab.yaml:2: `flops`: `None` is not a number", ""),
        ("devices:\n- share: -1", "lab.yaml:2: `share` must be >= 0", ""),
        ("devices:\n- availability: 1.5", "lab.yaml:2: `availability` must be", ""),
        ("devices:\n- clients: [a]", "lab.yaml:2: `clients` must be", ""),
        (
            "devices:\n- device: jetson-tx2\n  share: 1\n  clients: [0]",
            "lab.yaml:3: `share` and `clients` exclude each other",
            "",
        ),
        ("devices: [&a {device: helio-p35}, *a]", "lab.yaml:1: anchors and aliases", ""),
        ("devices: !!python/object:os.system []", "lab.yaml:1: tags such as", ""),
        (f"devices: [{', '.join(['{}'] * 4000)}]", "larger than 12 KiB", "is this a fleet file?"),
    ],
)
def test_wrong_files(lab: Path, text: str, message: str, hint: str) -> None:
    lab.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, flags={"fleet.profile": str(lab)})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_wrong_clients_are_found_before_anything_is_built(lab: Path) -> None:
    recipe = load_recipe(None, flags={"fleet.profile": str(lab), "task.clients": 2})
    with pytest.raises(FpError, match=r"fleet `lab\.yaml`: client 3 .* does not exist"):
        build_fleet(recipe)


def test_devices_in_a_recipe_are_checked_too() -> None:
    for text in ("[{name: a}]", "[{name: a, flops: nan, down: 1, up: 1, memory: 1}]", "[3]"):
        with pytest.raises(UsageError, match=r"`fleet\.devices` must be"):
            load_recipe(None, [("fleet.devices", text)])
    text = "[{name: a, flops: 1, down: 1, up: 1, memory: 1, speed: 3}]"
    with pytest.raises(UsageError, match=r"`fleet\.devices` must be"):
        load_recipe(None, [("fleet.devices", text)])


def test_hardware_that_only_the_server_has(lab: Path) -> None:
    lab.write_text(
        f"{LAB}  - {{name: rack, flops: 7 TFLOP/s, down: 1 bps, up: 1 bps, memory: 1 B, "
        "share: 0}\n"
    )
    flags = {"fleet.profile": str(lab), "fleet.server": "rack"}
    fleet = build_fleet(load_recipe(None, flags=flags))
    assert fleet.server.flops_per_s == 7e12
    assert "rack" not in {fleet.level(client).name for client in range(20)}
    with pytest.raises(UsageError, match=r"--set fleet.server: unknown hardware `rak`") as caught:
        load_recipe(None, flags=flags | {"fleet.server": "rak"})
    assert caught.value.hint == "did you mean `rack`?"
    recipe = lab.with_name("recipe.yaml")
    recipe.write_text("recipe: 1\nfleet:\n  server: rack\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:3: unknown hardware `rack`"):
        load_recipe(recipe)


def test_names_of_files() -> None:
    assert is_fleet_file("a/lab.yaml") and is_fleet_file("lab.yml")
    assert not is_fleet_file("two-speed")


def test_the_new_keys_reach_the_fleet() -> None:
    keys = {"link_variation": 0.5, "availability": 0.9, "dropout": 0.2, "dropout_when": "after"}
    fleet = build_fleet(
        load_recipe(None, flags={f"fleet.{key}": value for key, value in keys.items()})
    )
    assert {key: getattr(fleet, key) for key in keys} == keys
    for key, value in (("availability", 0), ("dropout", 1.1), ("dropout_when", "later")):
        with pytest.raises(UsageError, match=f"`fleet.{key}` must be"):
            load_recipe(None, flags={f"fleet.{key}": value})
