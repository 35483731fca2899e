"""A trained model in memory: its values, what is alive of it, and the data that it is for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Gt
from torch import nn

from fpcli.data.datasets import Dataset
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import LearningTask


@dataclass(frozen=True)
class DataKey:
    """Which data a model was trained on; the same key gives the same validation split."""

    name: str
    validation_fraction: float
    seed: int


@dataclass(frozen=True)
class Inputs:
    """What a network's inputs and outputs mean.

    Attributes:
        class_names: of its outputs, in order.
        scale, mean, std: an input is ``(stored * scale - mean) / std``, per channel or feature.
        normalised_by: the value of ``task.normalise`` that these are from.
    """

    class_names: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Gt(0)], ...]
    normalised_by: str = "auto"

    @classmethod
    def of(cls, dataset: Dataset) -> Inputs:
        """Return those of a data set."""
        return cls(
            dataset.class_names, dataset.scale, dataset.mean, dataset.std, dataset.normalised_by
        )

    def differ_from(self, others: Inputs) -> bool:
        """Tell whether a network trained with one would see something else in the others.

        The scale alone says nothing: the same images may be stored as bytes or from 0 to 1.
        """
        mine, theirs = (self.mean + self.std, others.mean + others.std)
        if not all(map(_is_close, mine, theirs)):
            return True
        return self.scale != others.scale and self.normalised_by != others.normalised_by

    def do_fit(self, input_shape: Sequence[int], task: LearningTask) -> bool:
        """Tell whether there is one name per class, if classes are learned, and one mean and std
        per channel, if inputs are numbers."""
        num_names = task.num_outputs if task.kind == "classify" else 0
        num_channels = 0 if task.kind == "rank" else input_shape[0]
        counts = (len(self.class_names), len(self.mean), len(self.std))
        return counts == (num_names, num_channels, num_channels)


def _is_close(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=1e-3, abs_tol=1e-3)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model in the coordinates of its initial model.

    Attributes:
        model: name of the network, for ``models.build``.
        template: the initial network; its values do not matter.
        layout: its tensors and channel groups.
        support: what is alive.
        values: dense tensors, 0 where nothing is alive.
        task: what it is for.
        data: what it was trained on, or None where nobody said.
        inputs: what its inputs and outputs mean, likewise.
    """

    model: str
    template: nn.Module
    layout: Layout
    support: Support
    values: Tensors
    input_shape: tuple[int, ...]
    task: LearningTask
    data: DataKey | None = None
    inputs: Inputs | None = None

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
