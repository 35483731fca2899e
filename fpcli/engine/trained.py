"""A trained model in memory: its values, what is alive of it, and the data that it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def cut(self, support: Support) -> Trained:
        """Return the model with less alive; values are 0 where nothing is alive any more.

        Args:
            support: within the present one.
        """
        block = support.gather(self.layout, self.values)
        values, _ = support.scatter(self.layout, block)
        return replace(self, support=support, values=values)

    def updated(self, small: nn.Module) -> Trained:
        """Return the model with the values of its small network, which may have been trained."""
        state = small.state_dict()
        block = {name: state[name].detach().cpu() for name in self.layout.tensors}
        values, _ = self.support.scatter(self.layout, block)
        return replace(self, values=values)
