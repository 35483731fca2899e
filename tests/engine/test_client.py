from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import toy_recipe
from contexts import context
from replies import put_together, take_apart
from torch import Tensor, nn

from fpcli.engine.client import perform
from fpcli.engine.exchange import make_job
from fpcli.engine.planning import foresee
from fpcli.engine.site import Site
from fpcli.engine.types import LARGEST, Fitted, ServerState
from fpcli.errors import DivergedError, WireError
from fpcli.models.build import build
from fpcli.structure.support import Support
from fpcli.tasks.classify import Classify
from fpcli.train.setup import Setup, prepare_run
from fpcli.wire.message import Job, Reply, pack_job, unpack_reply

METHODS = ["fedavg", "fedmp", "toys:Masked", "toys:Personal"]


def toy(home: Path, method: str = "fedavg", **changes: Any) -> Setup:
    return prepare_run(toy_recipe(method, **changes), home)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return toy(tmp_path_factory.mktemp("home"))


def job(setup: Setup, client: int = 1, round: int = 1, **changes: Any) -> Job:
    """Return the job of a client in a round before which nothing was trained, as its method plans
    it; what changes is a field of the header, or ``values``."""
    fed = setup.fed
    ctx = fed.context(round, "round", lambda *_, **__: None)
    state = fed.method.begin(ctx, ServerState(0, setup.values, Support()))
    made = make_job(fed, state, foresee(fed, state, round)[client], round)
    return changed(made, **changes)


def changed(made: Job, **changes: Any) -> Job:
    values = changes.pop("values", made.values)
    return replace(made, header=replace(made.header, **changes), values=values)


def read(data: bytes, asked: Job) -> Reply:
    shapes = {name: tuple(value.shape) for name, value in asked.values.items()}
    op = asked.header.op
    return unpack_reply(data, op=op, shapes=shapes, mask=asked.mask, limit_bytes=1 << 24)


def without_seconds(data: bytes) -> bytes:
    message = take_apart(data)
    message.header["real_s"] = "0" * 16
    return put_together(message)


@pytest.mark.parametrize("method", METHODS)
def test_a_reply_depends_on_job_and_site_alone(method: str, tmp_path: Path) -> None:
    """Repeat a job, on the same site, on one built anew, and after other jobs and random draws."""
    setup = toy(tmp_path / "a", method)
    data = pack_job(job(setup))
    first = perform(data, setup.site)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    torch.rand(7)
    assert without_seconds(perform(data, setup.site)) == without_seconds(first)
    perform(pack_job(job(setup, client=3)), setup.site)
    assert without_seconds(perform(data, setup.site)) == without_seconds(first)
    again = toy(tmp_path / "b", method)
    assert without_seconds(perform(data, again.site)) == without_seconds(first)
    assert len(perform(data, setup.site)) == len(first), "seconds do not change the traffic"


@pytest.mark.parametrize("op", ["train", "evaluate", "labels"])
def test_the_caller_s_random_numbers_are_left_alone(op: str, tmp_path: Path) -> None:
    method = {"train": "fedavg", "evaluate": "toys:Personal", "labels": "toys:Asking"}[op]
    setup = toy(tmp_path, method)
    data = pack_job(job(setup, op=op))
    perform(data, setup.site)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before: list[Any] = [torch.get_rng_state(), random.getstate(), repr(np.random.get_state())]
    reply = perform(data, setup.site)
    after: list[Any] = [torch.get_rng_state(), random.getstate(), repr(np.random.get_state())]
    assert read(reply, job(setup, op=op)).error == ""
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def deltas(setup: Setup, **changes: Any) -> dict[str, Tensor]:
    asked = job(setup, **changes)
    reply = read(perform(pack_job(asked), setup.site), asked)
    assert reply.error == ""
    return dict(reply.work.values)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_dropout_is_drawn_by_seed_round_and_client(plain: Setup) -> None:
    """Compare models whose order of samples is fixed: only dropout remains to differ."""
    one_batch = replace(plain.fed.local, batch_size=10_000)
    first = deltas(plain, local=one_batch)
    assert same(first, deltas(plain, local=one_batch))
    later = deltas(plain, local=one_batch, round=2)
    assert not same(first, later)
    assert not torch.allclose(first["out.weight"], later["out.weight"], atol=1e-5), "not rounding"
    other_seed = replace(plain.site, seed=8)
    asked = job(plain, local=one_batch)
    assert not same(first, dict(read(perform(pack_job(asked), other_seed), asked).work.values))


def test_without_dropout_a_whole_batch_does_not_depend_on_the_round(plain: Setup) -> None:
    site = replace(plain.site)
    site.template.get_submodule("drop").p = 0.0  # type: ignore[assignment]
    one_batch = replace(plain.fed.local, batch_size=10_000)
    replies = []
    for round in (1, 2):
        asked = job(plain, local=one_batch, round=round)
        replies.append(read(perform(pack_job(asked), site), asked).work.values)
    for name, value in replies[0].items():
        assert torch.allclose(value, replies[1][name], atol=1e-5)


