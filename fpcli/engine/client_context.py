"""What a method's client-side hooks may know and do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.data.augment import make_augmenter
from fpcli.data.batches import batches
from fpcli.data.split import Split
from fpcli.engine import memory
from fpcli.engine.placement import move_to
from fpcli.engine.site import Site
from fpcli.engine.types import Fitted, Json, LocalConfig, Support, Task, Tensors, Work, is_finite
from fpcli.errors import DivergedError, NeedError
from fpcli.fleet.clock import train_seconds
from fpcli.fleet.devices import Device
from fpcli.rng import stream
from fpcli.structure.cost import count_cost
from fpcli.structure.shrink import fill_buffers, shrink
from fpcli.tasks.learning_task import Batch
from fpcli.wire.blocks import carry_blocks, is_exact
from fpcli.wire.message import Job

EVALUATE = "evaluate"
"""The ``op`` of judging a client's own model, which the engine answers by the method's `view`."""

UPLOAD = "wire/up"
"""Purpose of the stream from which a codec draws that rounds at random."""


@dataclass(frozen=True, eq=False)
class ClientContext:
    """What a client-side hook may know and do.

    Attributes:
        site: what the process that does the job holds for the whole run.
        job: what the server sent.
    """

    site: Site
    job: Job

    @property
    def task(self) -> Task:
        """What this client is told to do."""
        return self.job.header

    @property
    def client(self) -> int:
        """Its id."""
        return self.job.header.client

    @property
    def round(self) -> int:
        """The round that is played."""
        return self.job.header.round

    @property
    def local(self) -> LocalConfig:
        """How to train."""
        return self.job.header.local

    @property
    def note(self) -> Mapping[str, Json]:
        """What the server's plan or question tells this client."""
        return self.job.header.note

    @property
    def options(self) -> Any:
        """The method's options."""
        return self.site.options

    @property
    def received(self) -> Tensors:
        """The tensors that came with the job, block coordinates; never to be written to."""
        return self.job.values

    @cached_property
    def mask(self) -> Mapping[str, Tensor]:
        """Boolean masks of the masked tensors, block coordinates, where this process computes."""
        return {name: mask.to(self.site.device) for name, mask in self.job.mask.items()}

    @cached_property
    def device(self) -> Device:
        """The simulated device in this round."""
        return self.site.fleet.at(self.round, self.client)

    @property
    def torch_device(self) -> torch.device:
        """Where this process computes."""
        return torch.device(self.site.device)

    @property
    def samples(self) -> Tensor:
        """This client's training samples: sorted indices into ``site.dataset.train``."""
        return self.site.parts[self.client]

    @property
    def num_examples(self) -> int:
        """How many these are."""
        return self.site.num_examples[self.client]

    @cached_property
    def own_classes(self) -> Tensor:
        """Which classes this client has training samples of, bool ``[classes]``."""
        return self.site.dataset.classes_of(self.samples)

    @cached_property
    def support(self) -> Support:
        """Where the received tensors lie in the initial model.

        Raises:
            NeedError: the method's jobs carry no coordinates (its trait ``coordinates``) and the
                sub-model is smaller than the model.
        """
        if self.job.keep is not None:
            return Support(self.job.keep)
        dense = {name: spec.shape for name, spec in self.site.layout.tensors.items()}
        if any(dense[name] != tuple(value.shape) for name, value in self.received.items()):
            raise NeedError(
                f"method `{self.site.method}` asks for coordinates that its jobs do not carry",
                hint="set coordinates=True in the method's traits",
            )
        return Support()

    def module(self, values: Tensors) -> nn.Module:
        """Return the network with block values, fresh statistics of batch norm where these bring
        none, where this process computes.

        Its tensors are copies, so that it can be trained.
        """
        template = self.site.template
        block = {name: value.clone() for name, value in values.items()}
        small = shrink(template, fill_buffers(template, block))
        return move_to(small, self.site.device, self.site.is_channels_last)

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose for this client in this round."""
        return stream(self.site.seed, f"client/{purpose}", self.round, self.client)

    def batches(
        self,
        epoch: int = 0,
        *,
        samples: Tensor | None = None,
        is_augmented: bool = True,
        has_withheld: bool = False,
    ) -> Iterator[Batch]:
        """Yield this client's training batches of one epoch, shuffled by (round, client, epoch).

        Args:
            samples: only these of its samples.
            is_augmented: change the images as the recipe says; False for statistics of the data.
            has_withheld: have the samples of withheld classes among them; only for answers to an
                ``Ask`` that says so.
        """
        part = self.samples if samples is None else samples
        if has_withheld and self.site.withheld_parts:
            part = torch.cat([part, self.site.withheld_parts[self.client]])
        augment = make_augmenter(self.site.augment, self.rng(f"augment/{epoch}"))
        return batches(
            self.site.dataset.train,
            part,
            self.site.dataset.normalise,
            batch_size=self.local.batch_size,
            generator=self.rng(f"batches/{epoch}"),
            device=self.torch_device,
            channels_last=self.site.is_channels_last,
            augment=augment if is_augmented else None,
        )

    def hold_out(self, share: float, purpose: str) -> tuple[Tensor, Split]:
        """Return the samples that this client still trains on, and those held out to judge by.

        The draw knows no round: what judges a model is never trained on. A client with a single
        sample keeps it for both.

        Args:
            share: of its samples that are held out, in (0, 1); at least one, and never all.
            purpose: names the random stream.
        """
        part, train = self.samples, self.site.dataset.train
        num_held = min(max(round(share * len(part)), 1), len(part) - 1)
        if not num_held:
            return part, train.take(part)
        rng = stream(self.site.seed, purpose, client=self.client)
        held, rest = torch.randperm(len(part), generator=rng).tensor_split([num_held])
        return part[rest.sort().values], train.take(part[held])

    def result(
        self,
        model: nn.Module,
        fitted: Fitted,
        *,
        mask: Mapping[str, Tensor] | None = None,
        stay: Mapping[str, Tensor] | None = None,
        stats: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Work:
        """Return what to upload: the trained tensors minus the received ones, and more of `Work`.

        Raises:
            DivergedError: a trained tensor is not finite.
        """
        trained = model.state_dict()
        delta = {}
        for name, before in self.received.items():
            after = trained[name].detach().to(before.device).contiguous()
            delta[name] = after - before
            if not is_finite(delta[name]):
                raise DivergedError(f"`{name}` is not finite after local training")
        metrics_sent = {"loss": fitted.loss, **(metrics or {})}
        return Work(delta, mask, stay or {}, stats or {}, metrics_sent, fitted.num_steps)

    @property
    def is_upload_exact(self) -> bool:
        """Whether the server reads changes as they were sent."""
        return is_exact(self.site.up_codec)

    def commit(self, delta: Tensors, mask: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return what the server will read when ``delta`` is uploaded (error feedback needs it).

        Exact for every codec, those that round at random included: a round's upload is drawn from
        one stream, which starts anew for every call.

        Args:
            delta: all tensors of the upload, in its order, block coordinates.
            mask: the client's own masks, where the upload brings some beside those it received.
        """
        own = {name: bits.cpu() for name, bits in (mask or {}).items()}
        return carry_blocks(self.site.up_codec, delta, self.job.mask, own, self.rng(UPLOAD))

    def train_seconds(self, num_samples: int, support: Support) -> float:
        """Return the simulated seconds of training steps on so many samples, counted again in every
        epoch, with a part of the initial model."""
        return train_seconds(count_cost(self.site.layout, support).macs, num_samples, self.device)

    def recall(self, name: str, *, since: int = 0) -> dict[str, Tensor]:
        """Return what this client remembered in an earlier round, cut to the present sub-model.

        Memories are kept in the coordinates of the initial model, so they survive a sub-model that
        changes from round to round. Empty when nothing was remembered. Personal models are judged
        after the round's training, so `view` sees what was remembered in this very round.

        Args:
            since: what was remembered in a round before this one is too old and counts no more;
                a client may have missed the round that made it so.
        """
        before = self.round + (self.task.op == EVALUATE)
        dense = memory.recall(self.site.home, self.client, name, before, since)
        return self.support.gather(self.site.layout, dense) if dense else {}

    def remember(self, name: str, tensors: Tensors) -> None:
        """Keep block tensors for later rounds; other coordinates stay as they were remembered."""
        old: dict[str, Tensor] = memory.recall(self.site.home, self.client, name, self.round)
        values, held = self.support.scatter(self.site.layout, tensors)
        dense = {
            key: torch.where(held[key].bool(), value, old.get(key, torch.zeros_like(value)))
            for key, value in values.items()
        }
        memory.remember(self.site.home, self.client, name, self.round, dense)
