"""Rounds with replies that were taken apart and changed, as no honest client sends them."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from conftest import toy_recipe
from faults import Tampering
from torch import Tensor

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline, Outcome
from fpcli.engine.federation import RoundRecord, Totals
from fpcli.engine.planning import foresee
from fpcli.engine.types import Ask, ServerState
from fpcli.store.checkpoint import dump_state
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire import frame

_MEMORIES = tempfile.TemporaryDirectory(prefix="fp-replies-")
METHODS = {"dense": "fedavg", "structured": "fedmp", "masked": "toys:Masked"}
VICTIM = 1
CONV = "v/stem.weight"
BIAS = "v/stem.bias"


@functools.cache
def setup_of(name: str) -> Setup:
    """Build the toy task of a method, named with its codec unless that is `dense`."""
    method, _, codec = name.partition(" ")
    recipe = toy_recipe(method, eval_every=100, round_retries=1, wire__codec=codec or "dense")
    return prepare_run(recipe, Path(_MEMORIES.name, name))


@functools.cache
def honest(name: str) -> tuple[ServerState, tuple[bytes, ...]]:
    """Return the state before round 1 and the replies of all clients to it."""
    setup = setup_of(name)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    replies: list[bytes] = []

    def note(run: int, job: int, reply: bytes) -> bytes:
        replies.append(reply)
        return reply

    next(server.play(setup.fed, state, Tampering(setup.site, note), totals))
    assert len(replies) == 4
    return state, tuple(replies)


class Canned:
    """An executor that knows its outcomes; jobs are only counted."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self._outcomes = list(outcomes)
        self.num_jobs = 0

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        self.num_jobs += len(list(jobs))
        yield from self._outcomes

    def close(self) -> None:
        """Nothing to do."""


def outcomes_with(name: str, reply: bytes | None) -> list[Outcome]:
    """Return what arrives when the victim's reply is another one."""
    _, replies = honest(name)
    return [
        Outcome(job, reply if job == VICTIM else data, "lost") for job, data in enumerate(replies)
    ]


def play(name: str, outcomes: list[Outcome]) -> tuple[ServerState, RoundRecord]:
    state, _ = honest(name)
    return next(server.play(setup_of(name).fed, state, Canned(outcomes), Totals()))


def plain(value: Any) -> Any:
    """Return something that compares by value and bits: JSON, and bytes of tensors."""
    data, tensors = dump_state(value)
    return data, {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}


@functools.cache
def without_victim(name: str) -> tuple[Any, Any]:
    state, record = play(name, outcomes_with(name, None))
    assert [r.code for r in record.refusals] == ["F410"]
    return plain(state), record.clients


_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Message(NamedTuple):
    """An honest reply taken apart, which a test may change; ``parts`` have their wire names."""

    header: dict[str, Any]
    parts: dict[str, Tensor]


def take_apart(data: bytes) -> Message:
    text, body = frame.read_frame(data, b"FPrp", limit_bytes=1 << 24)
    return Message(json.loads(text), dict(body))


def put_together(message: Message) -> bytes:
    """Write a frame without any of the checks that an honest sender makes."""
    entries: dict[str, Any] = {}
    blob = b""
    for name, tensor in message.parts.items():
        data = tensor.contiguous().numpy().tobytes()
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(blob), len(blob) + len(data)],
        }
        blob += data
    index = json.dumps(entries).encode()
    index += b" " * (-len(index) % 8)
    text = json.dumps(message.header).encode()
    head = struct.pack("<4sII", b"FPrp", frame.FRAME_FORMAT, len(text)) + text
    data = head + struct.pack("<Q", len(index)) + index + blob
    return data + hashlib.sha256(data).digest()


def flipped(data: bytes, at: float) -> bytes:
    position = int(at * len(data))
    return data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]


def assert_refused(name: str, code: str, reply: bytes) -> None:
    """Play a round with one bad reply: refused by name, and otherwise as if it were missing."""
    state, record = play(name, outcomes_with(name, reply))
    assert [(r.client, r.code) for r in record.refusals] == [(VICTIM, code)]
    assert record.refusals[0].reason.strip()
    assert "\n" not in record.refusals[0].reason
    assert not record.refusals[0].is_dropped
    assert (plain(state), record.clients) == without_victim(name)
    assert all(bool(torch.isfinite(value).all()) for value in state.values.values())


Change = Callable[[Message], None]


def header(**fields: Any) -> Change:
    return lambda message: message.header.update(fields)


def part(change: Callable[[Tensor], Tensor], name: str = CONV) -> Change:
    def apply(message: Message) -> None:
        message.parts[name] = change(message.parts[name])

    return apply


def filled(value: float, index: Any = (0, 0, 0, 0)) -> Callable[[Tensor], Tensor]:
    def apply(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return apply


def extra(name: str, like: str = CONV) -> Change:
    return lambda message: message.parts.update({name: message.parts[like].clone()})


def missing(message: Message) -> None:
    for name in [n for n in message.parts if n.partition("#")[0] == CONV]:
        del message.parts[name]


def renamed(message: Message) -> None:
    bitmap = message.parts.pop(f"{CONV}#bitmap", None)
    message.parts["v/steam.weight"] = message.parts.pop(CONV)
    if bitmap is not None:
        message.parts["v/steam.weight#bitmap"] = bitmap


def stat(value: float) -> Change:
    return lambda message: message.parts.update({"s/scores": torch.tensor([1.0, value])})


def failing(message: Message) -> None:
    message.parts.clear()
    message.header.update(error="failed: no memory", has_mask=False)


def ask_of(name: str) -> Ask:
    """Return what the victim was to do in the first round."""
    return foresee(setup_of(name).fed, honest(name)[0], 1)[VICTIM]


def rounds(
    setup: Setup, executor: Inline | None = None
) -> Iterator[tuple[ServerState, RoundRecord]]:
    """Play all rounds of a task."""
    executor = executor or Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    yield from server.play(setup.fed, state, executor, totals)
