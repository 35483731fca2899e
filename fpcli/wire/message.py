"""What travels between the server and a client: Job and Reply, and both as bytes.

Lengths depend on contents alone, so that traffic is the same in every run of the same recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fpcli.errors import WireError
from fpcli.wire import frame
from fpcli.wire.blocks import Shape, decode, encode, kept, mask_digest, prefixed, sections
from fpcli.wire.frame import SAME_VERSION
from fpcli.wire.headers import (
    JOB_HEADER,
    MAX_ERROR,
    REPLY_HEADER,
    TRAIN,
    Json,
    LocalConfig,
    check_reply,
    to_hex,
)

__all__ = [
    "TRAIN",
    "Job",
    "Json",
    "LocalConfig",
    "MaskError",
    "Reply",
    "Shape",
    "pack_job",
    "pack_reply",
    "unpack_job",
    "unpack_reply",
]


class MaskError(WireError):
    """A job that relies on masks which its client does not have.

    Attributes:
        address: op, round, client, run and codec of the job, for a reply that says so.
    """

    def __init__(self, address: Mapping[str, Any]) -> None:
        super().__init__(
            f"client {address['client']} has not the masks that a job of round "
            f"{address['round']} relies on",
            hint="send the masks again",
        )
        self.address = address


_EMPTY: Mapping[str, Any] = MappingProxyType({})
_JOB = b"FPjb"
_REPLY = b"FPrp"


@dataclass(frozen=True)
class Job:
    """What one client is asked to do.

    Attributes:
        method: registered name.
        op: ``train`` or the name of a probe.
        run: hex digest of recipe and layout; a reply must bring the same.
        note: what the method tells the client beside the tensors.
        codec: registered name.
        values: block tensors, float32, in the order in which they travel.
        mask: in block coordinates, for any of ``values``.
        is_mask_known: the client has the masks already, and only values travel.
        max_steps: training steps after which the client stops; 0 does all of its epochs.
        keep: kept channels per group, for methods whose clients store tensors in coordinates of
            the initial model; None where the shapes of ``values`` say enough.
    """

    method: str
    op: str
    round: int
    client: int
    run: str
    local: LocalConfig
    codec: str
    values: Mapping[str, Tensor]
    mask: Mapping[str, Tensor] = field(default_factory=dict)
    keep: Mapping[str, Tensor] | None = None
    note: Mapping[str, Json] = field(default_factory=dict)
    is_mask_known: bool = False
    max_steps: int = 0


@dataclass(frozen=True)
class Reply:
    """What a client returns.

    Attributes:
        codec: how ``tensors`` of a training job travel.
        tensors: trained minus received values for ``train``, any answer for a probe.
        mask: in block coordinates, for any of ``tensors``; None where the job's still holds.
        stats: further tensors for the method.
        metrics: finite unless ``error`` is set.
        real_s: measured seconds.
        error: empty, or ``diverged: ...`` or ``failed: ...``; then no tensors travel.
    """

    op: str
    round: int
    client: int
    run: str
    codec: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Mapping[str, Tensor] | None = None
    stats: Mapping[str, Tensor] = field(default_factory=dict)
    num_examples: int = 0
    num_steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    real_s: float = 0.0
    error: str = ""


def pack_job(job: Job, rng: torch.Generator | None = None) -> bytes:
    """Return the bytes of a job.

    Args:
        rng: what a codec that rounds at random draws from.

    Raises:
        WireError: a field that no client would accept, or tensors that the codec cannot write.
    """
    note = dict(job.note)
    parts = encode(job.codec, job.values, job.mask, job.is_mask_known, rng)
    header = {
        "method": job.method,
        "op": job.op,
        "round": job.round,
        "client": job.client,
        "run": job.run,
        "local": asdict(job.local),
        "codec": job.codec,
        "note": note,
        "has_keep": job.keep is not None,
        "known_mask": mask_digest(job.mask) if job.is_mask_known else "",
        "shapes": {
            name: list(values.shape)
            for name, values in job.values.items()
            if parts[name].shape != values.shape
        },
    } | ({"max_steps": job.max_steps} if job.max_steps else {})
    text = frame.dump_json(header)
    frame.checked(JOB_HEADER, text)
    if json.loads(text)["note"] != note:
        raise WireError(
            f"the note to client {job.client} would arrive changed",
            hint="use text as keys and lists instead of tuples",
        )
    keep = {name: index.to(torch.int32) for name, index in (job.keep or {}).items()}
    return frame.write(_JOB, text, prefixed("v/", parts) | prefixed("k/", keep))


def unpack_job(
    data: bytes,
    *,
    limit_bytes: int,
    known: Callable[[int, int], Mapping[str, Tensor]] = lambda client, round: {},
) -> Job:
    """Return the job in a message; its tensors have memory of their own.

    Args:
        data: what was received.
        limit_bytes: longest message, and most bytes of its tensors when decoded.
        known: returns the masks that a client has before a round; asked only where the job relies
            on them.

    Raises:
        MaskError: the client's masks are not those that the job relies on.
        WireError: anything about the bytes is wrong.
    """
    text, body = frame.read(data, _JOB, limit_bytes=limit_bytes)
    header = frame.checked(JOB_HEADER, text)
    parts, keep = sections(body, "v/", "k/")
    if 5 * sum(math.prod(shape) for shape in header.shapes.values()) > limit_bytes:
        raise WireError(
            f"the tensors of a job need more than {limit_bytes} bytes",
            hint="raise the limit if this size is expected",
        )
    if (keep and not header.has_keep) or not header.shapes.keys() <= parts.keys():
        raise WireError("a job has tensors or shapes that do not belong", hint=SAME_VERSION)
    shapes = {name: tuple(part.shape) for name, part in parts.items() if "#" not in name}
    has = known(header.client, header.round) if header.known_mask else {}
    if header.known_mask and mask_digest(has) != header.known_mask:
        names = ("op", "round", "client", "run", "codec")
        raise MaskError({name: getattr(header, name) for name in names})
    values, mask = decode(header.codec, parts, shapes | header.shapes, has)
    return Job(
        method=header.method,
        op=header.op,
        round=header.round,
        client=header.client,
        run=header.run,
        local=header.local,
        codec=header.codec,
        values=values,
        mask=mask,
        keep={name: kept(name, index) for name, index in keep.items()} if header.has_keep else None,
        note=header.note,
        is_mask_known=bool(header.known_mask),
        max_steps=header.max_steps,
    )


def pack_reply(
    reply: Reply, *, known: Mapping[str, Tensor] = _EMPTY, rng: torch.Generator | None = None
) -> bytes:
    """Return the bytes of a reply.

    Args:
        reply: deltas (``train``) travel by the codec; answers, and stats, as they are.
        known: the job's masks, which ``tensors`` keep to where ``reply.mask`` is None.
        rng: what a codec that rounds at random draws from.

    Raises:
        WireError: a field that no server would accept, or a type of tensor that does not travel.
    """
    error = " ".join(reply.error.split())[:MAX_ERROR]
    header = {
        "op": reply.op,
        "round": reply.round,
        "client": reply.client,
        "run": reply.run,
        "codec": reply.codec,
        "has_mask": reply.mask is not None,
        "num_examples": reply.num_examples,
        "num_steps": reply.num_steps,
        "metrics": {name: to_hex(value) for name, value in reply.metrics.items()},
        "real_s": to_hex(reply.real_s),
        "error": "".join(letter for letter in error if letter.isprintable()),
    }
    text = frame.dump_json(header)
    check_reply(frame.checked(REPLY_HEADER, text), bool(reply.tensors or reply.stats))
    parts = dict(reply.tensors)
    if reply.op == TRAIN:
        is_known = reply.mask is None
        parts = encode(reply.codec, parts, known if is_known else reply.mask or {}, is_known, rng)
    return frame.write(_REPLY, text, prefixed("v/", parts) | prefixed("s/", reply.stats))


def unpack_reply(
    data: bytes,
    *,
    shapes: Mapping[str, Shape] | None,
    mask: Mapping[str, Tensor] = _EMPTY,
    limit_bytes: int,
) -> Reply:
    """Return the reply in a message; its tensors have memory of their own.

    Args:
        data: what was received.
        shapes: block shapes of a training job, all of which must come back; None for a probe,
            whose answers may have any names, types and shapes.
        mask: the job's masks.
        limit_bytes: longest message that is accepted.

    Returns:
        The reply, with deltas in the order of ``shapes``. Whether round, client and run are those
        that were asked, and values finite, is left to the caller.

    Raises:
        WireError: anything about the bytes is wrong.
    """
    text, body = frame.read(data, _REPLY, limit_bytes=limit_bytes)
    header = frame.checked(REPLY_HEADER, text)
    parts, stats = sections(body, "v/", "s/")
    metrics, real_s = check_reply(header, bool(parts or stats))
    tensors: Mapping[str, Tensor] = parts
    own: Mapping[str, Tensor] | None = {} if header.has_mask else None
    if (header.op == TRAIN) != (shapes is not None):
        raise WireError(f"a reply answers `{header.op[:30]}` unasked", hint=SAME_VERSION)
    if shapes is not None and not header.error:
        known = {} if header.has_mask else mask
        tensors, found = decode(header.codec, parts, shapes, known)
        own = found if header.has_mask else None
    return Reply(
        op=header.op,
        round=header.round,
        client=header.client,
        run=header.run,
        codec=header.codec,
        tensors=tensors,
        mask=own,
        stats=stats,
        num_examples=header.num_examples,
        num_steps=header.num_steps,
        metrics=metrics,
        real_s=real_s,
        error=header.error,
    )
