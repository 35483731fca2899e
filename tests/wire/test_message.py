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

from fpcli.engine.types import Ask
from fpcli.errors import WireError
from fpcli.settings.learning import LocalConfig
from fpcli.wire.headers import TRAIN, Envelope, JobHeader, Task
from fpcli.wire.message import (
    Job,
    MaskError,
    Reply,
    Work,
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


HEADER = JobHeader(
    5,
    TRAIN,
    local=LocalConfig(epochs=2, lr=0.1),
    note={"deep": [1, None, {"x": "é"}], "ratio": 0.3},
    method="fedmp",
    round=3,
    run="ab12",
    codec="sparse",
)
JOB = Job(HEADER, VALUES, MASKS, {"conv1": torch.tensor([0, 2, 5])})
WORK = Work(
    VALUES,
    stats={"count": torch.tensor([3, 4]), "hit": torch.tensor([True, False])},
    metrics={"accuracy": 1.0, "loss": 0.1},
    num_steps=19,
)
REPLY = Reply(HEADER.envelope, "sparse", WORK, num_examples=600, real_s=1.25)


def changed(thing: Any, **changes: Any) -> Any:
    """Return a data class with some fields changed, those of the data classes in it included."""
    own = {item.name: getattr(thing, item.name) for item in dataclasses.fields(thing)}
    inner = {
        name: changed(value, **{key: changes[key] for key in changes if hasattr(value, key)})
        for name, value in own.items()
        if isinstance(value, JobHeader | Envelope | Work)
    }
    return dataclasses.replace(
        thing, **inner, **{key: changes[key] for key in changes if key in own}
    )


def job(**changes: Any) -> Job:
    return changed(JOB, **changes)


def reply(**changes: Any) -> Reply:
    return changed(REPLY, **changes)


def read(data: bytes, op: str = TRAIN, **more: Any) -> Reply:
    return unpack_reply(data, op=op, shapes=SHAPES, limit_bytes=LIMIT, **more)


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


def sent_header(sent: Job, shapes: Mapping[str, tuple[int, ...]]) -> JobHeader:
    """Return the header that arrives, in which is filled how the tensors travelled."""
    return dataclasses.replace(sent.header, has_keep=sent.keep is not None, shapes=shapes)


@pytest.mark.parametrize("codec", ["dense", "sparse"])
@pytest.mark.parametrize("keep", [None, {}, {"conv1": torch.tensor([0, 2, 5])}])
def test_job_round_trip(codec: str, keep: dict[str, Tensor] | None) -> None:
    sent = job(codec=codec, keep=keep)
    hidden = {"b.weight": SHAPES["b.weight"]} if codec == "sparse" else {}
    expected = dataclasses.replace(sent, header=sent_header(sent, hidden))
    assert is_same(unpack_job(pack_job(sent), limit_bytes=LIMIT), expected)


OTHER: dict[str, Any] = {
    "client": 6,
    "op": "count",
    "local": LocalConfig(epochs=3),
    "note": {"x": 1},
    "max_steps": 7,
}
"""Every field of a task with another value than `HEADER` and the plain default have."""


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(Task)])
def test_a_field_of_a_task_reaches_the_client(name: str) -> None:
    """A new field needs a line in `OTHER`, and nothing else."""
    sent = job(**{name: OTHER[name]})
    got = unpack_job(pack_job(sent), limit_bytes=LIMIT).header
    assert getattr(got, name) == OTHER[name] != getattr(HEADER, name)
    assert is_same(got, sent_header(sent, {"b.weight": SHAPES["b.weight"]}))


@pytest.mark.parametrize(
    "item",
    [x for x in dataclasses.fields(Task) if x.default not in (None, dataclasses.MISSING)],
    ids=lambda item: item.name,
)
def test_a_field_of_a_task_costs_bytes_only_where_it_is_no_default(item: Any) -> None:
    plain, other = (
        pack_job(job(**{item.name: value})) for value in (item.default, OTHER[item.name])
    )
    assert f'"{item.name}"'.encode() not in plain
    assert len(other) - len(plain) == len(f',"{item.name}":{json.dumps(OTHER[item.name])}')


