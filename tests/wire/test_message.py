from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fpcli.errors import WireError
from fpcli.wire.message import (
    Job,
    LocalConfig,
    MaskError,
    Reply,
    pack_job,
    pack_reply,
    unpack_job,
    unpack_reply,
)

LIMIT = 2**20
MASKS = {"b.weight": torch.tensor([[True, False], [False, True], [True, True]])}
VALUES = {
    "b.weight": torch.tensor([[1.0, 0.0], [0.0, -2.5], [0.0, 3.0]]),
    "a.bias": torch.tensor([0.25, math.pi]),
    "scale": torch.tensor(2.0),
    "none": torch.zeros(0, 3),
}
SHAPES = {name: tuple(values.shape) for name, values in VALUES.items()}


def job(**changes: Any) -> Job:
    start = Job(
        method="fedmp",
        op="train",
        round=3,
        client=5,
        run="ab12",
        local=LocalConfig(epochs=2, lr=0.1),
        codec="sparse",
        values=VALUES,
        mask=MASKS,
        keep={"conv1": torch.tensor([0, 2, 5])},
        note={"deep": [1, None, {"x": "é"}], "ratio": 0.3},
    )
    return dataclasses.replace(start, **changes)


def reply(**changes: Any) -> Reply:
    start = Reply(
        op="train",
        round=3,
        client=5,
        run="ab12",
        codec="sparse",
        tensors=VALUES,
        stats={"count": torch.tensor([3, 4]), "hit": torch.tensor([True, False])},
        num_examples=600,
        num_steps=19,
        metrics={"loss": 0.1, "accuracy": 1.0},
        real_s=1.25,
    )
    return dataclasses.replace(start, **changes)


def is_same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return all(
            is_same(getattr(one, item.name), getattr(other, item.name))
            for item in dataclasses.fields(one)
        )
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("codec", ["dense", "sparse"])
@pytest.mark.parametrize("keep", [None, {}, {"conv1": torch.tensor([0, 2, 5])}])
def test_job_round_trip(codec: str, keep: dict[str, Tensor] | None) -> None:
    sent = job(codec=codec, keep=keep)
    assert is_same(unpack_job(pack_job(sent), limit_bytes=LIMIT), sent)


def test_a_limit_of_steps_travels_only_where_there_is_one() -> None:
    data = pack_job(job(max_steps=7))
    assert is_same(unpack_job(data, limit_bytes=LIMIT), job(max_steps=7))
    assert len(data) == len(pack_job(job())) + len(',"max_steps":7')


@pytest.mark.parametrize("codec", ["dense", "sparse"])
@pytest.mark.parametrize("mask", [None, {}, MASKS, {"a.bias": torch.tensor([True, True])}])
def test_reply_round_trip(codec: str, mask: dict[str, Tensor] | None) -> None:
    sent = reply(codec=codec, mask=mask, metrics={"accuracy": 1.0, "loss": 0.1})
    known = MASKS if mask is None else {}
    data = pack_reply(sent, known=known)
    received = unpack_reply(data, shapes=SHAPES, mask=MASKS, limit_bytes=LIMIT)
    expected = dict(VALUES)
    for name, alive in (known if mask is None else mask or {}).items():
        expected[name] = torch.where(alive, expected[name], 0.0)
    assert is_same(received, dataclasses.replace(sent, tensors=expected))


def test_probe_round_trip() -> None:
    answers = {
        "counts": torch.tensor([5, 0, 7]),
        "mask/b#x": torch.tensor([[True], [False]]),
        "score": torch.tensor([math.nan, 1.0]),
        "code": torch.tensor([1, 255], dtype=torch.uint8),
    }
    sent = reply(op="count", tensors=answers, metrics={}, stats={})
    received = unpack_reply(pack_reply(sent), shapes=None, limit_bytes=LIMIT)
    assert list(received.tensors) == list(answers)
    assert received.tensors["score"].isnan().tolist() == [True, False]
    assert all(is_same(received.tensors[n], answers[n]) for n in ("counts", "mask/b#x", "code"))


