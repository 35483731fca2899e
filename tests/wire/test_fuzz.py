"""Damaged messages: the seed is fixed here and printed when something is found."""

from __future__ import annotations

import hashlib
import random
import time
import tracemalloc
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.errors import WireError
from fpcli.settings.learning import LocalConfig
from fpcli.wire import CODECS
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
RNG = torch.Generator().manual_seed(0)
VALUES = {"w": torch.randn(8, 12, generator=RNG), "b": torch.randn(8, generator=RNG)}
MASK = {"w": torch.rand(8, 12, generator=RNG) < 0.3}
THIN = {"w": torch.arange(96).reshape(8, 12) == 17}
SHAPES = {"w": (8, 12), "b": (8,)}


OPS = {"reply": "train", "probe": "count", "pruned": "prune"}
"""Kind of a message -> the question that it answers."""


def messages() -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    plain = JobHeader(
        2, "train", local=LocalConfig(), note={"r": 0.5}, method="m", round=1, run="ab", codec="x"
    )
    trained = Work(VALUES, stay={"g": torch.tensor([True, False])}, metrics={"loss": 0.5})
    for codec in CODECS:
        for mask in ({}, MASK, THIN):
            job = Job(replace(plain, codec=codec), VALUES, mask)
            reply = Reply(plain.envelope, codec, replace(trained, mask=mask))
            found += [("job", pack_job(job, RNG)), ("reply", pack_reply(reply, rng=RNG))]
    answers = {
        "probe": Work({"counts": torch.tensor([1, 2]), "hit": torch.tensor([True, False])}),
        "pruned": Work(VALUES, MASK, stats={"taken": torch.tensor([1.5])}),
        "reply": Work(metrics={"loss": float("nan")}),
    }
    for kind, work in answers.items():
        error = "failed: x" if kind == "reply" else ""
        envelope = Envelope(OPS[kind], 1, 2, "ab")
        found.append((kind, pack_reply(Reply(envelope, "dense", work, 3, error=error))))
    return found


MESSAGES = messages()


def unpack(kind: str, data: bytes) -> object:
    if kind == "job":
        return unpack_job(data, limit_bytes=LIMIT)
    return unpack_reply(data, op=OPS[kind], shapes=SHAPES, limit_bytes=LIMIT)


@pytest.mark.parametrize("kind", ["job", *OPS])
def test_every_byte_counts(kind: str) -> None:
    """Damaged as it is; and under a checksum that is made anew, nothing but `WireError` comes."""
    data = next(found for what, found in MESSAGES if what == kind)
    assert outcome(kind, data) == "accepted"
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        assert outcome(kind, bytes(bad)) == "refused", place
        outcome(kind, bytes(bad[:-32]) + hashlib.sha256(bad[:-32]).digest())


def damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return other bytes: flipped, cut, extended, spliced, with a forged length, or random."""
    place, end = sorted(rng.sample(range(len(data)), 2))
    changed = bytearray(data)
    match rng.randrange(7):
        case 0:
            changed[place] ^= 1 << rng.randrange(8)
        case 1:
            changed[place:end] = rng.randbytes(end - place)
        case 2:
            del changed[place:]
        case 3:
            del changed[place:end]
        case 4:
            changed += rng.randbytes(rng.randrange(1, 50))
        case 5:
            changed[place:] = other[rng.randrange(len(other)) :]
        case _:
            where = 8 if rng.random() < 0.5 else 12 + int.from_bytes(data[8:12], "little")
            changed[where : where + 4] = rng.choice([0, 1, 2**31, 2**32 - 1]).to_bytes(4, "little")
    return bytes(changed)


def outcome(kind: str, data: bytes) -> str:
    try:
        unpack(kind, data)
    except WireError as error:
        # Names come from the sender and must not be able to steer a terminal.
        assert str(error).isprintable()
        return "refused"
    return "accepted"


def cpu_seconds(kind: str, data: bytes) -> float:
    """Return the best of three."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        outcome(kind, data)
        seconds.append(time.process_time() - start)
    return min(seconds)


@pytest.mark.parametrize("seed", [20260101])
def test_damage_is_always_noticed(seed: int) -> None:
    rng = random.Random(seed)
    seconds: list[float] = []
    for step in range(4000):
        kind, data = rng.choice(MESSAGES)
        bad = damage(data, rng.choice(MESSAGES)[1], rng)
        start = time.process_time()
        assert bad == data or outcome(kind, bad) == "refused", (seed, step)
        seconds.append(time.process_time() - start)
    # All but a few, which pay for a collection of garbage.
    assert sorted(seconds)[-5] < 0.05


@pytest.mark.parametrize("seed", [20260102])
def test_damage_under_a_valid_checksum_raises_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    counts = {"refused": 0, "accepted": 0}
    seconds: list[float] = []
    for step in range(4000):
        kind, data = rng.choice(MESSAGES)
        content = damage(data[:-32], rng.choice(MESSAGES)[1][:-32], rng)
        bad = content + hashlib.sha256(content).digest()
        start = time.process_time()
        try:
            counts[outcome(kind, bad)] += 1
        except Exception as error:
            raise AssertionError((seed, step)) from error
        seconds.append(time.process_time() - start)
    # What is accepted has other numbers in places where any number is valid.
    assert counts["refused"] > 2000
    # All but a few, which pay for a collection of garbage.
    assert sorted(seconds)[-5] < 0.05


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MESSAGES), st.binary(max_size=300), st.integers(0, 2000), st.booleans())
def test_random_bytes(
    message: tuple[str, bytes], noise: bytes, place: int, is_sealed: bool
) -> None:
    kind, data = message
    content = data[:-32][:place] + noise
    if is_sealed:
        outcome(kind, content + hashlib.sha256(content).digest())
    else:
        assert outcome(kind, content) == "refused"


@pytest.mark.parametrize(
    "index",
    [
        b'{"v/w":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}',
        b"[" * 2**19,
        b"{" + b",".join(b'"a%d":1' % number for number in range(40_000)) + b"}",
    ],
    ids=["huge", "deep", "many"],
)
def test_forged_sizes_take_little_time_and_memory(index: bytes) -> None:
    data = dict(reversed(MESSAGES))["probe"]
    header_end = 12 + int.from_bytes(data[8:12], "little")
    content = data[:header_end] + len(index).to_bytes(8, "little") + index
    bad = content + hashlib.sha256(content).digest()
    assert outcome("probe", bad) == "refused"
    assert cpu_seconds("probe", bad) < 0.05
    tracemalloc.start()
    outcome("probe", bad)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


@pytest.mark.parametrize("entry", [b'"%d":null', b'"%d":1.5', b'"%d":[[]]', b'"%d":[-1]'])
@pytest.mark.parametrize("kind", ["probe", "job"])
def test_long_forged_headers_take_little_time(kind: str, entry: bytes) -> None:
    data = dict(reversed(MESSAGES))[kind]
    header_end = 12 + int.from_bytes(data[8:12], "little")
    field = b'"metrics":{' if kind == "probe" else b'"shapes":{'
    table = field + b",".join(entry % number for number in range(7_000))
    header = data[12:header_end].replace(field + b"}", table + b"}")
    assert len(header) > 50_000
    content = data[:8] + len(header).to_bytes(4, "little") + header + data[header_end:-32]
    bad = content + hashlib.sha256(content).digest()
    assert cpu_seconds(kind, bad) < 0.05
