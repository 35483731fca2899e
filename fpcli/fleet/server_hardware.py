"""Which hardware the server has: one of a fleet's own classes, or one that is known by name."""

from __future__ import annotations

from collections.abc import Sequence

from fpcli import plugins
from fpcli.errors import RecipeError, suggest
from fpcli.fleet.boards import BOARDS
from fpcli.fleet.classes import make_level
from fpcli.fleet.devices import SERVER, Fleet, Level
from fpcli.settings.hardware import DeviceClass


def find_server(name: str, profile: str, classes: Sequence[DeviceClass]) -> Level:
    """Return a class of hardware by name.

    Args:
        name: of a class in the fleet's file, ``server``, a published board, or a class of a known
            fleet; the first that has it.
        profile: name of the fleet.
        classes: those of its file; without any, ``profile`` is a known fleet.

    Raises:
        RecipeError: nothing has that name.

    >>> find_server("server", "uniform", ()).flops_per_s
    200000000000.0
    """
    levels = {item.name: make_level(item) for item in classes}
    for usual in (SERVER, *(board.level(name) for name, board in BOARDS.items())):
        levels.setdefault(usual.name, usual)
    if name not in levels and not classes:
        fleet: Fleet = plugins.lookup("fleets", profile)(0, 0.0)
        by_name = {
            level.name: level for level in (*fleet.levels, *fleet.own.values()) if level.name
        }
        levels = by_name | levels
    if name not in levels:
        raise RecipeError(
            f"unknown hardware `{name}`",
            hint=suggest(name, levels) or f"known: {', '.join(levels)}",
            where="fleet.server",
        )
    return levels[name]
