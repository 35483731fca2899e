"""What a method's server-side hooks may know in one phase of one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from fpcli.engine.server_side import ServerSide
from fpcli.engine.types import LocalConfig, Support, Tensors, Timing
from fpcli.fleet.clock import stamp, train_seconds
from fpcli.fleet.devices import Device, Fleet
from fpcli.rng import stream
from fpcli.structure.cost import count_cost
from fpcli.structure.layout import Layout
from fpcli.structure.support import EMPTY
from fpcli.wire.blocks import carry_blocks

Phase = Literal["start", "round", "eval"]


@dataclass(frozen=True)
class RoundContext:
    """What a server-side hook may know.

    Attributes:
        round: the round being played, counted from 1; 0 in phase "start".
        phase: "start" once before the first round, "round", or "eval" before an evaluation.
        options: the method's own options.
        layout: channel groups and tensors of the model.
        travels: the part of the layout that jobs and updates carry (all of it, unless the method's
            buffers are local).
        local: the local training settings of the recipe.
        fleet: the simulated devices.
        cohort: clients chosen for this round, sorted; empty until `select` has answered, and all
            registered clients in phase "start".
        num_examples: training samples of every registered client.
        share_labels: tells whether two clients have a class in common; for measures only, since a
            server that needs to know must ask.
        rounds: of the whole run.
        clients_per_round: size of a cohort, of those who have training samples.
        withheld: classes that no client trains on.
        is_upload_exact: changes arrive as clients sent them.
        down_codec: how jobs travel.
        attempt: 0, or how often this round was started again for want of replies.
        seed: seed of the run.
        server: samples of the server's own, the model there, and its hardware, whose work the
            clock counts (`server.charge`).
        log: takes what the event stream should know about a client, or with None about the round:
            ``ctx.log(client, reward=0.5)``; a ``warning`` about the round is shown, too.
    """

    round: int
    phase: Phase
    options: Any
    layout: Layout
    travels: Layout
    local: LocalConfig
    fleet: Fleet
    num_examples: Sequence[int]
    share_labels: Callable[[int, int], bool]
    rounds: int
    clients_per_round: int
    seed: int
    log: Callable[..., None]
    server: ServerSide
    cohort: tuple[int, ...] = ()
    attempt: int = 0
    withheld: tuple[int, ...] = ()
    is_upload_exact: bool = True
    down_codec: str = "dense"

    def send(self, values: Tensors, mask: Tensors = EMPTY) -> dict[str, Tensor]:
        """Return what a client reads of dense tensors; of a codec that rounds at random a draw,
        which is no client's own.

        Args:
            mask: of what is alive; the rest arrives as 0, and no scale is taken from it.
        """
        return carry_blocks(self.down_codec, values, mask, rng=self.rng("down"))

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose in this round."""
        return stream(self.seed, f"method/{purpose}", self.round)

    @cached_property
    def trainers(self) -> tuple[int, ...]:
        """The clients that have training samples; the others are never chosen."""
        return tuple(client for client, number in enumerate(self.num_examples) if number)

    @cached_property
    def available(self) -> tuple[int, ...]:
        """The clients that can be chosen in this attempt at the round: here, with samples."""
        return tuple(
            c for c in self.trainers if self.fleet.is_available(self.round, c, self.attempt)
        )

    def device(self, client: int) -> Device:
        """Return the conditions of one client in this round."""
        return self.fleet.at(self.round, client)

    def full_times(self) -> dict[int, Timing]:
        """Return the seconds that each client of the cohort needs in this round for all of its
        epochs on the whole model, sent densely both ways."""
        return self.times(Support(), {client: self.device(client) for client in self.cohort})

    def times(self, support: Support, devices: Mapping[int, Device]) -> dict[int, Timing]:
        """Return the seconds that clients need for all of their epochs on one sub-model, sent
        densely both ways without headers.

        Args:
            devices: client -> what its work is timed on.
        """
        size = self.size(support)
        return {client: self.time(client, device, size) for client, device in devices.items()}

    def size(self, support: Support) -> tuple[float, int]:
        """Return the multiply-adds of a sub-model, and the bytes of what travels of it."""
        return count_cost(self.layout, support).macs, count_cost(self.travels, support).bytes

    def time(self, client: int, device: Device, size: tuple[float, int]) -> Timing:
        """Return the seconds of one client on a sub-model of some size; see `times`."""
        macs, num_bytes = size
        num = self.num_examples[client] * self.local.epochs
        compute_s = train_seconds(macs, num, device)
        return Timing(*stamp(device, compute_s=compute_s, down_bytes=num_bytes, up_bytes=num_bytes))