@pytest.mark.parametrize(("heir", "again"), [(JobHeader, {"local"}), (Ask, {"op"})])
def test_a_field_of_a_task_is_stated_once(heir: type, again: set[str]) -> None:
    """The header of a job must have `local`, and an ask trains unless it says otherwise."""
    assert issubclass(heir, Task)
    assert {item.name for item in dataclasses.fields(Task)} & set(heir.__annotations__) == again


@pytest.mark.parametrize("codec", ["dense", "sparse"])
@pytest.mark.parametrize("mask", [None, {}, MASKS, {"a.bias": torch.tensor([True, True])}])
def test_reply_round_trip(codec: str, mask: dict[str, Tensor] | None) -> None:
    sent = reply(codec=codec, mask=mask)
    received = read(pack_reply(sent, known=MASKS), mask=MASKS)
    expected = dict(VALUES)
    for name, alive in {**MASKS, **(mask or {})}.items():
        expected[name] = torch.where(alive, expected[name], 0.0)
    assert is_same(received, changed(sent, values=expected))


def test_channels_that_stay_travel_beside_the_whole_change() -> None:
    stay = {"conv1": torch.tensor([True, False, True]), "fc": torch.tensor([True])}
    sent = reply(stay=stay)
    data = pack_reply(sent)
    assert is_same(read(data), sent)
    assert b'"k/conv1"' in data
    assert b'"k/' not in pack_reply(reply())


def test_answer_round_trip() -> None:
    answers = {
        "counts": torch.tensor([5, 0, 7]),
        "mask/b#x": torch.tensor([[True], [False]]),
        "score": torch.tensor([math.nan, 1.0]),
        "code": torch.tensor([1, 255], dtype=torch.uint8),
    }
    sent = reply(op="count", values=answers, metrics={}, stats={})
    got = read(pack_reply(sent), "count").work
    assert list(got.values) == list(answers)
    assert got.mask is None
    assert got.values["score"].isnan().tolist() == [True, False]
    assert all(is_same(got.values[n], answers[n]) for n in ("counts", "mask/b#x", "code"))


@pytest.mark.parametrize("codec", ["dense", "sparse", "int8"])
@pytest.mark.parametrize("num_alive", [100, 5000])
def test_an_answer_with_masks_travels_without_what_is_masked(codec: str, num_alive: int) -> None:
    """By indices and by a bitmap; exact whatever the codec of the run is."""
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask.view(-1)[torch.randperm(10_000)[:num_alive]] = True
    values, shapes = {"w": torch.randn(100, 100), "b": torch.randn(3)}, {"w": (100, 100), "b": (3,)}
    sent = reply(op="prune", codec=codec, values=values, mask={"w": mask})
    data, dense = pack_reply(sent), pack_reply(changed(sent, mask=None))
    got = unpack_reply(data, op="prune", shapes=shapes, mask=MASKS, limit_bytes=LIMIT)
    assert is_same(got, changed(sent, values={**values, "w": torch.where(mask, values["w"], 0.0)}))
    saved = min(4 * num_alive, 10_000 // 8) + 4 * num_alive - 4 * 10_000
    assert abs(len(data) - len(dense) - saved) < 100, "an entry of the index of tensors"


@pytest.mark.parametrize(
    "changes",
    [
        {"values": {**VALUES, "a.bias": torch.zeros(3)}},
        {"values": {"b.weight": VALUES["b.weight"]}},
        {"values": {**VALUES, "more": torch.zeros(1)}},
    ],
)
def test_an_answer_with_masks_is_the_model_that_was_sent(changes: dict[str, Any]) -> None:
    sent = reply(op="prune", mask=MASKS)
    read(pack_reply(sent), "prune")
    with pytest.raises(WireError):
        read(pack_reply(changed(sent, **changes)), "prune")
    read(pack_reply(changed(sent, **changes, mask=None)), "prune")


@pytest.mark.parametrize("error", ["diverged: loss is nan at step 3", "failed: KeyError"])
def test_error_reply_may_have_metrics_that_are_not_finite(error: str) -> None:
    metrics = {"a": math.inf, "b": -math.inf, "c": 1.5, "loss": math.nan}
    data = pack_reply(reply(values={}, stats={}, metrics=metrics, error=error))
    received = read(data, mask=MASKS)
    assert received.error == error
    assert received.work.values == {}
    assert repr(received.work.metrics) == "{'a': inf, 'b': -inf, 'c': 1.5, 'loss': nan}"


def test_text_of_an_error_becomes_one_safe_line() -> None:
    text = "failed: \x1b[31mred\n  two lines" + "x" * 1000
    received = read(pack_reply(reply(values={}, stats={}, error=text)))
    assert received.error.startswith("failed: [31mred two linesxxx")
    assert len(received.error) <= 500


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e12), st.integers(0, 2**53 - 1)
)
def test_numbers_survive_exactly(metric: float, real_s: float, count: int) -> None:
    sent = reply(metrics={"loss": metric}, real_s=real_s, num_examples=count)
    received = read(pack_reply(sent))
    assert is_same(received, sent)
    assert math.copysign(1, received.work.metrics["loss"]) == math.copysign(1, metric)


