from __future__ import annotations

import functools
import math
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from replies import (
    BIAS,
    METHODS,
    VICTIM,
    Change,
    ask_of,
    assert_refused,
    extra,
    filled,
    flipped,
    header,
    honest,
    missing,
    outcomes_with,
    part,
    plain,
    play,
    put_together,
    renamed,
    setup_of,
    stat,
    take_apart,
    without_victim,
)
from torch import Tensor

from fpcli.engine.receive import Rejected, check_trained
from fpcli.engine.types import Ask
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.support import Support
from fpcli.wire.headers import Envelope, to_hex
from fpcli.wire.message import Reply, Work, unpack_reply

# Where a reply brings its own mask, most values of stem.weight are dead, so that a change of one
# value may be refused for that instead; the change then goes to a tensor without a mask.

CHANGES: dict[str, tuple[str, Change]] = {
    "NaN": ("F402", part(filled(math.nan, 0), BIAS)),
    "+Inf": ("F402", part(filled(math.inf, 0), BIAS)),
    "-Inf": ("F402", part(filled(-math.inf, 0), BIAS)),
    "NaN in a buffer": ("F402", part(filled(math.nan, 0), "v/norm.running_var")),
    "NaN in the statistics": ("F402", stat(math.nan)),
    "Inf in the statistics": ("F402", stat(math.inf)),
    "shape ()": ("F401", part(lambda x: x.flatten()[0])),
    "shape (1,)": ("F401", part(lambda x: x.flatten()[:1])),
    "shape (1,) for a vector": ("F401", part(lambda x: x[:1], "v/hidden.bias")),
    "transposed": ("F401", part(lambda x: x.transpose(0, 1))),
    "one channel more": ("F401", part(lambda x: torch.cat([x, x[:1]]))),
    "one channel less": ("F401", part(lambda x: x[1:])),
    "empty": ("F401", part(lambda x: x[:0])),
    "flattened": ("F401", part(lambda x: x.flatten())),
    "extra tensor": ("F401", extra("v/more")),
    "extra section": ("F401", extra("w/more")),
    "missing tensor": ("F401", missing),
    "renamed tensor": ("F401", renamed),
    "no tensors": ("F401", lambda message: message.parts.clear()),
    "float64": ("F401", part(lambda x: x.double())),
    "float16": ("F401", part(lambda x: x.half())),
    "int64": ("F401", part(lambda x: x.long())),
    "int32": ("F401", part(lambda x: x.int())),
    "bool": ("F401", part(lambda x: x.bool())),
    "complex64": ("F401", part(lambda x: x.to(torch.complex64))),
    "no samples": ("F406", header(num_examples=0)),
    "negative samples": ("F401", header(num_examples=-1)),
    "one sample too many": ("F406", header(num_examples=123)),
    "very many samples": ("F401", header(num_examples=10**30)),
    "text as samples": ("F401", header(num_examples="457")),
    "fraction as samples": ("F401", header(num_examples=1.5)),
    "NaN as samples": ("F401", header(num_examples=math.nan)),
    "bool as samples": ("F401", header(num_examples=True)),
    "negative steps": ("F401", header(num_steps=-1)),
    "very many steps": ("F401", header(num_steps=2**60)),
    "no loss": ("F406", header(metrics={})),
    "other loss": ("F406", header(metrics={"accuracy": to_hex(0.5)})),
    "NaN loss": ("F401", header(metrics={"loss": to_hex(math.nan)})),
    "infinite loss": ("F401", header(metrics={"loss": to_hex(math.inf)})),
    "loss that overflows in a sum": ("F406", header(metrics={"loss": to_hex(1e308)})),
    "text as loss": ("F401", header(metrics={"loss": "a lot"})),
    "number as loss": ("F401", header(metrics={"loss": 0.1})),
    "short loss": ("F401", header(metrics={"loss": "00"})),
    "negative seconds": ("F401", header(real_s=to_hex(-1.0))),
    "endless seconds": ("F401", header(real_s=to_hex(math.inf))),
    "other round": ("F401", header(round=2)),
    "other client": ("F401", header(client=2)),
    "unknown client": ("F401", header(client=99)),
    "other run": ("F401", header(run="0" * 64)),
    "other operation": ("F401", header(op="evaluate")),
    "unknown codec": ("F401", header(codec="zip")),
    "code as codec": ("F401", header(codec="os:getcwd")),
    "unknown field": ("F401", header(weight=1e12)),
    "says it diverged": ("F401", header(error="diverged: in spite of tensors")),
}  # fmt: skip


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


Bytes = Callable[[bytes, str, Path], bytes]
ENVELOPES: dict[str, Bytes] = {
    "nothing": lambda data, name, path: b"",
    "garbage": lambda data, name, path: os.urandom(len(data)),
    "text": lambda data, name, path: b'{"op": "train"}',
    "pickle": lambda data, name, path: pickle.dumps(Canary(path)),
    "pickle behind our magic": lambda data, name, path: data[:12] + pickle.dumps(Canary(path)),
    "too long": lambda data, name, path: data + bytes(setup_of(name).site.limit_bytes),
    "cut": lambda data, name, path: data[:-1],
    "one byte more": lambda data, name, path: data + b"\0",
    "flipped in the prefix": lambda data, name, path: flipped(data, 0.0),
    "flipped in the header": lambda data, name, path: flipped(data, 0.02),
    "flipped in the values": lambda data, name, path: flipped(data, 0.7),
    "flipped in the digest": lambda data, name, path: flipped(data, 1 - 1 / len(data)),
    "another client's reply": lambda data, name, path: honest(name)[1][2],
}


