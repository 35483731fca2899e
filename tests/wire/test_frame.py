"""Messages that somebody forged: the checksum is right, the contents are not."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

import pytest
import torch
from torch import Tensor

from fpcli.errors import WireError
from fpcli.settings.learning import LocalConfig
from fpcli.wire import frame
from fpcli.wire.headers import Envelope, JobHeader
from fpcli.wire.message import (
    Job,
    Reply,
    Work,
    pack_job,
    pack_reply,
    unpack_job,
    unpack_reply,
)

LIMIT = 2**20
MASK = {"w": torch.tensor([[True, False], [False, True], [True, True]])}
VALUES = {"w": torch.tensor([[1.0, 0.0], [0.0, -2.5], [0.0, 3.0]]), "b": torch.tensor([0.25])}
HEADER = JobHeader(
    5,
    "train",
    local=LocalConfig(),
    note={"ratio": 0.3},
    method="fedmp",
    round=3,
    run="ab12",
    codec="sparse",
)
OPS = {"reply": "train", "probe": "count", "pruned": "prune"}
"""Kind of a message -> the question that it answers."""


def answer(kind: str, work: Work, num_examples: int = 0) -> bytes:
    envelope = Envelope(OPS[kind], 3, 5, "ab12")
    return pack_reply(Reply(envelope, "sparse", work, num_examples), known=MASK)


JOB = pack_job(Job(HEADER, VALUES, MASK))
STAY = {"conv1": torch.tensor([True, False])}
REPLY = answer("reply", Work(VALUES, stay=STAY, metrics={"loss": 0.1}), num_examples=9)
PROBE = answer("probe", Work({"counts": torch.tensor([3, 4])}))
MESSAGES = {
    "job": JOB,
    "reply": REPLY,
    "probe": PROBE,
    "pruned": answer("pruned", Work(VALUES, MASK)),
}


def seal(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return magic and format, JSON header, body."""
    length = struct.unpack_from("<I", data, 8)[0]
    return data[:8], data[12 : 12 + length], data[12 + length : -32]


def join(prefix: bytes, header: bytes, body: bytes) -> bytes:
    return seal(prefix + struct.pack("<I", len(header)) + header + body)


def open_any(kind: str, data: bytes) -> object:
    if kind == "job":
        return unpack_job(data, limit_bytes=LIMIT)
    shapes = {name: tuple(values.shape) for name, values in VALUES.items()}
    return unpack_reply(data, op=OPS[kind], shapes=shapes, mask=MASK, limit_bytes=LIMIT)


def is_accepted(kind: str, data: bytes) -> bool:
    try:
        open_any(kind, data)
    except WireError as error:
        assert str(error).isprintable()
        return False
    return True


def test_limits() -> None:
    with pytest.raises(WireError, match="limit"):
        unpack_job(JOB, limit_bytes=len(JOB) - 1)
    prefix, header, body = split(JOB)
    fields = json.loads(header)
    fields["shapes"]["w"] = [2**20, 2**20]
    with pytest.raises(WireError, match="need more than"):
        unpack_job(join(prefix, json.dumps(fields).encode(), body), limit_bytes=LIMIT)


def test_other_format_number() -> None:
    prefix, header, body = split(JOB)
    with pytest.raises(WireError, match="format 2, this version reads 1"):
        unpack_job(join(prefix[:4] + struct.pack("<I", 2), header, body), limit_bytes=LIMIT)


HOSTILE: list[Any] = [
    None, True, -1, 1.5, 2**70, 10**400, "x", "", [], [[]], {}, {"x": {}}, math.nan, math.inf,
    "\ud800", "nan", [1, 2], ["a"], "zip", "x" * 400, "\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_header_field_is_checked(kind: str) -> None:
    data = MESSAGES[kind]
    prefix, header, body = split(data)
    fields = json.loads(header)
    refused, optional = 0, set()
    for key in fields:
        without = json.dumps({name: fields[name] for name in fields if name != key}).encode()
        optional |= {key} if is_accepted(kind, join(prefix, without, body)) else set()
        for value in HOSTILE:
            changed = json.dumps(fields | {key: value}).encode()
            refused += not is_accepted(kind, join(prefix, changed, body))
    assert optional == ({"has_keep", "known_mask", "note"} if kind == "job" else set())
    assert refused > 0.8 * len(fields) * len(HOSTILE)
    with pytest.raises(WireError):
        open_any(kind, join(prefix, json.dumps(fields | {"more": 1}).encode(), body))


INDEXES: list[bytes] = [
    b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"x":' * 100_000, b"\xff\xff", b'{"v/w":1}',
    b"9" * 5000,
    b'{"v/w":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
    b'{"v/w":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}',
    b'{"v/w":{"dtype":"F32","shape":[0,4294967296,4294967296,4294967296],"data_offsets":[0,0]}}',
    b'{"v/w":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}}',
    b'{"v/w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    b'{"v/w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"v/u":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    b'{"v/w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"v/w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    b'{"__metadata__":{"a":"b"},"v/w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    b'{"x/w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    b'{"v/":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    b'{"v/\\u001b[31m":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    b'{"v/\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
]  # fmt: skip


@pytest.mark.parametrize("index", INDEXES, ids=range(len(INDEXES)))
def test_hostile_tensor_indexes(index: bytes) -> None:
    prefix, header, _ = split(PROBE)
    eight = struct.pack("<Q", 0x0000803F0203FFFF)
    data = join(prefix, header, struct.pack("<Q", len(index)) + index + eight)
    with pytest.raises(WireError):
        open_any("probe", data)


@pytest.mark.parametrize("length", [2**32 - 1, 2**20 + 1, 10**6, 0])
def test_forged_length_of_the_header(length: int) -> None:
    with pytest.raises(WireError):
        open_any("job", seal(JOB[:8] + struct.pack("<I", length) + JOB[12:-32]))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**20 + 1, 10**6, 0])
def test_forged_length_of_the_tensor_index(length: int) -> None:
    prefix, header, body = split(JOB)
    with pytest.raises(WireError):
        open_any("job", join(prefix, header, struct.pack("<Q", length) + body[8:]))


def test_pickle_as_body() -> None:
    prefix, header, _ = split(JOB)
    with pytest.raises(WireError):
        open_any("job", join(prefix, header, b"\x80\x05\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\n."))


@pytest.mark.parametrize(
    "keep",
    [[0.0, 1.0], [[0, 1]], [1, 1], [2, 1], [-1, 0]],
    ids=["float", "2-d", "twice", "down", "<0"],
)
def test_keep_is_checked(keep: list[Any]) -> None:
    with pytest.raises(WireError, match=r"`conv1`|type"):
        open_any("job", forged_keep(torch.tensor(keep)))


def forged_keep(keep: Tensor) -> bytes:
    _, header, _ = split(pack_job(Job(HEADER, {}, keep={})))
    return frame.write_frame(
        b"FPjb", header, {"k/conv1": keep.float() if keep.is_floating_point() else keep.int()}
    )
