"""What a process that performs jobs holds for a whole run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.data.datasets import Dataset
from fpcli.fleet.devices import Fleet
from fpcli.models.build import build
from fpcli.plugins import load_reference
from fpcli.settings.tasks import Augment
from fpcli.structure.choice import Limits
from fpcli.structure.layout import Layout
from fpcli.structure.shrink import hollow_out


@dataclass(frozen=True, eq=False, kw_only=True)
class Common:
    """What the server and every process that performs jobs know of a run.

    Attributes:
        run: digest of recipe and layout, carried by every message; jobs of other runs are refused.
        options: the method's options.
        dataset: the data, in shared memory when there are several processes.
        num_examples: training samples of every registered client.
        num_withheld: samples of withheld classes of every client; empty if there are none.
        fleet: the simulated devices.
        up_codec: of what clients send.
        device: where this process computes.
        sparse: which layers skip masked weights.
    """

    run: str
    options: Any
    dataset: Dataset
    num_examples: tuple[int, ...]
    num_withheld: tuple[int, ...] = ()
    fleet: Fleet
    up_codec: str
    seed: int
    device: str = "cpu"
    is_channels_last: bool = True
    sparse: Limits = field(default_factory=Limits)


@dataclass(frozen=True, eq=False, kw_only=True)
class Site(Common):
    """What a process that performs jobs holds for a whole run; it can be sent to another process.

    Attributes:
        method: ``module:Class`` of the method, which runs from this installation.
        model: name of the model, built from this installation.
        layout_json: the layout as JSON text, read only when a method needs coordinates.
        indices: training samples of all clients one after another.
        test_indices, test_sizes: personal test sets, one after another, and how many samples each
            has; empty sizes mean none.
        withheld_indices: the samples that no client trains on, likewise.
        home: folder of the clients' memories.
        limit_bytes: a longer message is refused unread.
        augment: random change of training images.
    """

    method: str
    model: str
    layout_json: str
    indices: Tensor
    test_indices: Tensor
    test_sizes: tuple[int, ...]
    withheld_indices: Tensor | None = None
    home: Path
    limit_bytes: int
    augment: Augment = "none"

    @cached_property
    def hooks(self) -> Any:
        """The method's instance, a `Method`: which knows of clients, who know of this."""
        return load_reference(self.method)()

    @cached_property
    def template(self) -> nn.Module:
        """A model of the full size that has structure but no values."""
        dataset = self.dataset
        model = build(
            self.model, dataset.input_shape, dataset.task, seed=self.seed, allow_code=True
        )
        return hollow_out(model)

    @cached_property
    def layout(self) -> Layout:
        """Channel groups and tensors of the model."""
        return Layout.from_json(json.loads(self.layout_json))

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """Training samples of each client."""
        return torch.split(self.indices, list(self.num_examples))

    @cached_property
    def withheld_parts(self) -> tuple[Tensor, ...]:
        """Samples of each client that it does not train on; empty where nothing is withheld."""
        if self.withheld_indices is None:
            return ()
        return torch.split(self.withheld_indices, list(self.num_withheld))

    @cached_property
    def test_parts(self) -> tuple[Tensor, ...]:
        """Personal test samples of each client."""
        return torch.split(self.test_indices, list(self.test_sizes))
