"""A fleet from classes of devices: who has which hardware."""

from __future__ import annotations

from collections.abc import Sequence

from fpcli.errors import RecipeError
from fpcli.fleet.devices import Fleet, Level
from fpcli.settings.hardware import DeviceClass

_LONGEST = 1000
"""Clients after which the order of classes starts again."""


def make_level(item: DeviceClass) -> Level:
    """Return the class of hardware that the simulated clock works with."""
    return Level(
        item.flops, item.down, item.up, item.memory, item.name, item.availability, item.step
    )


def make_fleet(
    profile: str, classes: Sequence[DeviceClass], seed: int, variation: float, num_clients: int
) -> Fleet:
    """Return the fleet of some classes.

    Raises:
        RecipeError: a class names a client that does not exist or that another class has, or no
            class is left for a client.
    """
    levels_of: dict[int, Level] = {}
    others: list[tuple[Level, float]] = []
    for item in classes:
        level = make_level(item)
        if not item.clients and item.share:
            others.append((level, item.share))
        for client in item.clients:
            if client in levels_of or client >= num_clients:
                taken = (
                    f"has `{levels_of[client].name}` too"
                    if client in levels_of
                    else "does not exist"
                )
                raise RecipeError(
                    f"fleet `{profile}`: client {client} of `{item.name}` {taken}",
                    hint=f"clients are 0 to {num_clients - 1}; name each once",
                    where="fleet.devices",
                )
            levels_of[client] = level
    left = next((client for client in range(num_clients) if client not in levels_of), None)
    if not others and left is not None:
        raise RecipeError(
            f"fleet `{profile}`: client {left} has no device",
            hint="name it in `clients`, or give one class a `share`",
            where="fleet.devices",
        )
    return Fleet(profile, seed, variation, spread_evenly(others), levels_of)


def spread_evenly(levels: Sequence[tuple[Level, float]]) -> tuple[Level, ...]:
    """Return an order in which each class comes as often as its share says, and evenly.

    Among the first clients, however many, no class has one more or one less than its share of
    them. The order is as short as the shares allow, at most 1,000 long.

    Args:
        levels: classes with shares relative to each other.

    >>> slow, fast = (Level(flops, 1.0, 1.0, 1, str(flops)) for flops in (1, 9))
    >>> [level.flops_per_s for level in spread_evenly([(fast, 0.75), (slow, 0.25)])]
    [9, 9, 9, 1]
    """
    total = sum(share for _, share in levels)
    shares = [share / total for _, share in levels]
    length = next(
        (
            length
            for length in range(1, _LONGEST)
            if all(abs(share * length - round(share * length)) < 1e-6 for share in shares)
        ),
        _LONGEST,
    )
    order: list[Level] = []
    given = [0] * len(shares)
    for number in range(1, length + 1 if levels else 0):
        # Of those that may come already, the one whose turn ends first.
        due = [
            ((count + 1) / share, position)
            for position, (share, count) in enumerate(zip(shares, given, strict=True))
            if count < share * number
        ]
        position = min(due)[1]
        given[position] += 1
        order.append(levels[position][0])
    return tuple(order)
