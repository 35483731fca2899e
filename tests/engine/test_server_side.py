"""The server's own samples, its network, and what its work takes; numbers by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import toy_recipe
from faults import Tampering, losing
from nets import tiny
from replies import rounds
from torch import nn
from toys import Asking

from fpcli.data.augment import make_augmenter
from fpcli.data.batches import batches
from fpcli.data.datasets import Dataset, load_dataset
from fpcli.data.set_aside import NO_SAMPLES, set_aside
from fpcli.data.split import Split
from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.fit import fit_epoch
from fpcli.engine.method import Method, Traits
from fpcli.engine.round_context import RoundContext
from fpcli.engine.server_side import Charged, ServerSide, require_server_data
from fpcli.engine.types import Answer, Ask, ServerState
from fpcli.errors import NeedError
from fpcli.fleet.devices import Level
from fpcli.rng import stream
from fpcli.structure.layout import Group, Layout, Member, TensorSpec
from fpcli.structure.shrink import hollow_out
from fpcli.structure.support import Support
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify, cross_entropy
from fpcli.train.setup import Setup, prepare_run

LEVEL = Level(1000.0, 1.0, 1.0, 1, "slide rule")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, seed=0)


def linear() -> ServerSide:
    """Return a server with 4 of 6 samples, 3 classes, and a layer of 3 x 4 weights."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    table = Split(torch.arange(24.0).reshape(6, 4), labels)
    dataset = Dataset(
        "t", table, table, table, Classify(3), 1.0, (0.0,) * 4, (1.0,) * 4, ("a", "b", "c")
    )
    rows = torch.arange(3).reshape(3, 1)
    members = (Member("weight", 0, rows, produces=True), Member("bias", 0, rows, produces=True))
    tensors = {"weight": TensorSpec((3, 4), True, 1.0), "bias": TensorSpec((3,), True, 0.0)}
    return ServerSide(
        layout=Layout(tensors, {"out": Group("out", 3, members)}),
        template=hollow_out(nn.Linear(4, 3)),
        dataset=dataset,
        indices=torch.tensor([0, 2, 3, 4]),
        level=LEVEL,
        seed=5,
    )