@pytest.mark.parametrize("client", [0, 1, 2, 3])
def test_batch_norm_buffers_travel(plain: Setup, client: int) -> None:
    """Recompute the running statistics of a client's single batch.

    They start at mean 0 and variance 1 and move by the default momentum of 0.1 towards those of
    the layer's input, the stem's output.
    """
    whole = replace(plain.fed.local, batch_size=10_000)
    delta = deltas(plain, client=client, local=whole)
    task = plain.recipe.task
    net = build(task.model, plain.fed.dataset.input_shape, Classify(10), seed=7, allow_code=True)
    split = plain.fed.dataset.train.take(plain.parts[client])
    hidden = net.get_submodule("stem")(plain.fed.dataset.normalise(split.images)).detach()
    mean, var = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3))
    assert torch.allclose(delta["norm.running_mean"], 0.1 * mean, atol=1e-6)
    assert torch.allclose(delta["norm.running_var"], 0.1 * (var - 1.0), atol=1e-5)
    assert "norm.num_batches_tracked" not in delta, "integers stay where they are"


def test_received_buffers_are_where_statistics_start(plain: Setup) -> None:
    values = dict(job(plain).values) | {"norm.running_mean": torch.full((8,), 1000.0)}
    one_batch = replace(plain.fed.local, batch_size=10_000)
    moved = deltas(plain, values=values, local=one_batch)["norm.running_mean"]
    assert torch.allclose(moved, torch.full((8,), -100.0), atol=1.0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 10 * LARGEST, -10 * LARGEST])
@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_a_result_that_is_not_finite(plain: Setup, value: float, name: str) -> None:
    norm = nn.BatchNorm2d(2)
    received = {
        key: tensor.detach().clone()
        for key, tensor in norm.state_dict().items()
        if tensor.is_floating_point()
    }
    cx = context(plain.site, received)
    assert float(cx.result(norm, Fitted(0.0, 1, 1)).values[name].abs().sum()) == 0.0
    with torch.no_grad():
        norm.state_dict()[name][1] = value
    with pytest.raises(DivergedError, match=f"`{name}` is not finite"):
        cx.result(norm, Fitted(0.0, 1, 1))


@pytest.mark.parametrize(
    ("method", "changes", "error"),
    [
        ("fedavg", {"client": 99}, "failed: IndexError"),
        ("fedavg", {"op": "nothing"}, "failed: NotImplementedError"),
        ("fedavg", {"values": {"stem.weight": torch.zeros(2, 2)}}, "failed: tensor"),
        ("faults:Broken", {}, "diverged: `norm.running_mean`"),
        ("faults:Unsendable", {}, "failed: "),
    ],
)
def test_a_job_that_fails_is_answered(
    tmp_path: Path, method: str, changes: dict[str, Any], error: str
) -> None:
    setup = toy(tmp_path, method)
    asked = changed(job(setup), **changes)
    reply = read(perform(pack_job(asked), setup.site), asked)
    assert reply.error.startswith(error)
    assert reply.work.values == {}
    assert reply.envelope == asked.header.envelope


def test_a_job_of_another_run_is_not_done(plain: Setup) -> None:
    with pytest.raises(WireError, match="a job of another run"):
        perform(pack_job(job(plain, run="0" * 64)), plain.site)
    with pytest.raises(WireError):
        perform(b"no job", plain.site)
    small: Site = replace(plain.site, limit_bytes=1000)
    with pytest.raises(WireError):
        perform(pack_job(job(plain)), small)


def test_batches_are_drawn_by_epoch_round_and_client(plain: Setup) -> None:
    def labels(client: int, round: int, epoch: int) -> list[int]:
        cx = context(plain.site, client=client, round=round)
        return [int(y) for _, batch in cx.batches(epoch) for y in batch]

    first = labels(1, 1, 0)
    assert labels(1, 1, 0) == first
    for other in (labels(1, 2, 0), labels(1, 1, 1)):
        assert other != first
        assert sorted(other) == sorted(first)
    assert sorted(first) == sorted(plain.fed.dataset.train.labels[plain.parts[1]].tolist())
    assert len(labels(2, 1, 0)) == plain.fed.num_examples[2]


def test_augmentation_is_drawn_by_epoch_and_for_training_only(plain: Setup) -> None:
    cropping: Site = replace(plain.site, augment="crop")

    def first(site: Site, epoch: int = 0, **more: bool) -> Tensor:
        return next(iter(context(site).batches(epoch, **more)))[0]

    assert first(cropping).equal(first(cropping))
    assert not first(cropping).equal(first(plain.site))
    assert first(cropping, is_augmented=False).equal(first(plain.site))


def test_an_augmented_job_can_be_repeated(plain: Setup) -> None:
    setup = replace(plain, site=replace(plain.site, augment="crop-flip"))
    first = deltas(setup)
    torch.rand(7)
    assert same(first, deltas(setup))
    assert not same(first, deltas(plain))
