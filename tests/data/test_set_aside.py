from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.data.set_aside import set_aside
from fpcli.errors import DataError

LABELS = torch.tensor([0] * 4 + [1] * 2)


def counts(labels: torch.Tensor, **wanted: float) -> list[int]:
    drawn = set_aside(labels, **wanted, seed=3)  # type: ignore[arg-type]
    return labels[drawn].bincount(minlength=int(labels.max()) + 1).tolist()


def test_classes_give_in_proportion_by_hand() -> None:
    """Of 4 and 2 samples the turns are 1/8, 3/8, 5/8 and 1/4; the last of each class stays."""
    assert [counts(LABELS, number=number) for number in (0, 1, 2, 3, 4)] == [
        [0, 0], [1, 0], [1, 1], [2, 1], [3, 1],
    ]  # fmt: skip
    assert counts(torch.arange(400) % 10, share=0.25) == [10] * 10


def test_a_share_is_rounded_and_is_one_sample_at_least() -> None:
    assert [len(set_aside(LABELS, share=share, seed=0)) for share in (0.0, 0.01, 0.4, 0.5)] == [
        0, 1, 2, 3,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "where"),
    [({"number": 5}, "task.server_samples"), ({"share": 0.9}, "task.server_share")],
)
def test_clients_keep_one_of_each_class(wanted: dict[str, float], where: str) -> None:
    with pytest.raises(DataError, match="of 6 training samples the server can have 4") as caught:
        counts(LABELS, **wanted)
    assert caught.value.where == where
    assert "4 or less" in caught.value.hint


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_a_smaller_number_is_part_of_a_larger_one(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    number = data.draw(st.integers(0, sum(sizes) - len(sizes)))
    drawn = set_aside(labels, number=number, seed=seed)
    assert len(drawn) == number
    assert drawn.equal(drawn.unique())
    left = torch.tensor(sizes) - labels[drawn].bincount(minlength=len(sizes))
    assert int(left.min()) >= 1
    fewer = set_aside(labels, number=number // 2, seed=seed)
    assert torch.isin(fewer, drawn).all()


@pytest.mark.parametrize("kind", ["regress", "rank"])
def test_without_classes_all_samples_are_alike(kind: str) -> None:
    labels = torch.arange(6) / 2
    drawn = [set_aside(labels, number=number, kind=kind, seed=3) for number in range(6)]
    assert [len(part) for part in drawn] == [0, 1, 2, 3, 4, 5]
    assert all(torch.isin(few, more).all() for few, more in pairwise(drawn))
    with pytest.raises(DataError, match="the server can have 5, since one stays with the clients"):
        set_aside(labels, number=6, kind=kind, seed=0)


def test_the_seed_decides() -> None:
    labels = torch.arange(1000) % 10
    drawn = [set_aside(labels, share=0.1, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
