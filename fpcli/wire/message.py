"""What travels between the server and a client: Job and Reply, and both as bytes.

Lengths depend on contents alone, so that traffic is the same in every run of the same recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fpcli.errors import WireError
from fpcli.wire import frame
from fpcli.wire.blocks import (
    add_prefix,
    decode_blocks,
    digest_masks,
    encode_blocks,
    find_masked,
    read_kept,
    split_prefixes,
)
from fpcli.wire.frame import SAME_VERSION
from fpcli.wire.headers import (
    JOB_HEADER,
    MAX_ERROR,
    REPLY_HEADER,
    TRAIN,
    Envelope,
    JobHeader,
    check_reply,
    to_hex,
)
from fpcli.wire.numbers import Shape


class MaskError(WireError):
    """A job that relies on masks which its client does not have.

    Attributes:
        header: of the job, for a reply that says so.
    """

    def __init__(self, header: JobHeader) -> None:
        super().__init__(
            f"client {header.client} has not the masks that a job of round {header.round} "
            "relies on",
            hint="send the masks again",
        )
        self.header = header


_EMPTY: Mapping[str, Any] = MappingProxyType({})
_JOB = b"FPjb"
_REPLY = b"FPrp"
_MASKED = "sparse"
"""How the tensors of an answer travel that has masks: those of a question choose no codec."""


@dataclass(frozen=True)
class Job:
    """What one client is asked to do.

    Attributes:
        header: the task, and which run it belongs to; what says how the tensors below travel is
            filled when the job is packed.
        values: block tensors, float32, in the order in which they travel.
        mask: in block coordinates, for any of ``values``.
        keep: kept channels per group, for methods whose clients store tensors in coordinates of
            the initial model; None where the shapes of ``values`` say enough.
        is_mask_known: the client has the masks already, and only values travel.
    """

    header: JobHeader
    values: Mapping[str, Tensor]
    mask: Mapping[str, Tensor] = field(default_factory=dict)
    keep: Mapping[str, Tensor] | None = None
    is_mask_known: bool = False


@dataclass(frozen=True)
class Work:
    """What a client has done: its half of a reply, made by a method's hooks.

    Attributes:
        values: after training, trained minus received tensors in block coordinates; of an answer
            to a question, any tensors.
        mask: the client's own masks in block coordinates, of any tensors; those that it received
            hold for the others. With
            an answer's masks, its ``values`` are tensors of the model, and travel without what is
            masked.
        stay: group -> bool, one entry per channel received: those that the client goes on with,
            after training; a group that is absent loses none.
        stats: further tensors for the server's half of the method.
        metrics: finite numbers; after training ``loss`` is among them, and an answer may say here
            what it took: ``compute_s``, ``down_s``, ``up_s``, simulated seconds.
        num_steps: training steps.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Mapping[str, Tensor] | None = None
    stay: Mapping[str, Tensor] = field(default_factory=dict)
    stats: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    num_steps: int = 0


@dataclass(frozen=True)
class Reply:
    """What a client returns.

    Attributes:
        envelope: of the job.
        codec: how the values of a training job travel.
        num_examples: samples of the client.
        real_s: measured seconds.
        error: empty, or ``diverged: ...`` or ``failed: ...``; then no tensors travel.
    """

    envelope: Envelope
    codec: str
    work: Work = field(default_factory=Work)
    num_examples: int = 0
    real_s: float = 0.0
    error: str = ""


def pack_job(job: Job, rng: torch.Generator | None = None) -> bytes:
    """Return the bytes of a job.

    Args:
        rng: what a codec that rounds at random draws from.

    Raises:
        WireError: a field that no client would accept, or tensors that the codec cannot write.
    """
    parts = encode_blocks(
        job.header.codec, job.values, job.mask, job.mask if job.is_mask_known else (), rng
    )
    shapes = {name: tuple(x.shape) for name, x in job.values.items()}
    header = replace(
        job.header,
        has_keep=job.keep is not None,
        known_mask=digest_masks(job.mask) if job.is_mask_known else "",
        shapes={name: shape for name, shape in shapes.items() if parts[name].shape != shape},
    )
    content = header.to_json()
    text = frame.dump_json(content)
    frame.check_header(JOB_HEADER, text)
    if json.loads(text)["note"] != content["note"]:
        raise WireError(
            f"the note to client {header.client} would arrive changed",
            hint="use text as keys and lists instead of tuples",
        )
    keep = {name: index.to(torch.int32) for name, index in (job.keep or {}).items()}
    return frame.write_frame(_JOB, text, add_prefix("v/", parts) | add_prefix("k/", keep))


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
    text, body = frame.read_frame(data, _JOB, limit_bytes=limit_bytes)
    header = frame.check_header(JOB_HEADER, text)
    parts, keep = split_prefixes(body, "v/", "k/")
    if 5 * sum(math.prod(shape) for shape in header.shapes.values()) > limit_bytes:
        raise WireError(
            f"the tensors of a job need more than {limit_bytes} bytes",
            hint="raise the limit if this size is expected",
        )
    if (keep and not header.has_keep) or not header.shapes.keys() <= parts.keys():
        raise WireError("a job has tensors or shapes that do not belong", hint=SAME_VERSION)
    shapes = {name: tuple(part.shape) for name, part in parts.items() if "#" not in name}
    has = known(header.client, header.round) if header.known_mask else {}
    if header.known_mask and digest_masks(has) != header.known_mask:
        raise MaskError(header)
    values, mask = decode_blocks(header.codec, parts, {**shapes, **header.shapes}, has)
    channels = {name: read_kept(name, index) for name, index in keep.items()}
    return Job(header, values, mask, channels if header.has_keep else None, bool(header.known_mask))


