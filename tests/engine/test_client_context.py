"""What a client knows of its task, the samples it holds out, and what it says it has done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import toy_recipe
from contexts import context
from torch import nn

from fpcli.engine.client_context import ClientContext
from fpcli.engine.fit import fit
from fpcli.engine.site import Site
from fpcli.engine.types import Fitted, LocalConfig
from fpcli.fleet.clock import train_seconds
from fpcli.structure.cost import count_cost
from fpcli.structure.support import Support
from fpcli.tasks.classify import cross_entropy
from fpcli.train.setup import prepare_run
from fpcli.wire.headers import JobHeader, Task
from fpcli.wire.message import Job


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return prepare_run(toy_recipe("fedavg"), tmp_path).site


def linear() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    with torch.no_grad():
        model.get_parameter("1.weight").zero_()
    return model


def test_a_client_sees_all_of_its_task(site: Site) -> None:
    local = LocalConfig(epochs=3, lr=0.25)
    header = JobHeader(
        2, "labels", local=local, note={"x": 1}, max_steps=5, method="m", round=4, run=site.run,
        codec="dense",
    )  # fmt: skip
    received = {"w": torch.ones(2)}
    cx = ClientContext(site, Job(header, received, {"w": torch.tensor([True, False])}))
    assert isinstance(cx.task, Task)
    assert (cx.task.client, cx.task.op, cx.task.max_steps) == (2, "labels", 5)
    assert (cx.client, cx.round, cx.local, cx.note) == (2, 4, local, {"x": 1})
    assert (cx.options, cx.received) == (site.options, received)
    assert cx.mask["w"].tolist() == [True, False]
    assert cx.device == site.fleet.at(4, 2)
    assert torch.equal(cx.samples, site.parts[2])
    assert cx.num_examples == len(site.parts[2])
    labels = site.dataset.train.labels[site.parts[2]]
    assert cx.own_classes.nonzero().flatten().tolist() == labels.unique().tolist()


def test_seconds_of_training_by_hand(site: Site) -> None:
    """100 samples at 3 forward passes of 2 operations for each of the model's multiply-adds."""
    cx, macs = context(site), count_cost(site.layout, Support()).macs
    assert macs == 10872
    seconds = cx.train_seconds(100, Support())
    assert seconds == 3.0 * (2.0 * 10872 * 100 / cx.device.flops_per_s)
    assert seconds == train_seconds(macs, 100, cx.device)


def test_only_some_samples_are_trained_on(site: Site) -> None:
    """Two epochs of 30 samples in batches of 20 are 4 steps; the batches have no other sample."""
    cx = context(site, local=LocalConfig(epochs=2, batch_size=20))
    chosen = cx.samples[5:35]
    seen: list[torch.Tensor] = []

    def loss(
        cx: ClientContext, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        seen.append(batch[0])
        return cross_entropy(model, batch)

    fitted = fit(linear(), cx, loss, samples=chosen)
    assert (fitted.num_steps, fitted.num_samples) == (4, 60)
    images = site.dataset.normalise(site.dataset.train.images[chosen])
    trained = torch.cat(seen[:2])
    assert sorted(trained.flatten(1).sum(1).tolist()) == pytest.approx(
        sorted(images.flatten(1).sum(1).tolist()), abs=1e-4
    )


def test_a_client_may_train_within_less_than_it_received(site: Site) -> None:
    """By default the masks of the job hold; others that are handed over hold in their place."""
    received, other = torch.rand(2, 10, 64) < 0.5
    cx = context(site, mask={"1.weight": received})
    for mask, given in ((received, None), (other, {"1.weight": other})):
        model = linear()
        fit(model, cx, lambda cx, model, batch: cross_entropy(model, batch), mask=given)
        weight = model.get_parameter("1.weight")
        assert not weight[~mask].any()
        assert weight[mask].any()


def test_what_is_uploaded(site: Site) -> None:
    """The change of every tensor that was received, and what else the method has to say."""
    model, one = linear(), torch.ones(10, 64)
    cx = context(site, {"1.weight": -2 * one})
    bits, stay = {"1.weight": one.bool()}, {"g": torch.tensor([True, False])}
    plain = cx.result(model, Fitted(0.5, 7, 70))
    assert plain.values["1.weight"].equal(2 * one)
    assert (plain.mask, plain.stay, plain.stats) == (None, {}, {})
    assert (plain.metrics, plain.num_steps) == ({"loss": 0.5}, 7)
    more = cx.result(
        model, Fitted(0.5, 7, 70), mask=bits, stay=stay, stats={"s": one}, metrics={"kept": 1.0}
    )
    assert (more.mask, more.stay, more.stats) == (bits, stay, {"s": one})
    assert more.metrics == {"loss": 0.5, "kept": 1.0}


def test_the_parts_are_whole_together_and_the_same_in_every_round(site: Site) -> None:
    cx = context(site)
    rest, held = cx.hold_out(0.25, "test")
    assert len(held) == round(0.25 * len(cx.samples))
    assert len(rest) + len(held) == len(cx.samples)
    assert torch.isin(rest, cx.samples).all()
    assert torch.equal(rest, rest.sort().values)
    kept = site.dataset.train.take(rest).images
    assert not any((kept == image).flatten(1).all(1).any() for image in held.images)
    later, again = context(site, round=9).hold_out(0.25, "test")
    assert torch.equal(held.images, again.images)
    assert torch.equal(rest, later)
    _, other = cx.hold_out(0.25, "another")
    assert not torch.equal(held.images, other.images)


@pytest.mark.parametrize(("num", "num_held"), [(1, 1), (2, 1), (3, 1), (40, 4)])
def test_at_least_one_sample_is_held_out_and_one_is_left(
    num: int, num_held: int, site: Site
) -> None:
    """A single sample is both trained on and judged by."""
    few = replace(site, indices=site.parts[1][:num], num_examples=(0, num, 0, 0))
    rest, held = context(few).hold_out(0.1, "test")
    assert len(held) == num_held
    assert len(rest) == max(num - num_held, 1)
