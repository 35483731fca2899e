"""What a server-side hook works with beside tensors: samples of the server's own, and a clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from fpcli.data.augment import make_augmenter
from fpcli.data.batches import batches
from fpcli.data.datasets import Dataset
from fpcli.data.split import Split
from fpcli.engine.placement import move_to
from fpcli.errors import NeedError
from fpcli.fleet.clock import forward_seconds, train_seconds
from fpcli.fleet.devices import Level
from fpcli.rng import seed_torch, stream
from fpcli.settings.tasks import Augment
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Layout, Tensors
from fpcli.structure.shrink import shrink
from fpcli.structure.support import Support
from fpcli.tasks.learning_task import Batch

_SECONDS = {"train": train_seconds, "forward": forward_seconds}


@dataclass
class Charged:
    """Simulated seconds of the server's work in one round, failed attempts included.

    Attributes:
        alone_s: while the clients wait.
        beside_s: while they work.

    >>> Charged(alone_s=1.0, beside_s=5.0).round_seconds(3.0)
    6.0
    """

    alone_s: float = 0.0
    beside_s: float = 0.0

    def round_seconds(self, clients_s: float) -> float:
        """Return the seconds of a round in which clients take ``clients_s``, all questions and
        attempts together: the longer of what goes on side by side, and what does not."""
        return self.alone_s + max(clients_s, self.beside_s)


@dataclass(frozen=True, eq=False)
class ServerSide:
    """The server as a place that computes; there is one for each round.

    Attributes:
        layout: channel groups and tensors of the model.
        template: the full model's structure without values.
        dataset: of which some training samples are the server's.
        indices: which ones, int64 ``[n]`` into ``dataset.train``; none unless the recipe says so.
        level: the simulated hardware, the same in every round.
        device: torch device that computes.
        augment: random change of training images, as for clients.
        charged: what `charge` has counted so far; the engine adds it to the round.
    """

    layout: Layout
    template: nn.Module
    dataset: Dataset
    indices: Tensor
    level: Level
    seed: int
    round: int = 0
    device: str = "cpu"
    is_channels_last: bool = True
    augment: Augment = "none"
    charged: Charged = field(default_factory=Charged)

    def at(self, round: int) -> ServerSide:
        """Return the server in another round, in which nothing is charged yet."""
        return replace(self, round=round, charged=Charged())

    @property
    def num_examples(self) -> int:
        """Training samples of the server; 0 unless the recipe sets some aside."""
        return len(self.indices)

    @cached_property
    def label_counts(self) -> Tensor:
        """How many samples of each class these are, int64 ``[classes]``."""
        labels = self.dataset.train.labels[self.indices]
        return torch.bincount(labels, minlength=self.dataset.num_classes)

    @cached_property
    def samples(self) -> Split:
        """The samples as they are stored, neither normalised nor augmented.

        Raises:
            NeedError: the server has none.
        """
        self._need_samples()
        return self.dataset.train.take(self.indices)

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose for the server in this round."""
        return stream(self.seed, f"server/{purpose}", self.round)

    def seeded(self, purpose: str) -> AbstractContextManager[None]:
        """Let layers such as dropout draw from the stream of one purpose, in this round."""
        return seed_torch(self.seed, f"server/torch/{purpose}", self.round, device=self.device)

    def batches(
        self, epoch: int = 0, *, batch_size: int, is_augmented: bool = True
    ) -> Iterator[Batch]:
        """Return the server's batches of one epoch, shuffled by (round, epoch).

        Args:
            is_augmented: change the images as the recipe says; False for statistics of the data.

        Raises:
            NeedError: the server has no samples.
        """
        self._need_samples()
        augment = make_augmenter(self.augment, self.rng(f"augment/{epoch}"))
        return batches(
            self.dataset.train,
            self.indices,
            self.dataset.normalise,
            batch_size=batch_size,
            generator=self.rng(f"batches/{epoch}"),
            device=self.device,
            channels_last=self.is_channels_last,
            augment=augment if is_augmented else None,
        )

    def module(self, values: Tensors, support: Support | None = None) -> nn.Module:
        """Return the network with dense values, cut to a support, where the server computes.

        Its tensors are copies, so that it can be trained.
        """
        block = (support or Support()).gather(self.layout, values)
        copies = {name: value.clone() for name, value in block.items()}
        return move_to(shrink(self.template, copies), self.device, self.is_channels_last)

    def charge(
        self,
        num_samples: float,
        support: Support | None = None,
        *,
        passes: Literal["train", "forward"] = "train",
        beside: bool = False,
    ) -> float:
        """Count work on the server's simulated hardware, and return its seconds.

        Every call counts, so that it belongs in hooks that run once per attempt.

        Args:
            num_samples: samples that go through, counted again in every epoch.
            support: the part of the initial model that they go through; None is all of it.
            passes: training steps, or forward passes only, which take a third of their time.
            beside: the clients of the round work meanwhile; they wait otherwise.
        """
        macs = count_cost(self.layout, support or Support()).macs
        seconds = _SECONDS[passes](macs, num_samples, self.level)
        if beside:
            self.charged.beside_s += seconds
        else:
            self.charged.alone_s += seconds
        return seconds

    def _need_samples(self) -> None:
        require_server_data("what runs on the server", self.num_examples)


def require_server_data(who: str, num_examples: int) -> None:
    """Refuse to go on without samples of the server's own.

    Args:
        who: needs them, such as a method.
        num_examples: samples that the server has.

    Raises:
        NeedError: these are none.
    """
    if not num_examples:
        raise NeedError(
            f"{who} needs training samples on the server, and there are none",
            hint="set task.server_share, for example `--set task.server_share=0.1`",
            where="task.server_share",
        )