@pytest.mark.parametrize("kind", METHODS)
def test_the_forger_writes_what_an_honest_client_writes(kind: str) -> None:
    _, replies = honest(METHODS[kind])
    for reply in replies:
        again = put_together(take_apart(reply))
        assert dict(take_apart(again).header) == take_apart(reply).header
        state, record = play(METHODS[kind], outcomes_with(METHODS[kind], replies[VICTIM]))
        assert record.refusals == ()
    remade, record = play(
        METHODS[kind], outcomes_with(METHODS[kind], put_together(take_apart(replies[VICTIM])))
    )
    assert record.refusals == ()
    assert plain(remade.values) == plain(state.values)
    assert plain(state.values) != without_victim(METHODS[kind])[0]


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("case", CHANGES)
def test_a_wrong_reply_counts_as_none(case: str, kind: str) -> None:
    code, change = CHANGES[case]
    message = take_apart(honest(METHODS[kind])[1][VICTIM])
    before = put_together(message)
    change(message)
    reply = put_together(message)
    assert reply != before, "the case changes nothing"
    assert_refused(METHODS[kind], code, reply)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("case", ENVELOPES)
def test_bytes_that_are_no_reply_count_as_none(case: str, kind: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    reply = ENVELOPES[case](honest(METHODS[kind])[1][VICTIM], METHODS[kind], canary)
    assert_refused(METHODS[kind], "F401", reply)
    assert not canary.exists()


DIRECT: dict[str, tuple[str, dict[str, Any]]] = {
    "float64": ("F405", {"stem.weight": torch.zeros(8, 1, 3, 3, dtype=torch.float64)}),
    "transposed": ("F403", {"stem.weight": torch.zeros(1, 8, 3, 3)}),
    "broadcasting": ("F403", {"stem.bias": torch.zeros(1)}),
    "extra": ("F404", {"more": torch.zeros(1)}),
}


@pytest.mark.parametrize("case", DIRECT)
def test_what_the_wire_refuses_already_is_refused_again(case: str) -> None:
    setup, ask = setup_of("fedavg"), ask_of("fedavg")
    code, tensors = DIRECT[case]
    shapes = ask.support.block_shapes(setup.fed.layout)
    data = honest("fedavg")[1][VICTIM]
    reply = unpack_reply(data, op="train", shapes=shapes, limit_bytes=1 << 24)
    check = functools.partial(
        check_trained, ask=ask, layout=setup.fed.layout, mask={}, num_examples=122,
        may_mask=False, may_narrow=False,
    )  # fmt: skip
    check(reply)

    def with_values(values: Mapping[str, Tensor]) -> Reply:
        return replace(reply, work=replace(reply.work, values=values))

    with pytest.raises(Rejected) as caught:
        check(with_values({**reply.work.values, **tensors}))
    assert caught.value.code == code
    with pytest.raises(Rejected) as caught:
        check(with_values({"stem.weight": reply.work.values["stem.weight"]}))
    assert caught.value.code == "F404"


PAIRS = Group("pairs", 4, (Member("v", 0, torch.arange(4).reshape(4, 1)),), block=2)
UNITS = Group("units", 4, (Member("w", 0, torch.arange(4).reshape(4, 1)),))
FIXED = Group("fixed", 2, (Member("w", 1, torch.arange(2).reshape(2, 1)),), protected=True)
LAYOUT = Layout(
    {"w": TensorSpec((4, 2), True), "v": TensorSpec((4,), True)},
    {"units": UNITS, "pairs": PAIRS, "fixed": FIXED},
)
SENT = Ask(1, support=Support({"units": torch.tensor([0, 1, 3])}))


def check_stay(stay: Mapping[str, Tensor], **may: bool) -> None:
    values = {"w": torch.ones(3, 2), "v": torch.ones(4)}
    work = Work(values, stay=stay, metrics={"loss": 1.0}, num_steps=1)
    reply = Reply(Envelope("train", 1, 1, "ab"), "dense", work, num_examples=5)
    allowed = {"may_mask": True, "may_narrow": True, **may}
    check_trained(reply, SENT, LAYOUT, {}, num_examples=5, **allowed)


def bits(*stays: int) -> Tensor:
    return torch.tensor(stays, dtype=torch.bool)


@pytest.mark.parametrize(
    ("stay", "words"),
    [
        ({"more": bits(1)}, "`more`, which is no group"),
        ({"units": bits(1, 0, 1, 1)}, "not those it was sent"),
        ({"units": bits(1, 0)}, "not those it was sent"),
        ({"units": bits()}, "not those it was sent"),
        ({"units": bits(1, 0, 1).reshape(1, 3)}, "not those it was sent"),
        ({"pairs": bits(1, 1, 0)}, "not those it was sent"),
        ({"units": torch.tensor([1, 0, 1])}, "not those it was sent"),
        ({"units": torch.tensor([1.0, 0.0, 1.0])}, "not those it was sent"),
        ({"units": bits(0, 0, 0)}, "'units' keeps 0 of 4 channels"),
        ({"pairs": bits(1, 0, 1, 1)}, "'pairs' keeps parts of a block"),
        ({"fixed": bits(1, 0)}, "'fixed' is protected"),
    ],
)
def test_channels_that_a_client_cannot_go_on_with(stay: Mapping[str, Tensor], words: str) -> None:
    with pytest.raises(Rejected, match=words) as caught:
        check_stay(stay)
    assert caught.value.code == "F407"


def test_only_a_method_that_lets_them_has_clients_that_choose_channels() -> None:
    stay = {"units": bits(1, 0, 1), "pairs": bits(0, 0, 1, 1)}
    check_stay(stay)
    check_stay({}, may_narrow=False)
    with pytest.raises(Rejected, match="channels of its own choice") as caught:
        check_stay(stay, may_narrow=False)
    assert caught.value.code == "F407"
