"""GWEP: schedule, masks, error feedback and rounds by hand, and the runs that it must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from contexts import round_context
from replies import rounds
from torch import Tensor, nn

from fpcli.engine.exchange import exchange
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.planning import foresee
from fpcli.engine.types import (
    TRAIN,
    Answer,
    Ask,
    Fitted,
    LocalConfig,
    ServerState,
    Support,
    Task,
    Timing,
    Traffic,
    Work,
)
from fpcli.methods.gwep import Gwep, Options, choose_alive, compare_norms
from fpcli.plugins import lookup
from fpcli.recipe.idle import find_idle
from fpcli.rng import stream
from fpcli.structure.budget import list_masked_weights
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire.blocks import carry_blocks, digest_masks

AT_ONCE: dict[str, Any] = {
    "method__prune_start": 0, "method__initial_sparsity": 0.2, "wire__codec": "int16",
}  # fmt: skip
MASKED: dict[str, Any] = {}
SHARP = {"method__prune_start": 0, "method__prune_steps": 2, "method__final_sparsity": 0.8}


@pytest.mark.parametrize(
    ("options", "number", "wanted"),
    [
        (
            Options(0.9, 0.0, prune_start=0, prune_steps=10),
            12,
            [0, 0.2439, 0.4392, 0.5913, 0.7056, 0.7875, 0.8424, 0.8757, 0.8928, 0.8991, 0.9, 0.9],
        ),
        (
            Options(0.8, 0.2, prune_start=2, prune_every=2, prune_steps=5),
            14,
            [
                0, 0, 0.2, 0.2, 0.4928, 0.4928, 0.6704, 0.6704, 0.7616, 0.7616, 0.7952, 0.7952,
                0.8, 0.8,
            ],
        ),
    ],
)  # fmt: skip
def test_the_schedule_of_every_round(options: Options, number: int, wanted: list[float]) -> None:
    """By hand from s_f + (s_i - s_f) (1 - j/n)^3."""
    found = [options.find_target(at, number) for at in range(number)]
    assert found == pytest.approx(wanted, abs=1e-9)
    start, steps = options.find_schedule(number)
    due = [at for at in range(number) if options.is_step(at, number)]
    assert due == list(range(start, start + steps * options.prune_every + 1, options.prune_every))


@pytest.mark.parametrize(
    ("number", "every", "wanted"), [(30, 1, (3, 15)), (25, 1, (3, 12)), (100, 7, (10, 7))]
)
def test_the_schedule_follows_the_length_of_the_run(
    number: int, every: int, wanted: tuple[int, int]
) -> None:
    """From a tenth, rounded up, to six tenths: 3 to 18, 3 to 15, and 10 to 59 in steps of 7."""
    assert Options(prune_every=every).find_schedule(number) == wanted


def test_bad_options_say_so() -> None:
    with pytest.raises(ValueError, match="initial_sparsity"):
        Options(0.5, 0.6)
    with pytest.raises(ValueError, match="error_feedback"):
        Options(error_feedback=False, ef_on_pruned="hold")


def test_a_schedule_that_is_too_long_is_told() -> None:
    assert Gwep().idle(Options(), 30) == []
    (line,) = Gwep().idle(Options(prune_start=2, prune_steps=9), 10)
    assert "12 rounds of 10" in line
    assert "0.4993" not in line  # step 7 of 9: 0.5 - 0.5 (2/9)^3
    assert "0.4945" in line
    (told,) = find_idle(toy_recipe("gwep", rounds=1))
    assert "final_sparsity" in str(told)


LAYOUT = Layout(
    {
        "a": TensorSpec((2, 2), True, 1.0),
        "b": TensorSpec((1, 4), True, 1.0),
        "bias": TensorSpec((4,), True),
    },
    {},
)
WEIGHTS = {
    "a": torch.tensor([[4.0, -1.0], [1.0, 3.0]]),
    "b": torch.tensor([[0.5, -0.5, 0.5, 2.0]]),
}


@pytest.mark.parametrize(
    ("options", "a", "b"),
    [
        (Options(), [[1, 0], [1, 1]], [[0, 1, 1, 1]]),
        (Options(scope="global"), [[1, 1], [1, 1]], [[0, 0, 1, 1]]),
    ],
)
def test_the_smallest_leave_by_layer_or_of_all(options: Options, a: Any, b: Any) -> None:
    """A share of 0.3: of each four int(1.2) = 1, of all eight int(2.4) = 2; of equals the first."""
    masks = choose_alive(LAYOUT, WEIGHTS, options, 0.3, {})
    assert masks["a"].int().tolist() == a
    assert masks["b"].int().tolist() == b


def test_a_dead_weight_returns_or_stays_dead() -> None:
    """The largest was dead: at 0.5 two of four leave, it among them unless it may return."""
    before = {"a": torch.tensor([[False, True], [True, True]])}
    values = {"a": WEIGHTS["a"]}
    back = choose_alive(LAYOUT, values, Options(), 0.5, before)["a"]
    assert back.tolist() == [[True, False], [False, True]]
    gone = choose_alive(LAYOUT, values, Options(regrow=False), 0.5, before)["a"]
    assert gone.tolist() == [[False, False], [True, True]]


class Client:
    """As much of a client's context as training needs: a change as given, and a codec."""

    def __init__(self, options: Options, codec: str, layout: Layout, client: int = 0) -> None:
        self.options, self.codec, self.client = options, codec, client
        self.local, self.task, self.torch_device = LocalConfig(), Task(client, TRAIN), "cpu"
        self.mask: dict[str, Tensor] = {}
        self.job = SimpleNamespace(mask={})
        self.site = SimpleNamespace(layout=layout)
        self.is_upload_exact = codec == "sparse"
        self.change: dict[str, Tensor] = {}
        self.memory: dict[str, Tensor] = {}
        self.round, self.remembered = 1, 0

    def batches(self, epoch: int, *, samples: None) -> Any:
        return iter(())

    def result(self, model: nn.Module, fitted: Fitted) -> Work:
        return Work(self.change, metrics={"loss": 0.0})

    def commit(self, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return carry_blocks(self.codec, delta, self.job.mask, rng=stream(0, "up", self.round))

    def recall(self, name: str, *, since: int = 0) -> dict[str, Tensor]:
        return self.memory if self.remembered >= since else {}

    def remember(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.memory, self.remembered = tensors, self.round

    def send(self, change: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the server reads of a change."""
        self.change, self.job = dict(change), SimpleNamespace(mask=mask)
        work = Gwep().train(self, nn.Linear(1, 1))  # type: ignore[arg-type]
        return self.commit(work.values)


ROW = Layout({"w": TensorSpec((1, 3), True, 1.0)}, {})
UPDATES = [[1, 0.25, -0.125], [0.125, 0.5, -0.0625], [0.25, 0.0625, -0.3125]]


def test_error_feedback_by_hand() -> None:
    """Two bits: -1, 0 and 1 times the largest; half of it goes away from zero."""
    client = Client(Options(), "int2", ROW)
    wanted = [
        ([1, 0, 0], [0, 0.25, -0.125]),
        ([0, 0.75, 0], [0.125, 0, -0.1875]),
        ([0.5, 0, -0.5], [-0.125, 0.0625, 0]),
    ]
    for update, (sent, memory) in zip(UPDATES, wanted, strict=True):
        assert client.send({"w": torch.tensor([update])}, {})["w"].tolist() == [sent]
        assert client.memory["w"].tolist() == [memory]


def test_norms_are_compared() -> None:
    """5 to 10 over all tensors; and nothing to nothing."""
    part = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0, 0.0]])}
    assert compare_norms(part, {"a": torch.tensor([6.0, 8.0])}) == pytest.approx(0.5)
    assert compare_norms(part, {"a": torch.zeros(2)}) == 0.0


def test_without_error_feedback_nothing_is_remembered() -> None:
    client = Client(Options(error_feedback=False), "int2", ROW)
    sent = [client.send({"w": torch.tensor([update])}, {})["w"].tolist() for update in UPDATES]
    assert sent == [[[1, 0, 0]], [[0, 0.5, 0]], [[0.3125, 0, -0.3125]]]
    assert client.memory == {}


@pytest.mark.parametrize(
    ("rule", "memory", "later"),
    [("drop", [0, 0, -0.1875], [0.0, -0.1875]), ("hold", [0, 0.25, -0.1875], [0.25, -0.1875])],
)
def test_the_memory_of_a_weight_that_dies(
    rule: Any, memory: list[float], later: list[float]
) -> None:
    """Round 1 as above; then the middle one is dead; then it is alive and does not change."""
    client = Client(Options(ef_on_pruned=rule), "int2", ROW)
    client.send({"w": torch.tensor([UPDATES[0]])}, {})
    mask = {"w": torch.tensor([[True, False, True]])}
    sent = client.send({"w": torch.tensor([[1.0, 0.0, -0.0625]])}, mask)
    assert sent["w"].tolist() == [[1, 0, 0]]
    assert client.memory["w"].tolist() == [memory]
    client.send({"w": torch.tensor([[1.0, 0.0, 0.0]])}, {})
    assert client.memory["w"].tolist() == [[0.0, *later]]


def test_an_old_memory_is_forgotten() -> None:
    client = Client(Options(ef_max_age=2), "int2", ROW)
    client.send({"w": torch.tensor([UPDATES[0]])}, {})
    for number, memory in ((3, [0, 0.25, -0.125]), (6, [0, 0, 0])):
        client.round = number
        client.send({"w": torch.tensor([[1.0, 0.0, 0.0]])}, {})
        assert client.memory["w"].tolist() == [memory]


@pytest.mark.parametrize("codec", ["int2", "int5", "int4-stochastic"])
def test_what_is_sent_and_remembered_is_all_that_changed(codec: str) -> None:
    client, rng = Client(Options(), codec, ROW), torch.Generator().manual_seed(0)
    changed, sent = torch.zeros(1, 3), torch.zeros(1, 3)
    for number in range(1, 30):
        client.round = number
        change = torch.randn(1, 3, generator=rng)
        changed += change
        sent += client.send({"w": change}, {})["w"]
    torch.testing.assert_close(sent + client.memory["w"], changed, rtol=1e-5, atol=1e-5)


def play_by_hand(
    options: Options,
    values: Tensor,
    gradients: Sequence[Callable[[Tensor], Tensor]],
    *,
    down: str,
    up: str,
    lr: float,
    counts: Sequence[int],
    number: int = 1,
) -> tuple[list[ServerState], list[Client]]:
    """Play rounds with one step of plain SGD on every client, ``[1, d]`` weights and no bias."""
    layout = Layout({"w": TensorSpec(tuple(values.shape), True, 1.0)}, {})
    clients = [Client(options, up, layout, client) for client in range(len(counts))]
    method, states = Gwep(), [ServerState(0, {"w": values}, Support())]
    for at in range(1, number + 1):
        state = states[-1]
        ctx = round_context(
            options, layout, len(counts), round=at, rounds=number, num_examples=counts,
            down_codec=down,
        )  # fmt: skip
        answers = []
        for ask, client, gradient in zip(method.plan(ctx, state), clients, gradients, strict=True):
            masks = dict(ask.support.mask)
            start = carry_blocks(down, ask.support.gather(layout, state.values), masks)["w"]
            step = -lr * gradient(start)
            change = torch.where(masks["w"], step, 0.0) if masks else step
            client.round = at
            work = Work(client.send({"w": change}, masks), metrics={"loss": 0.0})
            times = Timing(0.0, 0.0, 0.0)
            num = counts[client.client]
            answers.append(Answer(ask, work, ask.support, num, Traffic(0, 0), times, 0.0))
        states.append(replace(method.aggregate(ctx, state, answers), round=at))
    return states, clients


START = torch.tensor([[0.5, -0.1, 0.3, -0.7]])


def test_one_round_by_hand() -> None:
    """Integers of 4 bits 5 -1 3 -7 go down with scale 0.7, of which the outer two live.

    Up by 3 bits: (0.1, 0.4) as 1 3 with scale 0.4, (-0.12, 0.2) as -2 3 with scale 0.2. The mean
    of (0.1333, 0.4) and (-0.1333, 0.2) by 3 to 1 is (0.066667, 0.35).
    """
    options = Options(0.5, 0.5, prune_start=0, prune_steps=1)
    ways = [torch.tensor([[0.2, 9, 9, 0.8]]), torch.tensor([[-0.24, 9, 9, 0.4]])]
    gradients = [lambda start: ways[0], lambda start: ways[1]]
    (_, state), clients = play_by_hand(
        options, START, gradients, down="int4", up="int3", lr=0.5, counts=(30, 10)
    )
    assert state.support.mask["w"].tolist() == [[True, False, False, True]]
    new = torch.tensor([[0.433333, -0.1, 0.3, -1.05]])
    torch.testing.assert_close(state.values["w"], new, rtol=0, atol=1e-6)
    memories = [torch.tensor([[1 / 30, 0, 0, 0]]), torch.tensor([[-0.2 / 15, 0, 0, 0]])]
    for client, memory in zip(clients, memories, strict=True):  # changes are minus u
        torch.testing.assert_close(client.memory["w"], memory, rtol=0, atol=1e-6)


def test_a_master_that_is_rounded() -> None:
    """(0.4333, -0.1, 0.3, -1.05) with scale 1.05 in 4 bits: 3 -1 2 -7, each times 0.15."""
    options = Options(0.5, 0.5, prune_start=0, prune_steps=1, master="quantised")
    ways = [torch.tensor([[0.2, 9, 9, 0.8]]), torch.tensor([[-0.24, 9, 9, 0.4]])]
    gradients = [lambda start: ways[0], lambda start: ways[1]]
    (_, state), _ = play_by_hand(
        options, START, gradients, down="int4", up="int3", lr=0.5, counts=(30, 10)
    )
    wanted = torch.tensor([[0.45, -0.15, 0.3, -1.05]])
    torch.testing.assert_close(state.values["w"], wanted, rtol=0, atol=1e-6)


def play_blocked(number: int, **changes: Any) -> list[float]:
    """Return x_1 after each round of two clients with 10 x_0 + (x_1 - 1.1)^2 / 2 and -10 x_0 + ...;
    the large gradients are opposed, and by two bits hide the small ones."""
    gradients = [
        lambda start, sign=sign: torch.tensor([[sign, float(start[0, 1]) - 1.1]])
        for sign in (10.0, -10.0)
    ]
    states, _ = play_by_hand(
        Options(0.0, **changes), torch.zeros(1, 2), gradients, down="sparse", up="int2", lr=0.1,
        counts=(10, 10), number=number,
    )  # fmt: skip
    return [float(state.values["w"][0, 1]) for state in states[1:]]


def test_large_gradients_that_are_opposed_block_nothing_with_error_feedback() -> None:
    """The memory of x_1 is 0.11, 0.22, 0.33, 0.44; 0.55 is more than half of the scale, 1."""
    assert play_blocked(50, error_feedback=False) == [0.0] * 50
    path = play_blocked(1000)
    assert path[:5] == pytest.approx([0, 0, 0, 0, 1], abs=1e-6)
    assert sum(path) / len(path) == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize(("bits", "size"), [(4, 99_605), (8, 199_210)])
def test_bytes_of_a_dense_model(bits: int, size: int) -> None:
    parts = lookup("codecs", f"int{bits}")().encode("w", torch.ones(1, 199_210), None, False)
    assert {name: part.nbytes for name, part in parts.items()} == {"w": size, "w#scale": 4}


def test_bytes_at_90_percent() -> None:
    """19,921 alive weights in 4 bits, and one bit for each of 199,210 in random order."""
    layout = Layout({"w": TensorSpec((1, 199_210), True, 1.0)}, {})
    values = torch.randperm(199_210, generator=torch.Generator().manual_seed(0)).float()[None] + 1
    (mask,) = choose_alive(layout, {"w": values}, Options(), 0.9, {}).values()
    assert int(mask.sum()) == 19_921
    parts = lookup("codecs", "int4")().encode("w", values, mask, False)
    assert {name: part.nbytes for name, part in parts.items()} == {
        "w": 9_961, "w#scale": 4, "w#bitmap": 24_902,
    }  # fmt: skip


def play(
    tmp_path: Path, method: str = "gwep", **changes: Any
) -> tuple[Setup, list[ServerState], list[RoundRecord]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    pairs = list(rounds(setup))
    return setup, [state for state, _ in pairs], [record for _, record in pairs]


@pytest.mark.parametrize("feedback", [True, False])
def test_with_32_bits_and_no_pruning_it_is_fedavg_bit_for_bit(
    feedback: bool, tmp_path: Path
) -> None:
    changes = {"method__final_sparsity": 0.0, "method__error_feedback": feedback}
    _, ours, records = play(tmp_path / "a", wire__codec="sparse", **changes)
    _, plain, others = play(tmp_path / "b", "fedavg", wire__codec="sparse")
    for name, value in plain[-1].values.items():
        assert torch.equal(ours[-1].values[name], value)
    assert ours[-1].support.mask == {}
    assert [r.up_bytes for r in records] == [r.up_bytes for r in others]
    assert [r.evaluation.test for r in records if r.evaluation] == [
        r.evaluation.test for r in others if r.evaluation
    ]


def test_with_32_bits_it_is_fedavg_of_what_is_alive_bit_for_bit(tmp_path: Path) -> None:
    """Error feedback changes nothing then; a round is one of FedAvg on the round's mask."""
    ends = {}
    for feedback in (True, False):
        flags = {"method__error_feedback": feedback, "wire__codec": "sparse", **SHARP}
        setup, states, _ = play(tmp_path / str(feedback), **flags)
        ends[feedback] = states[-1].values
    assert all(torch.equal(ends[True][name], ends[False][name]) for name in ends[True])
    state = states[-2]
    plain = prepare_run(toy_recipe("fedavg", wire__codec="sparse"), tmp_path / "plain")
    mask = foresee(setup.fed, state, 3)[0].support
    asks = [Ask(client, support=mask) for client in range(4)]
    answers = exchange(plain.fed, state, asks, Inline(plain.site), round=3).answers
    merged = plain.fed.method.aggregate(
        plain.fed.context(3, "round", lambda *_, **__: None), state, answers
    )
    for name, value in merged.values.items():
        assert torch.equal(states[-1].values[name], value)


def test_every_layer_loses_its_share_and_dead_weights_keep_their_values(tmp_path: Path) -> None:
    setup, states, records = play(tmp_path, **SHARP, wire__codec="int8")
    options: Options = setup.fed.options
    names = list_masked_weights(setup.fed.layout)
    for state, record in zip(states[1:], records[1:], strict=True):
        target = options.find_target(state.round - 1, 3)
        assert record.notes["target_sparsity"] == target > 0
        for name in names:
            mask = state.support.mask[name]
            assert int((~mask).sum()) == int(target * mask.numel() + 1e-9)
            assert record.notes["density"][name] == int(mask.sum()) / mask.numel()
    for before, after in pairwise(states[1:]):
        for name in names:
            dead = ~after.support.mask[name]
            assert torch.equal(after.values[name][dead], before.values[name][dead])
            assert after.values[name][dead].any()
    assert len({digest_masks(ask.support.mask) for ask in foresee(setup.fed, states[1], 3)}) == 1


def test_nothing_returns_unless_it_may(tmp_path: Path) -> None:
    """And clients need no mask in rounds without a step of the schedule."""
    flags = {**SHARP, "method__regrow": False, "rounds": 5}
    setup, states, records = play(tmp_path, **flags, wire__codec="int8")
    for before, after in pairwise(states[1:]):
        assert after.support.is_within(setup.fed.layout, before.support)
    assert records[2].down_bytes > records[3].down_bytes == records[4].down_bytes


@pytest.mark.parametrize("what", ["quantised", "float32"])
def test_what_is_judged_is_what_clients_read(what: str, tmp_path: Path) -> None:
    """At most seven levels per tensor by three bits, 0 where it is dead; or the server's own."""
    flags = {**SHARP, "method__eval": what, "wire__codec": "int3"}
    setup, states, _ = play(tmp_path, **flags)
    state = states[-1]
    judged = setup.fed.read_judged(state)
    for name, mask in state.support.mask.items():
        if what == "float32":
            assert torch.equal(judged[name], state.values[name])
            continue
        assert len(judged[name].unique()) <= 7 < len(state.values[name].unique())
        assert not judged[name][~mask].any()
        half = state.values[name][mask].abs().max() / 6
        assert (judged[name] - state.values[name])[mask].abs().max() <= half * (1 + 1e-6)


def test_what_rounding_takes_is_logged(tmp_path: Path) -> None:
    """Of the model for every round, and of the changes for every client that remembers it."""
    for codec, is_rounded in (("int4", True), ("sparse", False)):
        setup, states, records = play(tmp_path / codec, **SHARP, wire__codec=codec)
        support, layout = states[-1].support, setup.fed.layout.parameters
        block = support.gather(layout, states[-1].values)
        read = support.gather(layout, setup.fed.read_judged(states[-1]))
        wanted = compare_norms({name: read[name] - x for name, x in block.items()}, block)
        assert records[-1].notes["rounding"] == pytest.approx(wanted)
        assert (wanted > 0) == is_rounded
        for client in records[-1].clients:
            assert ("residual" in client.notes) == is_rounded
            assert not is_rounded or 0 < client.notes["residual"] < 1


def test_bits_are_those_of_the_wire(tmp_path: Path) -> None:
    """Of 8 and of 4 bits per weight, each way by itself; nothing else changes in length."""
    flags = {"rounds": 1, "method__final_sparsity": 0.0}
    setup, _, ((long),) = play(tmp_path / "8", **flags)
    _, _, ((up),) = play(tmp_path / "4", **flags, wire__up="int4")
    _, _, ((down),) = play(tmp_path / "d", **flags, wire__down="int4")
    shapes = [s.shape for s in setup.fed.layout.tensors.values() if len(s.shape) > 1]
    saved = sum(torch.Size(shape).numel() for shape in shapes) / 2 * 4
    assert long.up_bytes - up.up_bytes == pytest.approx(saved, abs=4 * 64)
    assert long.down_bytes - down.down_bytes == pytest.approx(saved, abs=4 * 64)
    assert down.up_bytes == pytest.approx(long.up_bytes, abs=64)