def pack_reply(
    reply: Reply, *, known: Mapping[str, Tensor] = _EMPTY, rng: torch.Generator | None = None
) -> bytes:
    """Return the bytes of a reply.

    Args:
        reply: deltas (``train``) travel by the codec; answers, and stats, as they are.
        known: the job's masks, which a delta keeps to where the work has none of its own.
        rng: what a codec that rounds at random draws from.

    Raises:
        WireError: a field that no server would accept, or a type of tensor that does not travel.
    """
    work, error = reply.work, " ".join(reply.error.split())[:MAX_ERROR]
    text = frame.dump_json(
        asdict(reply.envelope)
        | {
            "codec": reply.codec,
            "has_mask": work.mask is not None,
            "num_examples": reply.num_examples,
            "num_steps": work.num_steps,
            "metrics": {name: to_hex(value) for name, value in work.metrics.items()},
            "real_s": to_hex(reply.real_s),
            "error": "".join(letter for letter in error if letter.isprintable()),
        }
    )
    has_tensors = bool(work.values or work.stats or work.stay)
    check_reply(frame.check_header(REPLY_HEADER, text), has_tensors, bool(work.stay))
    parts = dict(work.values)
    if reply.envelope.op == TRAIN:
        own_masks = work.mask or {}
        sent_masks = {**known, **own_masks}
        parts = encode_blocks(reply.codec, parts, sent_masks, sent_masks.keys() - own_masks, rng)
    elif work.mask is not None:
        parts = encode_blocks(_MASKED, parts, work.mask)
    return frame.write_frame(
        _REPLY,
        text,
        add_prefix("v/", parts) | add_prefix("s/", work.stats) | add_prefix("k/", work.stay),
    )


def unpack_reply(
    data: bytes,
    *,
    op: str,
    shapes: Mapping[str, Shape],
    mask: Mapping[str, Tensor] = _EMPTY,
    limit_bytes: int,
) -> Reply:
    """Return the reply in a message; its tensors have memory of their own.

    Args:
        data: what was received.
        op: of the job.
        shapes: block shapes of the job. All of them must come back from training, or with masks; an
            answer without masks may have any names, types and shapes.
        mask: the job's masks.
        limit_bytes: longest message that is accepted.

    Returns:
        The reply, with deltas in the order of ``shapes``. Whether round, client and run are those
        that were asked, and values finite, is left to the caller.

    Raises:
        WireError: anything about the bytes is wrong.
    """
    text, body = frame.read_frame(data, _REPLY, limit_bytes=limit_bytes)
    header = frame.check_header(REPLY_HEADER, text)
    values, stats, stay = split_prefixes(body, "v/", "s/", "k/")
    metrics, real_s = check_reply(header, bool(body), bool(stay))
    if header.op != op:
        raise WireError(f"a reply answers `{header.op[:30]}` unasked", hint=SAME_VERSION)
    received: Mapping[str, Tensor] | None = {} if header.has_mask else None
    if not header.error and (op == TRAIN or header.has_mask):
        own_names = find_masked(values) if header.has_mask else set()
        known = {name: bits for name, bits in mask.items() if name not in own_names}
        codec = header.codec if op == TRAIN else _MASKED
        values, masks = decode_blocks(codec, values, shapes, known if op == TRAIN else {})
        if header.has_mask:
            received = {name: masks[name] for name in shapes if name in own_names}
    return Reply(
        envelope=Envelope(header.op, header.round, header.client, header.run),
        codec=header.codec,
        work=Work(values, received, stay, stats, metrics, header.num_steps),
        num_examples=header.num_examples,
        real_s=real_s,
        error=header.error,
    )
