"""All that a client ever does: take the bytes of a job, return the bytes of a reply."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from fpcli.data.augment import augmenter
from fpcli.data.batches import batches
from fpcli.engine import memory
from fpcli.engine.evaluate import evaluate_on_own
from fpcli.engine.fit import Batch, Fitted, Result, Work, explain_lone_sample
from fpcli.engine.placement import place
from fpcli.engine.site import Site
from fpcli.engine.types import Json, LocalConfig, Support, Tensors, is_finite
from fpcli.errors import DivergedError, FpError, NeedError, WireError
from fpcli.fleet.clock import train_seconds
from fpcli.fleet.devices import Device
from fpcli.rng import derive, stream
from fpcli.structure.choice import within
from fpcli.structure.cost import cost
from fpcli.structure.kernels import use_sparse
from fpcli.structure.shrink import shrink, with_buffers
from fpcli.wire.blocks import decode, encode, is_exact
from fpcli.wire.message import MaskError, Reply, pack_reply, unpack_job


@dataclass(frozen=True, eq=False)
class ClientContext:
    """What a client-side hook may know and do.

    Attributes:
        received: the tensors that came with the job, block coordinates; never written to.
        mask: boolean masks of the masked tensors, block coordinates.
        note: what the server's plan or probe told this client.
        device: the simulated device in this round.
        max_steps: training steps after which `fit` stops; 0 does all epochs.
    """

    site: Site
    client: int
    round: int
    op: str
    options: Any
    local: LocalConfig
    note: Mapping[str, Json]
    device: Device
    received: Tensors
    mask: Mapping[str, Tensor]
    keep: Mapping[str, Tensor] | None = field(repr=False, default=None)
    is_mask_known: bool = False
    max_steps: int = 0

    @property
    def torch_device(self) -> torch.device:
        """Where this process computes."""
        return torch.device(self.site.device)

    @property
    def num_examples(self) -> int:
        """Training samples of this client."""
        return self.site.sizes[self.client]

    @cached_property
    def own_classes(self) -> Tensor:
        """Which classes this client has training samples of, bool ``[classes]``."""
        return self.site.dataset.classes_of(self.site.parts[self.client])

    @cached_property
    def support(self) -> Support:
        """Where the received tensors lie in the initial model (needs ``sends_indices``).

        Raises:
            NeedError: the method does not send indices and the sub-model is smaller than the model.
        """
        if self.keep is not None:
            return Support(self.keep)
        dense = {name: spec.shape for name, spec in self.site.layout.tensors.items()}
        if any(dense[name] != tuple(value.shape) for name, value in self.received.items()):
            raise NeedError(
                f"method `{self.site.method}` asks for coordinates that its jobs do not carry",
                hint="set sends_indices = True in the method",
            )
        return Support()

    def rng(self, purpose: str) -> torch.Generator:
        """Return the stream of one purpose for this client in this round."""
        return stream(self.site.seed, f"client/{purpose}", self.round, self.client)

    def batches(
        self, epoch: int = 0, *, is_augmented: bool = True, has_withheld: bool = False
    ) -> Iterator[Batch]:
        """Yield this client's training batches of one epoch, shuffled by (round, client, epoch).

        Args:
            is_augmented: change the images as the recipe says; False for statistics of the data.
            has_withheld: have the samples of withheld classes among them; only for answers to a
                ``Probe`` that says so.
        """
        part = self.site.parts[self.client]
        if has_withheld and self.site.withheld_parts:
            part = torch.cat([part, self.site.withheld_parts[self.client]])
        augment = augmenter(self.site.augment, self.rng(f"augment/{epoch}"))
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

    def result(
        self,
        model: nn.Module,
        fitted: Fitted,
        *,
        mask: Mapping[str, Tensor] | None = None,
        stats: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Result:
        """Return what to upload: the trained tensors minus the received ones, and ``stats``.

        Args:
            mask: the client's own masks, where it has chosen some; else those it received.

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
        return Result(delta, fitted, mask, stats or {}, metrics or {})

    @property
    def is_upload_exact(self) -> bool:
        """Whether the server reads changes as they were sent."""
        return is_exact(self.site.codec)

    def commit(self, delta: Tensors, mask: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return what the server will read when ``delta`` is uploaded (error feedback needs it).

        Exact for every codec, those that round at random included: a round's upload is drawn from
        one stream, which starts anew for every call.

        Args:
            delta: all tensors of the upload, in its order, block coordinates.
            mask: the client's own masks, where the upload brings some; else those it received.
        """
        site, is_known = self.site, mask is None
        masks = self.mask if mask is None else mask
        masks = {name: mask.cpu() for name, mask in masks.items()}
        parts = encode(site.codec, delta, masks, is_known, self.rng(_UP))
        shapes = {name: tuple(value.shape) for name, value in delta.items()}
        return decode(site.codec, parts, shapes, masks if is_known else {})[0]

    def train_seconds(self, num_samples: int, support: Support) -> float:
        """Return the simulated seconds of training steps on so many samples, counted again in every
        epoch, with a part of the initial model."""
        return train_seconds(cost(self.site.layout, support).macs, num_samples, self.device)

    def recall(self, name: str, *, since: int = 0) -> dict[str, Tensor]:
        """Return what this client remembered in an earlier round, cut to the present sub-model.

        Memories are kept in the coordinates of the initial model, so they survive a sub-model that
        changes from round to round. Empty when nothing was remembered. Personal models are judged
        after the round's training, so `view` sees what was remembered in this very round.

        Args:
            since: what was remembered in a round before this one is too old and counts no more;
                a client may have missed the round that made it so.
        """
        before = self.round + 1 if self.op == "evaluate" else self.round
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


def perform(data: bytes, site: Site) -> bytes:
    """Do one job and return its reply; an error of the client's is a reply that says so.

    The result depends on ``data`` and ``site`` alone: every random number is derived from the
    run's seed, the round and the client, torch's global generator included.

    Raises:
        WireError: ``data`` is not a job of this run.
    """
    try:
        job = unpack_job(data, limit_bytes=site.limit_bytes, known=partial(_known_mask, site))
    except MaskError as error:
        return pack_reply(Reply(**error.address, error=f"failed: {error.message}"))
    if job.run != site.run:
        raise WireError("a job of another run", hint="client and server must use one recipe")
    started = time.perf_counter()
    context = ClientContext(
        site=site,
        client=job.client,
        round=job.round,
        op=job.op,
        options=site.options,
        local=job.local,
        note=job.note,
        device=site.fleet.at(job.round, job.client),
        received=job.values,
        mask={name: mask.to(site.device) for name, mask in job.mask.items()},
        keep=job.keep,
        is_mask_known=job.is_mask_known,
        max_steps=job.max_steps,
    )

    def pack(**fields: Any) -> bytes:
        reply = Reply(
            op=job.op,
            round=job.round,
            client=job.client,
            run=job.run,
            codec=site.codec,
            real_s=time.perf_counter() - started,
            **fields,
        )
        return pack_reply(reply, known=job.mask, rng=context.rng(_UP))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(site.seed, f"client/torch/{job.op}", job.round, job.client))
        try:
            with explain_lone_sample(
                job.local.batch_size, context.num_examples, "local.batch_size"
            ):
                return pack(**_OPS.get(job.op, _answer)(context))
        except DivergedError as error:
            problem = f"diverged: {error.message}"
        except FpError as error:
            remedy = f" ({error.hint})" if error.hint else ""
            problem = f"failed: {error.message}{remedy}"
        except Exception as error:  # the client's fault must not stop the round
            problem = f"failed: {type(error).__name__}: {error}"
    return pack(error=problem)


def _model(cx: ClientContext) -> nn.Module:
    # The received tensors stay as they came, because the delta is taken against them.
    block = {name: value.clone() for name, value in cx.received.items()}
    small = shrink(cx.site.template, with_buffers(cx.site.template, block))
    return place(small, cx.site.device, cx.site.is_channels_last)


def _train(cx: ClientContext) -> dict[str, Any]:
    model = _model(cx)
    if cx.site.hooks.trains_sparse:
        model = use_sparse(model, cx.mask, within(cx.mask, cx.site.sparse.train))
    result = cx.site.hooks.train(cx, model)
    if cx.site.hooks.remembers_mask and (result.mask is not None or not cx.is_mask_known):
        mask = cx.mask if result.mask is None else result.mask
        memory.remember(cx.site.home, cx.client, _MASK, cx.round, mask)
    return {
        "tensors": result.delta,
        "mask": result.mask,
        "stats": result.stats,
        "num_examples": cx.num_examples,
        "num_steps": result.fitted.num_steps,
        "metrics": {"loss": result.fitted.loss, **result.metrics},
    }


def _answer(cx: ClientContext) -> dict[str, Any]:
    answer = cx.site.hooks.answer(cx, _model(cx), cx.op)
    work = answer if isinstance(answer, Work) else Work(answer)
    return {"tensors": work.tensors, "num_examples": cx.num_examples, "metrics": work.seconds}


def _evaluate(cx: ClientContext) -> dict[str, Any]:
    site = cx.site
    values = site.hooks.view(cx, cx.received)
    block = {name: value.clone() for name, value in values.items()}
    small = shrink(site.template, with_buffers(site.template, block))
    model = place(small, site.device, site.is_channels_last)
    own = site.dataset.test.take(site.test_parts[cx.client])
    score = evaluate_on_own(
        model, own, site.dataset.normalise, cx.own_classes, channels_last=site.is_channels_last
    )
    metrics = asdict(score)
    return {"num_examples": metrics.pop("num_examples"), "metrics": metrics}


def _known_mask(site: Site, client: int, round: int) -> dict[str, Tensor]:
    """Return the masks that a client had after its last training, block coordinates."""
    return memory.recall(site.home, client, _MASK, round)


_MASK, _UP = "mask", "wire/up"
_OPS = {"train": _train, "evaluate": _evaluate}
