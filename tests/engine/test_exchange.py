from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import toy_recipe
from faults import Tampering
from replies import (
    BIAS,
    CONV,
    METHODS,
    VICTIM,
    Canned,
    Change,
    Message,
    ask_of,
    assert_refused,
    failing,
    filled,
    flipped,
    header,
    honest,
    outcomes_with,
    part,
    plain,
    play,
    put_together,
    setup_of,
    take_apart,
    without_victim,
)
from torch import Tensor

from fpcli.engine import server
from fpcli.engine.exchange import exchange, narrow
from fpcli.engine.executors.inline import Inline, Outcome
from fpcli.engine.federation import RoundRecord, Totals
from fpcli.engine.planning import foresee
from fpcli.engine.types import Work
from fpcli.errors import ClientError
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.support import Support
from fpcli.train import federated_run
from fpcli.train.setup import prepare_run
from fpcli.wire.headers import to_hex


def allow_mask(bitmap: Tensor, name: str = CONV) -> Change:
    def apply(message: Message) -> None:
        message.header["has_mask"] = True
        message.parts[f"{name}#bitmap"] = bitmap

    return apply


def with_stay(*stays: int, group: str = "stem") -> Change:
    bits = torch.tensor(stays, dtype=torch.bool)
    return lambda message: message.parts.update({f"k/{group}": bits})


FULL = torch.empty(0, dtype=torch.uint8)
"""The bitmap of a mask with all bits set."""

