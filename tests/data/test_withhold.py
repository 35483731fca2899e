from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fpcli.data.datasets import load_dataset
from fpcli.data.withhold import withhold
from fpcli.errors import DataError, RecipeError
from fpcli.tasks.regress import Regress

DIGITS = load_dataset("digits", None, seed=0)
PARTS = torch.arange(len(DIGITS.train)).tensor_split(3)


def test_nothing_is_withheld_by_default() -> None:
    kept = withhold(DIGITS, PARTS, ())
    assert kept.dataset is DIGITS
    assert (kept.parts, kept.withheld, kept.test) == (PARTS, (), None)


def test_samples_of_the_classes_are_apart() -> None:
    kept = withhold(DIGITS, PARTS, (9, 2))
    for part, rest, gone in zip(PARTS, kept.parts, kept.withheld, strict=True):
        assert torch.cat([rest, gone]).sort().values.tolist() == part.tolist()
        assert set(DIGITS.train.labels[gone].tolist()) == {2, 9}
        assert set(DIGITS.train.labels[rest].tolist()) == set(range(10)) - {2, 9}
    assert kept.test is not None
    assert len(kept.test) + len(kept.dataset.test) == len(DIGITS.test)
    assert set(kept.test.labels.tolist()) == {2, 9}
    for split in (kept.dataset.validation, kept.dataset.test):
        assert set(split.labels.tolist()) == set(range(10)) - {2, 9}
    assert kept.dataset.num_classes == 10


def test_what_has_no_classes_withholds_none() -> None:
    numbers = replace(DIGITS, name="ink", task=Regress())
    assert withhold(numbers, PARTS, ()).dataset is numbers
    with pytest.raises(RecipeError, match="data `ink` has a number to predict") as caught:
        withhold(numbers, PARTS, (0,))
    assert caught.value.where == "task.withhold"


def test_a_client_may_have_nothing_left() -> None:
    sevens = (DIGITS.train.labels == 7).nonzero().flatten()
    others = (DIGITS.train.labels != 7).nonzero().flatten()
    assert [len(x) for x in withhold(DIGITS, (sevens, others), (7,)).parts] == [0, len(others)]
    with pytest.raises(DataError, match="no client has a sample of another class than 7"):
        withhold(DIGITS, (sevens,), (7,))


@pytest.mark.parametrize(
    ("classes", "message"), [((3, 10), "class 10 does not exist"), (range(10), "no class would")]
)
def test_impossible_classes(classes: tuple[int, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        withhold(DIGITS, PARTS, tuple(classes))


def test_without_classes_none_can_be_withheld() -> None:
    data = load_dataset("diabetes", None, seed=0)
    parts = (torch.arange(len(data.train)),)
    assert withhold(data, parts, ()).dataset is data
    with pytest.raises(RecipeError, match="no class can be withheld: data `diabetes`"):
        withhold(data, parts, (1,))


def test_the_server_has_no_withheld_samples_either() -> None:
    labels = DIGITS.train.labels
    server = torch.cat([(labels == label).nonzero().flatten()[:3] for label in (1, 2)])
    assert withhold(DIGITS, PARTS, (), server).server.equal(server)
    assert withhold(DIGITS, PARTS, (2,), server).server.equal(server[:3])
    assert len(withhold(DIGITS, PARTS, (2,)).server) == 0
