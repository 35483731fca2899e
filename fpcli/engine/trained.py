"""A trained model in memory: its values, what is alive of it, and the data that it is for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support


@dataclass(frozen=True)
class DataKey:
    """Which data a model was trained on; the same key gives the same validation split."""

    name: str
    validation_fraction: float
    seed: int


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model in the coordinates of its initial model.

    Attributes:
        model: name of the network, for ``models.build``.
        template: the initial network; its values do not matter.
        layout: its tensors and channel groups.
        support: what is alive.
        values: dense tensors, 0 where nothing is alive.
        data: what it was trained on, or None where nobody said.
    """

    model: str
    template: nn.Module
    layout: Layout
    support: Support
    values: Tensors
    input_shape: tuple[int, ...]
    num_classes: int
    data: DataKey | None = None

    def module(self) -> nn.Module:
        """Return the small network with its values, in evaluation mode; it shares no memory."""
        block = self.support.gather(self.layout, self.values)
        copies = {name: value.clone() for name, value in block.items()}
        return shrink(self.template, copies).eval()
