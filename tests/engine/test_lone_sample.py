"""A batch of one sample meets batch norm: who, why and what helps is told, and it does help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from nets import normed
from replies import rounds

from fpcli.data.datasets import load_dataset
from fpcli.engine import central
from fpcli.engine.federation import RoundRecord
from fpcli.engine.fit import explain_lone_sample
from fpcli.errors import ClientError, DataError
from fpcli.settings.learning import FitConfig
from fpcli.train.setup import Setup, prepare_run

TABLE = {"task__data": "breast-cancer", "task__model": "nets:normed", "rounds": 1}
HARD = ("fedavg", "heterofl", "prunefl", "subfedavg")
"""Training, statistics of batch norm, pruning before the first round, and held-out samples."""


def table(tmp_path: Path, method: str, **changes: Any) -> Setup:
    quick = {"method__ip_passes": 1, "method__ip_batches": 1} if method == "prunefl" else {}
    epochs = {"local__epochs": 2} if method == "subfedavg" else {}
    return prepare_run(toy_recipe(method, **TABLE | quick | epochs | changes), tmp_path / "memory")


def shortened(setup: Setup, num: int, clients: Sequence[int] = (1,)) -> Setup:
    """Return the federation with only ``num`` samples at each of some clients."""
    site = setup.site
    parts = [part[:num] if c in clients else part for c, part in enumerate(site.parts)]
    sizes = tuple(map(len, parts))
    return replace(
        setup,
        fed=replace(setup.fed, num_examples=sizes),
        site=replace(site, indices=torch.cat(parts), num_examples=sizes),
    )


@pytest.mark.parametrize("method", HARD)
def test_batch_size_one_names_the_client_and_a_remedy_that_helps(
    method: str, tmp_path: Path
) -> None:

    def first(**changes: Any) -> RoundRecord:
        return next(rounds(shortened(table(tmp_path, method, **changes), 6, range(4))))[1]

    text = r"client \d: failed: batch norm cannot train on a batch of one sample"
    with pytest.raises(ClientError, match=text) as caught:
        first(local__batch_size=1)
    assert "(local.batch_size 1, 6 training samples)" in caught.value.message
    assert "(set local.batch_size to 2 or more, or take group norm: " in caught.value.message
    assert first(local__batch_size=2).refusals == ()
    assert first(local__batch_size=1, task__model="nets:grouped").refusals == ()


@pytest.mark.parametrize("method", HARD)
def test_a_client_with_one_sample_is_refused_by_name(method: str, tmp_path: Path) -> None:
    """Sub-FedAvg holds one of two samples out, and so trains on one as well."""
    num = 2 if method == "subfedavg" else 1
    setup = shortened(table(tmp_path, method), num)
    _, record = next(rounds(setup))
    assert {refusal.client for refusal in record.refusals} == {1}
    assert {refusal.code for refusal in record.refusals} == {"F408"}
    words = f"{num} training sample{'s' * (num > 1)}) (give it {num + 1} samples or more (task."
    assert all(words in refusal.reason for refusal in record.refusals)
    assert [client.client for client in record.clients] == [0, 2, 3]
    _, whole = next(rounds(shortened(table(tmp_path, method), num + 1)))
    assert whole.refusals == ()
    with_groups = shortened(table(tmp_path, method, task__model="nets:grouped"), num)
    assert next(rounds(with_groups))[1].refusals == ()


def test_plain_training_says_so_too() -> None:
    dataset = load_dataset("breast-cancer", None, validation_fraction=0.1, seed=0, allow_code=False)
    model = normed(dataset.input_shape, dataset.num_classes)
    with pytest.raises(DataError, match=r"one sample \(batch_size 1, 410 training") as caught:
        next(central.train_centrally(model, dataset, FitConfig(batch_size=1), seed=0))
    assert caught.value.hint.startswith("set batch_size to 2 or more, ")
    one = dataset.train.take(torch.tensor([3]))
    with pytest.raises(DataError, match=r"\(batch_size 8, 1 training sample\)") as caught:
        next(central.train_centrally(model, dataset, FitConfig(batch_size=8), seed=0, split=one))
    assert caught.value.hint.startswith("give it 2 samples or more, ")


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="another"), explain_lone_sample(1, 1, "batch_size"):
        raise ValueError("another")
