"""The JSON headers of messages, with the type and range of every field."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Lt, MaxLen
from pydantic import ConfigDict, Field, TypeAdapter

from fpcli.errors import WireError
from fpcli.wire.frame import SAME_VERSION, STRICT

Json = Any
"""What JSON can hold: None, bool, int, finite float, str, lists and dicts of these."""

TRAIN = "train"
"""The ``op`` of a training job; every other word names a probe."""

MAX_ERROR = 500
"""Letters of the text of an error."""


@dataclass(frozen=True)
class LocalConfig:
    """How a client trains on its own data."""

    epochs: Annotated[int, Ge(1)] = 1
    """Passes over the client's data per round."""

    batch_size: Annotated[int, Ge(1)] = 32
    """Examples per SGD step."""

    lr: Annotated[float, Ge(0)] = 0.1
    """Learning rate of SGD."""

    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Momentum of SGD; it starts at 0 in every round."""

    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Factor of the squared-norm penalty on all parameters."""

    clip_norm: Annotated[float, Ge(0)] = 0.0
    """Largest norm of a step's whole gradient; 0 does not clip."""

    lr_drop_at: tuple[Annotated[int, Ge(1)], ...] = ()
    """Rounds from which on the learning rate is multiplied by `lr_drop`, once for each."""

    lr_drop: Annotated[float, Gt(0)] = 0.1
    """Factor on the learning rate at the rounds of `lr_drop_at`."""


_Count = Annotated[int, Ge(0), Lt(2**53)]
_Word = Annotated[str, Field(pattern=r"^[\w.:-]{1,100}$")]


@dataclass(frozen=True)
class JobHeader:
    """The JSON of a job; ``shapes`` holds those that the tensors on the wire do not show, and
    ``max_steps`` is left out where it is 0."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    method: _Word
    op: _Word
    round: _Count
    client: _Count
    run: _Word
    local: LocalConfig
    codec: _Word
    note: dict[str, Json]
    has_keep: bool
    known_mask: Annotated[str, MaxLen(16)]
    shapes: dict[str, Annotated[tuple[_Count, ...], MaxLen(8)]]
    max_steps: _Count = 0


@dataclass(frozen=True)
class ReplyHeader:
    """The JSON of a reply; its floats are 8 bytes in hexadecimal, hence of fixed length."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    op: _Word
    round: _Count
    client: _Count
    run: _Word
    codec: _Word
    has_mask: bool
    num_examples: _Count
    num_steps: _Count
    metrics: dict[str, Json]
    real_s: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    error: Annotated[str, MaxLen(MAX_ERROR)]


JOB_HEADER = TypeAdapter(JobHeader)
REPLY_HEADER = TypeAdapter(ReplyHeader)


def to_hex(value: float) -> str:
    """Return the 8 bytes of a number in hexadecimal: exact, and of fixed length.

    >>> to_hex(1.0)
    '3ff0000000000000'
    """
    return struct.pack(">d", value).hex()


def _from_hex(text: Json, name: str) -> float:
    try:
        (value,) = struct.unpack(">d", bytes.fromhex(text))
    except (TypeError, ValueError, struct.error) as error:
        raise WireError(f"`{name[:80]!a}` is no number", hint=SAME_VERSION, where=name) from error
    return float(value)


def check_reply(header: ReplyHeader, has_tensors: bool) -> tuple[dict[str, float], float]:
    """Return ``metrics`` and ``real_s``, after the rules that types cannot express.

    Raises:
        WireError: metrics are not numbers, or not finite without an error; an error comes with
            tensors or in several lines; masks come with a probe's answer; ``real_s`` is negative.
    """
    metrics = {}
    for name, text in header.metrics.items():
        metrics[name] = _from_hex(text, name)
        if not (header.error or math.isfinite(metrics[name])):
            raise WireError(
                f"metric {name[:80]!a} of a reply is not a finite number",
                hint="lower local.lr if training diverges",
                where="metrics",
            )
    if not header.error.isprintable() or (header.error and has_tensors):
        raise WireError("a reply with an error has other contents", hint=SAME_VERSION)
    if header.has_mask and header.op != TRAIN:
        raise WireError("only a reply to a training job has masks", hint=SAME_VERSION)
    real_s = _from_hex(header.real_s, "real_s")
    if not 0 <= real_s < math.inf:
        raise WireError("real_s of a reply is no duration", hint=SAME_VERSION, where="real_s")
    return metrics, real_s
