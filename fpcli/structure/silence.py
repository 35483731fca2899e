"""Silence: single output channels of layers made exactly 0, and removed where the network allows.

A convolution's channel is silent when its filter, its bias, and scale and shift of the
normalisation behind it are 0. A zero filter alone is not enough: batch norm would put out its shift
minus its scaled mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fpcli.structure.layout import Group, Layout, Tensors
from fpcli.structure.support import Support


def silence_channels(
    layout: Layout, support: Support, channels: Tensors, norms: Mapping[str, str]
) -> Support:
    """Return a support in which channels of layers are removed, or else masked for good.

    A channel is removed where every layer that makes it is silent there and no normalisation could
    make something of it: with several layers adding up, one that speaks keeps the channel alive.

    Args:
        layout: the groups.
        support: what is alive now.
        channels: layer -> int64 output channels, in coordinates of the initial model.
        norms: layer -> the normalisation that takes its output and nothing else.
    """
    mask = dict(support.mask)
    for layer, removed in channels.items():
        for owner in (layer, norms.get(layer)):
            for name in (f"{owner}.weight", f"{owner}.bias"):
                if name in layout.tensors and len(removed):
                    shape = layout.tensors[name].shape
                    mask[name] = mask.get(name, torch.ones(shape, dtype=torch.bool)).clone()
                    mask[name][removed] = False
    keep = dict(support.keep)
    for name, group in layout.prunable.items():
        dead = _silent(layout, group, mask)
        if group.block == 1 and dead.any() and not dead.all():
            alive = keep.get(name, torch.arange(group.width))
            left = alive[~dead[alive]]
            if len(left):
                keep[name] = left
    return _without_idle_masks(layout, Support(keep, mask))


def _silent(layout: Layout, group: Group, mask: Tensors) -> Tensor:
    """Return which channels nothing in a group puts out: bool ``[width]``."""
    dead = torch.ones(group.width, dtype=torch.bool)
    for member in group.members:
        spec = layout.tensors[member.tensor]
        is_vector = spec.is_parameter and len(spec.shape) == 1
        if not (member.produces or is_vector):
            continue
        bits = mask.get(member.tensor)
        if bits is None or (is_vector and _is_joint(layout, member.tensor)):
            return torch.zeros_like(dead)
        rows = bits[:, None] if is_vector else bits.movedim(member.dim, 0).flatten(1)
        dead &= ~rows[member.index].flatten(1).any(1)
    return dead


def _is_joint(layout: Layout, name: str) -> bool:
    """Tell whether a vector is of a normalisation that looks at several channels at once, and so
    would see that one is gone."""
    owner = name.rpartition(".")[0]
    weight = layout.tensors.get(f"{owner}.weight")
    has_statistics = f"{owner}.running_mean" in layout.tensors
    return not has_statistics and weight is not None and len(weight.shape) == 1


def _without_idle_masks(layout: Layout, support: Support) -> Support:
    """Leave out masks that say nothing about what is kept."""
    block = support.block_mask(layout)
    needed = {name: bits for name, bits in support.mask.items() if not bool(block[name].all())}
    return Support(support.keep, needed)


def zero_silent(layout: Layout, support: Support, values: Tensors) -> dict[str, Tensor]:
    """Return dense values that are 0 wherever a support has nothing alive."""
    block = support.gather(layout, values)
    return support.scatter(layout, block)[0]
