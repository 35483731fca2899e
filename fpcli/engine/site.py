"""What a process that performs jobs holds for a whole run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.data.augment import Augment
from fpcli.data.datasets import Dataset
from fpcli.engine.method import Method
from fpcli.fleet.devices import Fleet
from fpcli.models.build import build
from fpcli.plugins import load
from fpcli.structure.choice import Limits
from fpcli.structure.layout import Layout
from fpcli.structure.shrink import hollow


@dataclass(frozen=True, eq=False)
class Site:
    """What a process that performs jobs holds for a whole run; it can be sent to another process.

    Attributes:
        run: digest of recipe and layout; jobs of other runs are refused.
        method: ``module:Class`` of the method, which runs from this installation.
        options: the method's options.
        model: name of the model, built from this installation.
        layout_json: the layout as JSON text, read only when a method needs coordinates.
        dataset: the data, in shared memory when there are several processes.
        indices, sizes: training samples of all clients one after another, and how many each has.
        test_indices, test_sizes: likewise for the personal test sets; empty sizes mean none.
        withheld_indices, withheld_sizes: likewise for the samples that no client trains on.
        home: folder of the clients' memories.
        codec: of what clients send.
        limit_bytes: a longer message is refused unread.
        augment: random change of training images.
        sparse: which layers skip masked weights.
    """

    run: str
    method: str
    options: Any
    model: str
    layout_json: str
    dataset: Dataset
    indices: Tensor
    sizes: tuple[int, ...]
    test_indices: Tensor
    test_sizes: tuple[int, ...]
    fleet: Fleet
    codec: str
    seed: int
    home: Path
    limit_bytes: int
    device: str = "cpu"
    is_channels_last: bool = True
    augment: Augment = "none"
    sparse: Limits = field(default_factory=Limits)
    withheld_indices: Tensor | None = None
    withheld_sizes: tuple[int, ...] = ()

    @cached_property
    def hooks(self) -> Method:
        """The method's instance."""
        return load(self.method)()

    @cached_property
    def template(self) -> nn.Module:
        """A model of the full size that has structure but no values."""
        shape, classes = self.dataset.input_shape, self.dataset.num_classes
        return hollow(build(self.model, shape, classes, seed=self.seed, allow_code=True))

    @cached_property
    def layout(self) -> Layout:
        """Channel groups and tensors of the model."""
        return Layout.from_json(json.loads(self.layout_json))

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """Training samples of each client."""
        return torch.split(self.indices, list(self.sizes))

    @cached_property
    def withheld_parts(self) -> tuple[Tensor, ...]:
        """Samples of each client that it does not train on; empty where nothing is withheld."""
        if self.withheld_indices is None:
            return ()
        return torch.split(self.withheld_indices, list(self.withheld_sizes))

    @cached_property
    def test_parts(self) -> tuple[Tensor, ...]:
        """Personal test samples of each client."""
        return torch.split(self.test_indices, list(self.test_sizes))