@pytest.mark.parametrize("error", ["diverged: loss is nan at step 3", "failed: KeyError"])
def test_error_reply_may_have_metrics_that_are_not_finite(error: str) -> None:
    metrics = {"a": math.inf, "b": -math.inf, "c": 1.5, "loss": math.nan}
    data = pack_reply(reply(tensors={}, stats={}, metrics=metrics, error=error))
    received = unpack_reply(data, shapes=SHAPES, mask=MASKS, limit_bytes=LIMIT)
    assert received.error == error
    assert received.tensors == {}
    assert repr(received.metrics) == "{'a': inf, 'b': -inf, 'c': 1.5, 'loss': nan}"


def test_text_of_an_error_becomes_one_safe_line() -> None:
    text = "failed: \x1b[31mred\n  two lines" + "x" * 1000
    data = pack_reply(reply(tensors={}, stats={}, error=text))
    received = unpack_reply(data, shapes=SHAPES, limit_bytes=LIMIT)
    assert received.error.startswith("failed: [31mred two linesxxx")
    assert len(received.error) <= 500


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e12), st.integers(0, 2**53 - 1)
)
def test_numbers_survive_exactly(metric: float, real_s: float, count: int) -> None:
    sent = reply(metrics={"loss": metric}, real_s=real_s, num_examples=count)
    received = unpack_reply(pack_reply(sent), shapes=SHAPES, limit_bytes=LIMIT)
    assert is_same(received, sent)
    assert math.copysign(1, received.metrics["loss"]) == math.copysign(1, metric)


def test_length_does_not_depend_on_measured_time_or_order_of_metrics() -> None:
    lengths = {len(pack_reply(reply(real_s=time))) for time in (0.0, 1 / 3, 12345.678, 1e-9)}
    assert len(lengths) == 1
    metrics = {"accuracy": 1.0, "loss": 0.1}
    assert pack_reply(reply(metrics=metrics)) == pack_reply(reply())
    assert pack_job(job()) == pack_job(job())


def test_body_is_safetensors() -> None:
    data = pack_job(job(codec="dense", mask={}, keep=None))
    header_end = 12 + struct.unpack_from("<I", data, 8)[0]
    header, body = data[12:header_end], data[header_end:-32]
    loaded = safetensors.torch.load(body)
    assert {
        name: is_same(tensor, VALUES[name[2:]]) for name, tensor in loaded.items()
    } == dict.fromkeys(["v/" + name for name in VALUES], True)
    assert b" " not in header
    assert list(json.loads(header)) == sorted(json.loads(header))


def test_only_shapes_tell_widths_without_keep() -> None:
    data = pack_job(job(codec="dense", mask={}, keep=None))
    assert b"k/" not in data
    assert unpack_job(data, limit_bytes=LIMIT).keep is None


def test_tensors_are_sent_in_row_major_order_and_received_writable() -> None:
    image = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    sent = job(values={"w": image.requires_grad_()}, mask={})
    values = unpack_job(pack_job(sent), limit_bytes=LIMIT).values["w"]
    assert values.is_contiguous()
    assert torch.equal(values, image)
    values.zero_()


