"""The JSON headers of messages, with the type and range of every field."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Lt, MaxLen
from pydantic import ConfigDict, Field, TypeAdapter

from fpcli.errors import WireError
from fpcli.settings.learning import LocalConfig
from fpcli.wire.frame import SAME_VERSION, STRICT

Json = Any
"""What JSON can hold: None, bool, int, finite float, str, lists and dicts of these."""

TRAIN = "train"
"""The ``op`` of a training job; every other word names a question."""

MAX_ERROR = 500
"""Letters of the text of an error."""


_Count = Annotated[int, Ge(0), Lt(2**53)]
_Word = Annotated[str, Field(pattern=r"^[\w.:-]{1,100}$")]


@dataclass(frozen=True)
class Task:
    """What one client is told to do, as far as it travels: all of it, in the header of a job.

    A field that is added here with a default reaches the client as ``cx.task``; it costs bytes only
    where it has another value.

    Attributes:
        client: its id.
        op: ``train``, or the name of a question.
        local: how it trains.
        note: what the method tells the client beside the tensors.
        max_steps: training steps after which it stops, even within an epoch; 0 does all epochs.
    """

    client: _Count
    op: _Word
    local: LocalConfig | None = None
    note: Mapping[str, Json] = field(default_factory=dict)
    max_steps: _Count = 0


@dataclass(frozen=True)
class Envelope:
    """Which job of which run a message belongs to."""

    op: _Word
    round: _Count
    client: _Count
    run: _Word


@dataclass(frozen=True, kw_only=True)
class JobHeader(Task):
    """The JSON of a job.

    Attributes:
        method: registered name.
        run: hex digest of recipe and layout; a reply must bring the same.
        codec: registered name.
        local: is always there.
        has_keep: whether kept channels travel.
        known_mask: digest of the masks that do not travel since the client has them, or nothing.
        shapes: of those tensors whose parts on the wire do not show them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    method: _Word
    round: _Count
    run: _Word
    codec: _Word
    local: LocalConfig = field()  # else the default of a task's would be inherited
    has_keep: bool = False
    known_mask: Annotated[str, MaxLen(16)] = ""
    shapes: Mapping[str, Annotated[tuple[_Count, ...], MaxLen(8)]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the JSON, without those fields of a task that have their plain default."""
        fields_ = {item.name: getattr(self, item.name) for item in fields(self)}
        usual = [item.name for item in fields(Task) if fields_[item.name] == item.default]
        fields_ |= {"note": dict(self.note), "local": asdict(self.local)}
        return {name: value for name, value in fields_.items() if name not in usual}

    @property
    def envelope(self) -> Envelope:
        """Where a reply must say that it belongs."""
        return Envelope(self.op, self.round, self.client, self.run)


@dataclass(frozen=True, kw_only=True)
class ReplyHeader(Envelope):
    """The JSON of a reply; its floats are 8 bytes in hexadecimal, hence of fixed length."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
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


def check_reply(
    header: ReplyHeader, has_tensors: bool, has_stay: bool
) -> tuple[dict[str, float], float]:
    """Return ``metrics`` and ``real_s``, after the rules that types cannot express.

    Raises:
        WireError: metrics are not numbers, or not finite without an error; an error comes with
            tensors or in several lines; an answer to a question says which channels stay;
            ``real_s`` is negative.
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
    if has_stay and header.op != TRAIN:
        raise WireError(
            f"a reply to `{header.op}` says which channels stay, as after training",
            hint=SAME_VERSION,
        )
    real_s = _from_hex(header.real_s, "real_s")
    if not 0 <= real_s < math.inf:
        raise WireError("real_s of a reply is no duration", hint=SAME_VERSION, where="real_s")
    return metrics, real_s