OTHERS: dict[str, tuple[str, str, Change]] = {
    "dense, an error of the client": ("fedavg", "F408", failing),
    "dense, a mask of its own": ("fedavg", "F407", allow_mask(FULL)),
    "dense, says it has a mask": ("fedavg", "F407", header(has_mask=True)),
    "structured, a mask of its own": ("fedmp", "F407", allow_mask(FULL)),
    "dense, channels of its own": ("fedavg", "F407", with_stay(1, 1, 1, 1, 1, 1, 1, 0)),
    "structured, channels of its own": ("fedmp", "F407", with_stay(1)),
    "entries, channels of its own": ("flexcom", "F407", with_stay(1, 1, 1, 1, 1, 1, 1, 0)),
    "chosen, no channel left": ("toys:Narrowing", "F407", with_stay(0, 0, 0, 0, 0, 0)),
    "chosen, one channel more than sent": (
        "toys:Narrowing", "F407", with_stay(1, 0, 1, 0, 1, 0, 1),
    ),
    "chosen, an unknown group": ("toys:Narrowing", "F407", with_stay(1, group="steam")),
    "structured, an error of the client": ("fedmp", "F408", failing),
    "masked, an error of the client": ("toys:Masked", "F408", failing),
    "masked, all bits set": ("toys:Masked", "F407", allow_mask(FULL)),
    "masked, too short": ("toys:Masked", "F401", allow_mask(FULL.new_zeros(1))),
    "masked, of another type": ("toys:Masked", "F401", allow_mask(torch.zeros(9))),
    "masked, bits beyond the end": (
        "toys:Masked", "F401", allow_mask(FULL.new_full((2,), 255), "v/hidden.bias"),
    ),
    "masked, no word of masks": ("toys:Masked", "F401", header(has_mask=False)),
    "masked, a value under a dead coordinate": (
        "toys:Masked", "F401", part(lambda x: torch.where(x == 0, 1.0, x)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_a_wrong_mask_or_a_reported_error_counts_as_none(case: str) -> None:
    name, code, change = OTHERS[case]
    message = take_apart(honest(name)[1][VICTIM])
    change(message)
    assert_refused(name, code, put_together(message))


def bitmap_of(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.flatten().numpy(), bitorder="little"))


@pytest.mark.parametrize("where", ["own", "none"])
def test_values_outside_the_planned_mask(where: str) -> None:
    name = "toys:Masked"
    plan = ask_of(name).support.mask["stem.weight"]
    message = take_apart(honest(name)[1][VICTIM])
    wider = plan.clone()
    wider.view(-1)[int((~plan).flatten().nonzero()[0])] = True
    message.parts[CONV] = wider.float()
    if where == "own":  # one bit more than planned
        message.parts[f"{CONV}#bitmap"] = bitmap_of(wider)
    else:  # a mask for other tensors only, so that nothing is said about this one
        del message.parts[f"{CONV}#bitmap"]
    # Of what it says nothing about, the planned mask holds, and a value outside it is no message.
    assert_refused(name, "F407" if where == "own" else "F401", put_together(message))


def test_a_reply_without_masks_may_use_the_planned_ones() -> None:
    name = "toys:Masked"
    planned = ask_of(name).support.mask
    message = take_apart(honest(name)[1][VICTIM])
    message.header["has_mask"] = False
    for key, mask in planned.items():
        del message.parts[f"v/{key}#bitmap"]
        message.parts[f"v/{key}"] *= mask
    _, record = play(name, outcomes_with(name, put_together(message)))
    assert record.refusals == ()


INDICES = {
    "repeated": [0, 0],
    "descending": [3, 1],
    "beyond the width": [0, 72],
    "negative": [-1, 0],
    "far beyond": [2**31 - 1],
    "of another type": [0.0],
    "more than values": [0, 1, 2],
}


@pytest.mark.parametrize("case", INDICES)
def test_a_wrong_index_counts_as_none(case: str) -> None:
    name = "toys:Masked sparse"
    index = torch.tensor(INDICES[case])
    message = take_apart(honest(name)[1][VICTIM])
    del message.parts[f"{CONV}#bitmap"]
    num_values = 2 if case == "more than values" else len(index)
    message.parts[CONV] = torch.ones(num_values)
    message.parts[f"{CONV}#index"] = index if index.is_floating_point() else index.int()
    assert_refused(name, "F401", put_together(message))


def test_an_index_outside_the_planned_mask() -> None:
    name = "toys:Masked sparse"
    dead = (~ask_of(name).support.mask["stem.weight"]).flatten().nonzero()[0]
    message = take_apart(honest(name)[1][VICTIM])
    del message.parts[f"{CONV}#bitmap"]
    message.parts.update({CONV: torch.ones(1), f"{CONV}#index": dead.int()})
    assert_refused(name, "F407", put_together(message))


def test_the_whole_model_where_a_part_was_planned() -> None:
    setup = setup_of("fedmp")
    assert ask_of("fedmp").support.keep
    message = take_apart(honest("fedmp")[1][VICTIM])
    for name, spec in setup.fed.layout.tensors.items():
        message.parts[f"v/{name}"] = torch.zeros(spec.shape)
    assert_refused("fedmp", "F401", put_together(message))


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("value", [3e38, -3e38])
def test_a_finite_value_whose_sum_would_overflow(kind: str, value: float) -> None:
    message = take_apart(honest(METHODS[kind])[1][VICTIM])
    message.parts[BIAS] = torch.full_like(message.parts[BIAS], value)
    assert_refused(METHODS[kind], "F402", put_together(message))


@pytest.mark.parametrize("kind", METHODS)
def test_two_replies_to_one_job_count_once(kind: str) -> None:
    name = METHODS[kind]
    reply = honest(name)[1][VICTIM]
    expected, honest_record = play(name, outcomes_with(name, reply))
    state, record = play(name, [*outcomes_with(name, reply), Outcome(VICTIM, reply)])
    assert plain(state) == plain(expected)
    assert [(r.client, r.code) for r in record.refusals] == [(VICTIM, "F401")]
    assert record.up_bytes == honest_record.up_bytes + len(reply)


@pytest.mark.parametrize("kind", METHODS)
def test_a_good_reply_after_a_bad_one_is_too_late(kind: str) -> None:
    name = METHODS[kind]
    good = Outcome(VICTIM, honest(name)[1][VICTIM])
    state, record = play(name, [*outcomes_with(name, flipped(good.reply or b"", 0.5)), good])
    assert [(r.client, r.code) for r in record.refusals] == [(VICTIM, "F401")]
    assert (plain(state), record.clients) == without_victim(name)


@pytest.mark.parametrize("kind", METHODS)
def test_replies_may_come_in_any_order(kind: str) -> None:
    name = METHODS[kind]
    outcomes = outcomes_with(name, honest(name)[1][VICTIM])
    orders = [outcomes, outcomes[::-1], outcomes[2:] + outcomes[:2]]
    results = [play(name, order) for order in orders]
    assert len({repr(plain(state)) for state, _ in results}) == 1
    assert len({repr(record.clients) for _, record in results}) == 1


@pytest.mark.parametrize("kind", METHODS)
def test_when_all_replies_are_wrong_the_round_fails(kind: str) -> None:
    name = METHODS[kind]
    state, replies = honest(name)
    before = plain(state)
    canned = Canned([Outcome(job, flipped(reply, 0.5)) for job, reply in enumerate(replies)])
    with pytest.raises(ClientError, match="round 1: 0 usable replies, 1 needed") as caught:
        next(server.play(setup_of(name).fed, state, canned, Totals()))
    assert caught.value.exit_status == 4
    assert caught.value.hint
    assert canned.num_jobs == 2 * len(replies), "round_retries is 1"
    assert plain(state) == before


def test_the_event_of_a_round_names_the_refused() -> None:
    _, record = play("fedavg", outcomes_with("fedavg", b"garbage"))
    event = federated_run.round_to_event(record)
    (rejected,) = event["rejected"]
    assert (rejected["client"], rejected["code"]) == (VICTIM, "F401")
    assert event["dropped"] == []
    assert event["round"] == 1
    _, record = play("fedavg", outcomes_with("fedavg", None))
    event = federated_run.round_to_event(record)
    assert event["rejected"] == []
    assert [(r["client"], r["code"]) for r in event["dropped"]] == [(VICTIM, "F410")]


def one_more(name: str, ops: Callable[[Message], bool], change: Change) -> tuple[Any, RoundRecord]:
    """Play a round in which the victim's answers of some kind are changed."""
    setup = setup_of(name)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))

    def tamper(run: int, job: int, reply: bytes) -> bytes:
        message = take_apart(reply)
        if message.header["client"] == VICTIM and ops(message):
            change(message)
        return put_together(message)

    return next(server.play(setup.fed, state, Tampering(setup.site, tamper), totals))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("F402", part(filled(math.nan, 0), "v/counts")),
        ("F401", header(client=3)),
        ("F401", header(run="f" * 64)),
        ("F408", failing),
    ],
)
def test_a_wrong_answer_to_a_question_is_not_absorbed(code: str, change: Change) -> None:
    state, record = one_more("toys:Asking", lambda m: m.header["op"] == "labels", change)
    assert [(r.client, r.code) for r in record.refusals] == [(VICTIM, code)]
    assert state.method.phases == (("start", 4), ("round", 3))


