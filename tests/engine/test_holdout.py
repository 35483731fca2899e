"""Samples that a client holds out: never trained on, the same in every round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine.client import ClientContext
from fpcli.engine.holdout import hold_out
from fpcli.run.setup import prepare


@pytest.fixture
def client(tmp_path: Path) -> ClientContext:
    setup = prepare(toy_recipe("fedavg"), tmp_path)
    return ClientContext(
        site=setup.site, client=1, round=1, op="train", options=None, local=setup.fed.local,
        note={}, device=setup.fed.fleet.at(1, 1), received=setup.values, mask={},
    )  # fmt: skip


def test_the_parts_are_whole_together_and_the_same_in_every_round(client: ClientContext) -> None:
    part = client.site.parts[1]
    learner, held = hold_out(client, 0.25, "test")
    assert len(held) == round(0.25 * len(part))
    assert learner.num_examples + len(held) == len(part)
    assert torch.isin(learner.site.parts[1], part).all()
    kept = client.site.dataset.train.take(learner.site.parts[1]).images
    assert not any((kept == image).flatten(1).all(1).any() for image in held.images)
    later, again = hold_out(replace(client, round=9), 0.25, "test")
    assert torch.equal(held.images, again.images)
    assert torch.equal(learner.site.parts[1], later.site.parts[1])
    _, other = hold_out(client, 0.25, "another")
    assert not torch.equal(held.images, other.images)


@pytest.mark.parametrize(("num", "num_held"), [(1, 1), (2, 1), (3, 1), (40, 4)])
def test_at_least_one_sample_is_held_out_and_one_is_left(
    num: int, num_held: int, client: ClientContext
) -> None:
    """A single sample is both trained on and judged by."""
    part = client.site.parts[1][:num]
    site = replace(client.site, indices=part, sizes=(0, num, 0, 0))
    learner, held = hold_out(replace(client, site=site), 0.1, "test")
    assert len(held) == num_held
    assert learner.num_examples == max(num - num_held, 1)
