"""Read a fleet file: classes of devices with units, each error with its line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml
from annotated_types import Ge

from fpcli import units
from fpcli.errors import RecipeError, suggest
from fpcli.fleet.boards import BOARDS
from fpcli.recipe.resolve import Setting, check_value
from fpcli.recipe.yaml_file import compose, iterate_pairs, to_plain
from fpcli.settings.hardware import DeviceClass
from fpcli.settings.keys import Leaf

FLEET_FORMAT = 2
"""The newest format of fleet files that this version reads; the second brought ``step``."""

_LIMIT_BYTES = 12 * 1024
"""Written out in a resolved recipe, a longer file might be too long for one."""

_HINTS = get_type_hints(DeviceClass, include_extras=True)
_FIELDS = {item.name: item for item in fields(DeviceClass)}
_UNITS: Mapping[str, Callable[[str | float], float]] = {
    "flops": units.parse_flops,
    "down": units.parse_bps,
    "up": units.parse_bps,
    "memory": units.parse_bytes,
}
_WRITTEN = {
    "flops": (1e9, "GFLOP/s"),
    "down": (1e6, "Mbit/s"),
    "up": (1e6, "Mbit/s"),
    "memory": (1e6, "MB"),
}
"""Key -> how many of its plain unit make the one that is written, and that."""
_EXAMPLES = {"flops": "5 GFLOP/s", "down": "20 Mbit/s", "up": "10 Mbit/s", "memory": "4 GiB"}


def is_fleet_file(profile: object) -> bool:
    """Tell the name of a file from that of a known fleet."""
    return str(profile).endswith((".yaml", ".yml"))


def read_fleet(path: Path) -> list[dict[str, Any]]:
    """Return the classes of devices of a fleet file, in plain numbers.

    Args:
        path: a file with ``fleet: 2``, its format, and ``devices``, a list of classes with the
            fields of ``DeviceClass``. ``device`` names a published one, whose numbers fill in for
            those that are not said.

    Returns:
        One mapping per class, ready for ``DeviceClass``.

    Raises:
        RecipeError: the file cannot be read, is of a newer format, or something in it is wrong.
    """
    root = compose(path, "fleet file", _LIMIT_BYTES)
    keys = ("fleet", "devices")
    written = _settings(root, path, keys)
    # Before anything else: a newer file may hold keys that this version cannot know.
    if (format_ := written.get("fleet")) is not None:
        number = check_value("fleet", Leaf(Annotated[int, Ge(1)], FLEET_FORMAT), format_)
        if number > FLEET_FORMAT:
            raise format_.error(
                f"fleet format {number} is newer than this version reads ({FLEET_FORMAT})",
                "update with `pip install -U fpcli`",
            )
    _refuse_unknown(written, keys)
    devices = written.get("devices")
    nodes = devices.value if devices is not None else None
    if not isinstance(nodes, yaml.SequenceNode) or not nodes.value:
        place = devices.place if devices is not None else str(path)
        raise RecipeError(
            f"{place}: `devices` must be a list of device classes",
            hint="for example `devices: [{device: raspberry-pi-4}]`",
            where=place,
        )
    return [_device(node, path, number) for number, node in enumerate(nodes.value, start=1)]


def fleet_text(classes: Sequence[DeviceClass], remark: str) -> str:
    """Return a fleet file that :func:`read_fleet` reads back as these classes.

    Args:
        remark: stands on top, in one line.
    """
    usual = {
        k: _plain(entry.default) for k, entry in _FIELDS.items() if entry.default is not MISSING
    }
    devices = [
        {
            k: _with_unit(k, v)
            for k, v in _plain(asdict(item)).items()
            if k not in usual or v != usual[k]
        }
        for item in classes
    ]
    body = yaml.safe_dump(
        {"fleet": FLEET_FORMAT, "devices": devices}, sort_keys=False, width=10_000
    )
    return f"# {remark}\n{body}"


def _with_unit(key: str, value: Any) -> Any:
    factor, unit = _WRITTEN.get(key, (1, ""))
    return f"{value / factor:.15g} {unit}" if unit else value


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples, and five digits of each fraction."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.5g}"))


def _settings(node: Any, path: Path, keys: tuple[str, ...]) -> dict[str, Setting]:
    place = f"{path}:{node.start_mark.line + 1}" if node is not None else str(path)
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(
            f"{place}: not a mapping of `key: value` lines",
            hint=f"its keys are {', '.join(keys)}",
            where=place,
        )
    settings = {}
    for key, value, line in iterate_pairs(node, str(path)):
        is_list_of_classes = key == "devices" and isinstance(value, yaml.SequenceNode)
        value_read = value if is_list_of_classes else to_plain(value, str(path))
        settings[key] = Setting(value_read, f"{path}:{line}", is_in_file=True)
    return settings


def _refuse_unknown(settings: Mapping[str, Setting], keys: tuple[str, ...]) -> None:
    for key, setting in settings.items():
        if key not in keys:
            hint = suggest(key, keys) or f"keys are {', '.join(keys)}"
            raise setting.error(f"unknown key `{key}`", hint)


def _device(node: yaml.Node, path: Path, number: int) -> dict[str, Any]:
    keys = ("device", *_FIELDS)
    settings = _settings(node, path, keys)
    _refuse_unknown(settings, keys)
    values: dict[str, Any] = {"name": f"class {number}"}
    if (board := settings.pop("device", None)) is not None:
        values |= _publish(board)
    values |= {key: _value(key, setting) for key, setting in settings.items()}
    if settings.keys() >= {"share", "clients"}:
        raise settings["share"].error(
            "`share` and `clients` exclude each other", "a class has a share, or its own clients"
        )
    place = f"{path}:{node.start_mark.line + 1}"
    for key, item in _FIELDS.items():
        if key not in values and item.default is MISSING:
            raise RecipeError(
                f"{place}: a device needs `{key}`",
                hint=f"write for example `{key}: {_EXAMPLES[key]}`, or name a known `device`",
                where=place,
            )
    return asdict(DeviceClass(**values))


def _publish(setting: Setting) -> dict[str, Any]:
    name = str(setting.value)
    if name not in BOARDS:
        hint = suggest(name, BOARDS) or f"known: {', '.join(BOARDS)}"
        raise setting.error(f"unknown device `{name}`", hint)
    level = BOARDS[name].level(name)
    return {
        "name": name,
        "flops": level.flops_per_s,
        "down": level.down_bps,
        "up": level.up_bps,
        "memory": level.memory_bytes,
    }


def _value(key: str, setting: Setting) -> Any:
    value = setting.value
    if key in _UNITS:
        try:
            value = _UNITS[key](value)
        except ValueError as error:
            raise setting.error(f"`{key}`: {error}") from error
    return check_value(key, Leaf(_HINTS[key], None), Setting(value, setting.place, True))