def tiny_server(dataset: Dataset, **changes: object) -> tuple[ServerSide, dict[str, torch.Tensor]]:
    """Return a server with a tenth of the digits, and initial values of the toy network."""
    torch.manual_seed(0)
    model = tiny((1, 8, 8), 10)
    values = {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    server = ServerSide(
        layout=trace(model, torch.zeros(1, 1, 8, 8)),
        template=hollow_out(model),
        dataset=dataset,
        indices=set_aside(dataset.train.labels, share=0.1, seed=0),
        level=LEVEL,
        seed=7,
        round=2,
    )
    return replace(server, **changes), values  # type: ignore[arg-type]


def test_seconds_by_hand() -> None:
    """12 multiply-adds are 24 operations; 10 samples at 1,000 per second take 0.24 s, and training
    three times that. With two of three channels it is two thirds."""
    server, two = linear(), Support({"out": torch.tensor([0, 2])})
    assert server.charge(10, passes="forward") == pytest.approx(0.24)
    assert server.charge(10) == pytest.approx(0.72)
    assert server.charge(10, two) == pytest.approx(0.48)
    assert server.charge(30, two, passes="forward", beside=True) == pytest.approx(0.48)
    one_weight = torch.zeros(3, 4, dtype=torch.bool)
    one_weight[1, 2] = True
    masked = Support(mask={"weight": one_weight})
    assert server.charge(500, masked, beside=True) == pytest.approx(3.0)
    assert server.charged.alone_s == pytest.approx(0.24 + 0.72 + 0.48)
    assert server.charged.beside_s == pytest.approx(3.48)


@pytest.mark.parametrize(
    ("alone_s", "beside_s", "clients_s", "round_s"),
    [(0, 0, 7, 7), (2, 0, 7, 9), (2, 5, 7, 9), (2, 9, 7, 11), (0, 9, 0, 9)],
)
def test_a_round_takes_the_longer_of_what_goes_on_side_by_side(
    alone_s: float, beside_s: float, clients_s: float, round_s: float
) -> None:
    assert Charged(alone_s, beside_s).round_seconds(clients_s) == round_s


def test_every_round_starts_at_nothing() -> None:
    server = linear()
    server.charge(10)
    later = server.at(3)
    later.charge(10, beside=True)
    assert (later.round, later.indices) == (3, server.indices)
    assert (later.charged.alone_s, server.charged.beside_s) == (0.0, 0.0)


def test_what_the_server_has() -> None:
    server = linear()
    assert server.num_examples == 4
    assert server.label_counts.tolist() == [1, 2, 1]
    assert server.samples.labels.tolist() == [0, 1, 1, 2]
    assert server.samples.images[:, 0].tolist() == [0.0, 8.0, 12.0, 16.0]


def test_batches_are_those_of_clients(digits: Dataset) -> None:
    server, _ = tiny_server(digits, augment="crop-flip")
    plain = partial(
        batches, digits.train, server.indices, digits.normalise, batch_size=32, channels_last=True
    )
    wanted = plain(
        generator=stream(7, "server/batches/1", 2),
        augment=make_augmenter("crop-flip", stream(7, "server/augment/1", 2)),
    )
    for (x, y), (a, b) in zip(server.batches(1, batch_size=32), wanted, strict=True):
        assert x.equal(a) and y.equal(b)
    still = server.batches(1, batch_size=32, is_augmented=False)
    wanted = plain(generator=stream(7, "server/batches/1", 2))
    for (x, y), (a, b) in zip(still, wanted, strict=True):
        assert x.equal(a) and y.equal(b)


def test_epochs_and_rounds_differ_and_repeat() -> None:
    server = replace(linear(), indices=torch.arange(6).repeat(20))

    def order(server: ServerSide, epoch: int) -> list[float]:
        return torch.cat([x[:, 0] for x, _ in server.batches(epoch, batch_size=50)]).tolist()

    assert order(server, 0) == order(server, 0)
    orders = [order(server.at(round), epoch) for round in (0, 1) for epoch in (0, 1)]
    assert len({tuple(found) for found in orders}) == 4


def test_the_network_is_cut_and_its_tensors_are_copies(digits: Dataset) -> None:
    server, values = tiny_server(digits)
    group = next(iter(server.layout.prunable))
    support = Support({group: torch.tensor([0, 3])})
    block = support.gather(server.layout, values)
    small = server.module(values, support)
    found = small.state_dict()
    assert all(found[name].equal(value) for name, value in block.items())
    assert all(server.module(values).state_dict()[k].equal(v) for k, v in values.items())
    before = {name: value.clone() for name, value in values.items()}
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    passed = fit_epoch(small.train(), optimizer, server.batches(batch_size=65), cross_entropy)
    assert (passed.num_steps, passed.num_samples) == (2, server.num_examples)
    after = small.state_dict()
    assert not any(after[name].equal(block[name]) for name in ("out.weight", "norm.running_mean"))
    assert all(values[name].equal(value) for name, value in before.items())


def test_training_is_the_same_in_every_process(digits: Dataset) -> None:
    """Dropout draws from torch's global generator, whose state does not matter and stays."""

    def trained(salt: int) -> torch.Tensor:
        server, values = tiny_server(digits)
        torch.manual_seed(salt)
        model = server.module(values).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = torch.get_rng_state()
        with server.seeded("train"):
            fit_epoch(model, optimizer, server.batches(batch_size=65), cross_entropy)
        assert torch.get_rng_state().equal(before)
        return model.state_dict()["out.weight"]

    assert trained(1).equal(trained(2))


def test_streams_belong_to_purpose_and_round() -> None:
    server = linear()
    draws = [
        float(torch.rand((), generator=chosen.rng(purpose)))
        for chosen in (server, server.at(1))
        for purpose in ("a", "b")
    ]
    assert len(set(draws)) == 4
    assert float(torch.rand((), generator=server.rng("a"))) == draws[0]
    with server.seeded("a"):
        first = float(torch.rand(()))
    with server.at(1).seeded("a"):
        assert float(torch.rand(())) != first


def test_a_server_without_samples_says_what_to_do() -> None:
    server = replace(linear(), indices=NO_SAMPLES)
    assert server.num_examples == 0
    assert server.label_counts.tolist() == [0, 0, 0]
    assert server.charge(10) == pytest.approx(0.72)
    for need in (lambda: server.samples, lambda: server.batches(batch_size=2)):
        with pytest.raises(NeedError, match="needs training samples on the server"):
            need()


def test_what_a_method_needs_is_checked() -> None:
    require_server_data("method `feddu`", 1)
    with pytest.raises(NeedError, match="method `feddu` needs training samples") as caught:
        require_server_data("method `feddu`", 0)
    assert (caught.value.exit_status, caught.value.where) == (5, "task.server_share")
    assert caught.value.hint.startswith("set task.server_share")


class Schooling(Method):
    """The server looks at 40 of its samples while the clients train, and then trains itself."""

    traits: ClassVar[Traits] = Traits(needs_server_data=True)

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        ctx.server.charge(40, passes="forward", beside=True)
        return super().plan(ctx, state)

    def aggregate(
        self, ctx: RoundContext, state: ServerState, answers: Sequence[Answer]
    ) -> ServerState:
        state = super().aggregate(ctx, state, answers)
        model = ctx.server.module(state.values).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with ctx.server.seeded("school"):
            passed = fit_epoch(model, optimizer, ctx.server.batches(batch_size=32), cross_entropy)
        ctx.server.charge(passed.num_samples)
        trained = model.state_dict()
        values = {name: trained[name].detach() for name in state.values}
        return replace(state, values=values)


class Attentive(Schooling):
    """Looks at so much beside that the clients' work takes no longer."""

    def plan(self, ctx: RoundContext, state: ServerState) -> list[Ask]:
        ctx.server.charge(1e6, passes="forward", beside=True)
        return super().plan(ctx, state)


def school(tmp_path: Path, method: Method, **changes: Any) -> Setup:
    """Return a federation whose server does 10^9 operations per second."""
    quick = {"rounds": 2, "eval_every": 2, "local__batch_size": 512, "task__server_share": 0.1}
    setup = prepare_run(toy_recipe("fedavg", **quick | changes), tmp_path / "memory")
    side = replace(setup.fed.server_side, level=Level(1e9, 1.0, 1.0, 1, "server"))
    return replace(setup, fed=replace(setup.fed, method=method, server_side=side))


def clients_seconds(record: RoundRecord) -> float:
    return max(client.compute_s + client.down_s + client.up_s for client in record.clients)


MACS = 10872
"""Multiply-adds of one sample of the toy network, counted in tests/engine/test_server.py."""


def test_a_server_that_trains_takes_its_time_in_every_round(tmp_path: Path) -> None:
    """Two operations per multiply-add and three passes for training, at 10^9 per second.

    What goes on beside the clients takes 40 * 2 * 10872 / 10^9 = 0.00087 s, less than they do.
    """
    setup = school(tmp_path, Schooling())
    num = setup.fed.server_side.num_examples
    assert num > 100
    alone_s, beside_s = 3 * 2 * MACS * num / 1e9, 2 * MACS * 40 / 1e9
    clock_s = 0.0
    for _, record in rounds(setup):
        assert clients_seconds(record) > beside_s
        assert record.clock_s == pytest.approx(alone_s + clients_seconds(record))
        assert record.notes["server_s"] == pytest.approx(alone_s + beside_s)
        clock_s += record.clock_s
        assert record.totals.clock_s == pytest.approx(clock_s)
    plain = next(rounds(school(tmp_path, Method())))
    assert plain[1].clock_s == clients_seconds(plain[1])
    assert "server_s" not in plain[1].notes


def test_clients_wait_for_what_takes_longer_beside_them(tmp_path: Path) -> None:
    """10^6 and then 40 samples forward take 21.7 s, during which the clients are done."""
    setup = school(tmp_path, Attentive())
    alone_s = 3 * 2 * MACS * setup.fed.server_side.num_examples / 1e9
    beside_s = 2 * MACS * (1e6 + 40) / 1e9
    _, record = next(rounds(setup))
    assert clients_seconds(record) < beside_s
    assert record.clock_s == pytest.approx(alone_s + beside_s)
    assert record.notes["server_s"] == pytest.approx(alone_s + beside_s)


def test_every_attempt_at_a_round_is_charged(tmp_path: Path) -> None:
    """The first attempt fails, so that its plan counts and nothing is merged."""
    setup = school(tmp_path, Attentive(), min_clients=3)
    alone_s = 3 * 2 * MACS * setup.fed.server_side.num_examples / 1e9
    beside_s = 2 * MACS * (1e6 + 40) / 1e9
    _, record = next(rounds(setup, Tampering(setup.site, losing(0, 1, runs=[1]))))
    assert record.attempts == 2
    assert record.clock_s == pytest.approx(alone_s + 2 * beside_s)


def test_what_the_server_learns_is_in_the_model(tmp_path: Path) -> None:
    """The same in two runs, and another model than without the server's training."""
    first, again = (next(rounds(school(tmp_path, Schooling())))[0] for _ in range(2))
    plain, _ = next(rounds(school(tmp_path, Method())))
    assert all(first.values[name].equal(again.values[name]) for name in first.values)
    assert not first.values["out.weight"].equal(plain.values["out.weight"])


def test_work_before_the_first_round_counts(tmp_path: Path) -> None:
    class Early(Method):
        def begin(self, ctx: RoundContext, state: ServerState) -> ServerState:
            ctx.server.charge(1000)
            return state

    setup = school(tmp_path, Early())
    _, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    assert totals.clock_s == pytest.approx(3 * 2 * MACS * 1000 / 1e9)


def test_a_method_that_needs_samples_does_not_start_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asking, "traits", Traits(needs_server_data=True))
    with pytest.raises(NeedError, match="method `toys:Asking` needs training samples") as caught:
        prepare_run(toy_recipe("toys:Asking"), tmp_path)
    assert (caught.value.exit_status, caught.value.where) == (5, "task.server_share")
    assert "task.server_share=0.1" in caught.value.hint
    setup = prepare_run(toy_recipe("toys:Asking", task__server_samples=20), tmp_path)
    assert setup.fed.server_side.num_examples == 20