@pytest.mark.parametrize(
    "change",
    [header(metrics={}), header(metrics={"accuracy": to_hex(1.0)}), failing, header(round=7)],
)
def test_a_wrong_score_of_a_personal_model_is_left_out(change: Change, tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("toys:Personal", rounds=1), tmp_path)
    state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))

    def tamper(run: int, job: int, reply: bytes) -> bytes:
        message = take_apart(reply)
        if (job, message.header["op"]) == (VICTIM, "evaluate"):
            change(message)
        return put_together(message)

    _, record = next(server.play(setup.fed, state, Tampering(setup.site, tamper), totals))
    assert record.evaluation is not None
    assert sorted(record.evaluation.clients) == [0, 2, 3]


def test_a_client_that_goes_on_with_less_is_taken_at_that() -> None:
    """Client k is sent channels k + 1 to 7 of the stem, and every other one of them stays.

    Its change counts on those alone, so that client 0 alone moves channel 1, clients 0 and 2
    channel 3, and clients 1 and 3 channels 4 and 6. Nobody was sent channel 0.
    """
    setup = setup_of("toys:Narrowing")
    before, _ = honest("toys:Narrowing")
    brought = exchange(
        setup.fed, before, foresee(setup.fed, before, 1), Inline(setup.site), round=1
    )
    kept = [[1, 3, 5, 7], [2, 4, 6], [3, 5, 7], [4, 6]]
    assert [answer.support.keep["stem"].tolist() for answer in brought.answers] == kept
    for answer in brought.answers:
        shapes = answer.support.block_shapes(setup.fed.layout)
        assert {name: tuple(x.shape) for name, x in answer.work.values.items()} == shapes
    ctx = setup.fed.context(1, "round", lambda *_, **__: None)
    after = setup.fed.method.aggregate(ctx, before, brought.answers)
    stem = after.values["stem.bias"] - before.values["stem.bias"]
    assert stem[0] == 0.0
    weights = {answer.ask.client: float(answer.num_examples) for answer in brought.answers}
    for channel in range(1, 8):
        holders = [
            (weights[a.ask.client], float(a.work.values["stem.bias"][kept[i].index(channel)]))
            for i, a in enumerate(brought.answers)
            if channel in kept[i]
        ]
        mean = sum(w * x for w, x in holders) / sum(w for w, _ in holders)
        assert float(stem[channel]) == pytest.approx(mean, abs=1e-6)


def test_what_a_client_goes_on_with_by_hand() -> None:
    """Of channels 1, 2 and 3 it was sent, whose rows hold 1, 2 and 3, the first and last stay.

    Its own mask takes the left value of every row away.
    """
    units = Group("g", 4, (Member("w", 0, torch.arange(4).reshape(4, 1)),))
    layout = Layout({"w": TensorSpec((4, 2), True)}, {"g": units})
    fed = replace(setup_of("fedavg").fed, layout=layout)
    sent = Support({"g": torch.tensor([1, 2, 3])})
    own = torch.tensor([[False, True]] * 3)
    values = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    work = Work({"w": values}, {"w": own}, stay={"g": torch.tensor([True, False, True])})
    support, cut = narrow(fed, sent, work)
    assert support.keep["g"].tolist() == [1, 3]
    assert support.mask["w"].tolist() == [[False, False]] + 3 * [[False, True]]
    assert cut["w"].tolist() == [[0.0, 1.0], [0.0, 3.0]]
    support, whole = narrow(fed, sent, Work({"w": values}, {"w": own}))
    assert support.keep["g"].tolist() == [1, 2, 3]
    assert whole["w"] is values