def test_length_does_not_depend_on_measured_time_or_order_of_metrics() -> None:
    lengths = {len(pack_reply(reply(real_s=time))) for time in (0.0, 1 / 3, 12345.678, 1e-9)}
    assert len(lengths) == 1
    metrics = {"loss": 0.1, "accuracy": 1.0}
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
    received = read(pack_reply(reply(values=backwards), known=MASKS), mask=MASKS)
    assert list(received.work.values) == list(SHAPES)


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
        {"op": "count", "stay": {"conv1": torch.tensor([True])}},
        {"op": "count", "mask": {"more": torch.tensor([True])}},
        {"op": "count", "mask": MASKS, "values": {"b.weight": torch.zeros(3, 2).double()}},
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
    data = pack_reply(reply(values={**VALUES, **change}, codec=codec))
    with pytest.raises(WireError):
        read(data)


@pytest.mark.parametrize(
    "names", [["a.bias"], [*VALUES, "x"], ["b.weight", "a.bias", "scale", "x"]]
)
def test_replies_with_other_names_are_refused(names: list[str]) -> None:
    data = pack_reply(reply(values={name: VALUES.get(name, torch.zeros(1)) for name in names}))
    with pytest.raises(WireError, match="tensor"):
        read(data)


def test_training_and_questions_are_not_mixed_up() -> None:
    for op, asked in (("train", "count"), ("count", "train"), ("count", "classes")):
        with pytest.raises(WireError, match=f"answers `{op}` unasked"):
            read(pack_reply(reply(op=op)), asked)
    with pytest.raises(WireError, match="starts with"):
        unpack_job(pack_reply(reply()), limit_bytes=LIMIT)


def test_a_job_may_rely_on_masks_that_its_client_has() -> None:
    mask = {"w": torch.tensor([[True, False], [False, True]])}
    values = {"w": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}
    sent = job(values=values, mask=mask, keep=None, is_mask_known=True)
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
        assert caught.value.header.envelope == Envelope("train", 3, 5, "ab12")


def test_masks_of_another_shape_are_not_those_that_a_job_relies_on() -> None:
    """All bits set are the same bytes for 2 x 3 and for 3 x 2."""
    mask = {"w": torch.ones(2, 3, dtype=torch.bool)}
    data = pack_job(job(values={"w": torch.ones(2, 3)}, mask=mask, keep=None, is_mask_known=True))
    with pytest.raises(MaskError):
        unpack_job(data, limit_bytes=LIMIT, known=lambda client, round: {"w": mask["w"].T})