def test_received_order_is_that_of_the_shapes() -> None:
    backwards = dict(reversed(VALUES.items()))
    data = pack_reply(reply(tensors=backwards), known=MASKS)
    received = unpack_reply(data, shapes=SHAPES, mask=MASKS, limit_bytes=LIMIT)
    assert list(received.tensors) == list(SHAPES)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": {"w": torch.zeros(2, dtype=torch.float64)}, "mask": {}},
        {"values": {"w": torch.zeros(2, dtype=torch.int64)}, "mask": {}},
        {"values": {"w#x": torch.zeros(2)}, "mask": {}},
        {"values": {"w\n": torch.zeros(2)}, "mask": {}},
        {"mask": {"unknown": torch.tensor([True])}},
        {"mask": {"a.bias": torch.tensor([True])}},
        {"codec": "zip"},
        {"round": -1},
        {"round": True},
        {"client": 1.0},
        {"op": ""},
        {"run": 12},
        {"local": LocalConfig(epochs=0)},
        {"local": LocalConfig(lr=math.nan)},
        {"local": LocalConfig(momentum=1.0)},
        {"note": {"x": math.inf}},
        {"note": {"x": (1, 2)}},
        {"note": {1: 2}},
        {"note": {"x": torch.zeros(1)}},
        {"note": {"x": "y" * 2**21}},
        {"note": {"x": "\ud800"}},
    ],
)
def test_wrong_jobs_are_not_sent(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        pack_job(job(**changes))
    assert caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"loss": math.nan}},
        {"real_s": -1.0},
        {"real_s": math.nan},
        {"num_steps": -1},
        {"num_examples": 1.5},
        {"num_examples": math.nan},
        {"num_examples": True},
        {"num_examples": "600"},
        {"num_examples": 2**70},
        {"error": "failed: x"},
        {"op": "count", "mask": {}},
        {"stats": {"x": torch.zeros(1, dtype=torch.complex64)}},
        {"stats": {"x": torch.zeros(1, dtype=torch.float64)}},
    ],
)
def test_wrong_replies_are_not_sent(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        pack_reply(reply(**changes))


WRONG_VALUES = {
    "shape ()": {"a.bias": torch.tensor(1.0)},
    "shape (1,)": {"a.bias": torch.zeros(1)},
    "transposed": {"b.weight": torch.zeros(2, 3)},
    "one channel more": {"a.bias": torch.zeros(3)},
    "empty": {"a.bias": torch.zeros(0)},
    "extra": {"more": torch.zeros(2)},
}


@pytest.mark.parametrize("change", WRONG_VALUES.values(), ids=WRONG_VALUES)
@pytest.mark.parametrize("codec", ["dense", "sparse"])
def test_replies_of_another_shape_are_refused(change: dict[str, Tensor], codec: str) -> None:
    data = pack_reply(reply(tensors={**VALUES, **change}, codec=codec))
    with pytest.raises(WireError):
        unpack_reply(data, shapes=SHAPES, limit_bytes=LIMIT)


@pytest.mark.parametrize(
    "names", [["a.bias"], [*VALUES, "x"], ["b.weight", "a.bias", "scale", "x"]]
)
def test_replies_with_other_names_are_refused(names: list[str]) -> None:
    data = pack_reply(reply(tensors={name: VALUES.get(name, torch.zeros(1)) for name in names}))
    with pytest.raises(WireError, match="tensor"):
        unpack_reply(data, shapes=SHAPES, limit_bytes=LIMIT)


def test_training_and_probe_are_not_mixed_up() -> None:
    with pytest.raises(WireError, match="unasked"):
        unpack_reply(pack_reply(reply()), shapes=None, limit_bytes=LIMIT)
    with pytest.raises(WireError, match="unasked"):
        unpack_reply(pack_reply(reply(op="count")), shapes=SHAPES, limit_bytes=LIMIT)
    with pytest.raises(WireError, match="starts with"):
        unpack_job(pack_reply(reply()), limit_bytes=LIMIT)


def test_a_job_may_rely_on_masks_that_its_client_has() -> None:
    mask = {"w": torch.tensor([[True, False], [False, True]])}
    values = {"w": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    sent = Job("m", "train", 4, 3, "ab", LocalConfig(), "sparse", values, mask, is_mask_known=True)
    told = pack_job(dataclasses.replace(sent, is_mask_known=False))
    data = pack_job(sent)
    assert len(data) < len(told)
    got = unpack_job(data, limit_bytes=10**6, known=lambda client, round: mask)
    assert torch.equal(got.values["w"], values["w"])
    assert got.is_mask_known
    other = {"w": ~mask["w"]}  # as many values, but others
    for has in (other, {}):
        with pytest.raises(MaskError) as caught:
            unpack_job(data, limit_bytes=10**6, known=lambda client, round, has=has: has)
        assert caught.value.address["client"] == 3
