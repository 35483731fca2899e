"""Which hardware the server has: one of a fleet's own classes, or one that is known by name."""

from __future__ import annotations

from collections.abc import Sequence

from fpcli import plugins
from fpcli.errors import RecipeError, nearest
from fpcli.fleet.boards import BOARDS
from fpcli.fleet.classes import level_of
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
    known = {item.name: level_of(item) for item in classes}
    for usual in (SERVER, *(board.level(name) for name, board in BOARDS.items())):
        known.setdefault(usual.name, usual)
    if name not in known and not classes:
        fleet: Fleet = plugins.lookup("fleets", profile)(0, 0.0)
        own = {level.name: level for level in (*fleet.levels, *fleet.own.values()) if level.name}
        known = own | known
    if name not in known:
        raise RecipeError(
            f"unknown hardware `{name}`",
            hint=nearest(name, known) or f"known: {', '.join(known)}",
            where="fleet.server",
        )
    return known[name]
