"""Presets: the settings of the paper on pruning filters, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Preset:
    """One setting.

    Attributes:
        model: the network that it is for, in words.
        num_layers: of that network, as the paper numbers them.
        rates: layers and the share of their filters that goes; all other layers lose none.
        spared: layers among them that lose none.
        residual: see ``filters.Options``.
    """

    model: str
    num_layers: int
    rates: tuple[tuple[str, float], ...]
    spared: tuple[str, ...] = ()
    residual: Literal["inner-only", "projection"] = "inner-only"


_VGG16, _RESNET56, _RESNET110 = "vgg16", "resnet56-pad", "resnet110-pad"
_RESNET34 = "torchvision:resnet34"
_SPARED34 = ("2", "8", "14", "16", "26", "28", "30", "32")

PRESETS: Mapping[str, Preset] = {
    "vgg16-A": Preset(_VGG16, 15, (("1", 0.5), ("8-13", 0.5))),
    "resnet56-A": Preset(_RESNET56, 56, (("2-55", 0.1),), ("16", "20", "38", "54")),
    "resnet56-B": Preset(
        _RESNET56,
        56,
        (("2-19", 0.6), ("20-37", 0.3), ("38-55", 0.1)),
        ("16", "18", "20", "34", "38", "54"),
    ),
    "resnet110-A": Preset(_RESNET110, 110, (("2-37", 0.5),), ("36",)),
    "resnet110-B": Preset(
        _RESNET110, 110, (("2-37", 0.5), ("38-73", 0.4), ("74-109", 0.3)), ("36", "38", "74")
    ),
    "resnet34-A": Preset(_RESNET34, 34, (("2-27", 0.3),), _SPARED34),
    "resnet34-B": Preset(_RESNET34, 34, (("2-7", 0.5), ("8-15", 0.6), ("16-27", 0.4)), _SPARED34),
    "resnet34-C": Preset(_RESNET34, 34, (("17", 0.2),), residual="projection"),
}
"""Name -> setting.

Source: section 4 and table 1 of Li et al., ICLR 2017. Layers are numbered from 1 in the order of
the network, without the projections of shortcuts; a range means the filters that are free in it.
"""
