"""Layers: what people call the places of a network, as numbers, ranges and names of modules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from fpcli.engine.trained import Trained
from fpcli.errors import UsageError, suggest
from fpcli.structure.budget import list_masked_weights
from fpcli.structure.layout import Group, Layout
from fpcli.structure.support import Support

_NUMBERS = re.compile(r"(\d+)(?:-(\d+))?")


def list_numbered(layout: Layout) -> list[str]:
    """Return the weights that a paper numbers from 1: without the 1x1 convolutions of shortcuts."""
    return list_masked_weights(layout)


def count_weights_and_macs(layout: Layout, support: Support) -> tuple[int, float]:
    """Return weights and multiply-adds as papers count them: numbered layers only, no biases.

    Source: table 1 of Li et al., ICLR 2017, whose totals leave out the projections too.
    """
    names = list_numbered(layout)
    alive = support.count(layout)
    macs = sum(alive[name] * layout.tensors[name].uses for name in names)
    return sum(alive[name] for name in names), macs


def list_writers(template: nn.Module, group: Group) -> list[str]:
    """Return the weights whose filters make the channels of a group together.

    More than one: their maps are added up, as at the end of residual blocks. Convolutions that
    filter every channel by itself pass channels on and do not count.
    """
    modules = dict(template.named_modules())
    made = [member.tensor for member in group.members if member.produces]
    return [x for x in made if getattr(modules.get(x.rpartition(".")[0]), "groups", 1) == 1]


def select(trained: Trained, word: str, option: str) -> set[str]:
    """Return the groups whose channels are made in a place.

    Args:
        word: a number or a range of layers (``3``, ``2-19``, see :func:`list_numbered`), the
            name of a group or module (which stands for everything in it), or a pattern with ``*``.
        option: named in errors.

    Raises:
        UsageError: there is no such layer or module, or it makes no channels.
    """
    layout = trained.layout
    if span := _NUMBERS.fullmatch(word):
        tensors = _range(layout, int(span[1]), int(span[2] or span[1]), word, option)
        return _find_made(layout, tensors)
    names = [name for name, _ in trained.template.named_modules() if name]
    places = [name for name in names if fnmatchcase(name, word)]
    groups = {name for name in layout.groups if fnmatchcase(name, word)}
    inside = tuple(f"{place}." for place in places)
    known_names = groups | _find_made(
        layout, (name for name in layout.tensors if name.startswith(inside))
    )
    if known_names:
        return known_names
    example = next(iter(layout.groups))
    raise UsageError(
        f"{option}: {f'`{word}` makes no channels' if places else f'no module `{word}`'}",
        hint=(not places and suggest(word, [*names, *layout.groups]))
        or f"name a convolution or linear layer, such as `{example}`",
        where=option,
    )


def _range(layout: Layout, first: int, last: int, word: str, option: str) -> list[str]:
    names = list_numbered(layout)
    if not 1 <= first <= last <= len(names):
        raise UsageError(
            f"{option}: no layers `{word}`",
            hint=f"layers are numbered from 1 to {len(names)}",
            where=option,
        )
    return names[first - 1 : last]


def _find_made(layout: Layout, tensors: Iterable[str]) -> set[str]:
    wanted = set(tensors)
    return {
        name
        for name, group in layout.groups.items()
        if any(member.produces and member.tensor in wanted for member in group.members)
    }
