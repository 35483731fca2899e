from __future__ import annotations

import hashlib
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpcli.data.partition import count_labels, partition, split_digest
from fpcli.errors import DataError, RecipeError
from fpcli.settings.tasks import Partition, PartitionKind

DRAWN: tuple[PartitionKind, ...] = get_args(PartitionKind)[:-2]
"""Those that need nothing but labels."""

LABELS = torch.arange(1000).remainder(10)[torch.randperm(1000, generator=torch.manual_seed(1))]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(DRAWN),
    num_clients=st.integers(1, 12),
    shards=st.integers(1, 4),
    num_classes=st.integers(1, 6),
    samples=st.integers(48, 200),
    seed=st.integers(0, 2**31),
)
def test_every_sample_is_used_once(
    kind: PartitionKind, num_clients: int, shards: int, num_classes: int, samples: int, seed: int
) -> None:
    if kind == "dominant":  # other counts may have no solution
        num_clients, samples = shards * num_classes, 4 * shards * num_classes**2
    if kind == "classes":  # every holder of a class needs a sample of it
        samples = max(samples, num_clients * num_classes)
    labels = torch.arange(samples) % num_classes
    parts = partition(
        labels,
        num_clients,
        Partition(
            kind,
            alpha=5.0,
            shards_per_client=shards,
            dominant_share=(1 + 1 / num_classes) / 2,
            classes_per_client=num_classes,
            missing_classes=num_classes // 2 if num_clients > 1 else 0,
        ),
        seed=seed,
    )
    assert len(parts) == num_clients
    assert torch.cat(parts).sort().values.equal(torch.arange(samples))
    for part in parts:
        assert part.dtype == torch.int64
        assert len(part) >= 1
        assert part.equal(part.sort().values)


@pytest.mark.parametrize("kind", DRAWN)
def test_seed_decides(kind: PartitionKind) -> None:
    first, again, other = (partition(LABELS, 10, Partition(kind), seed=seed) for seed in (0, 0, 1))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", ["regress", "rank"])
def test_without_classes_nothing_goes_by_them(kind: str) -> None:
    for how in ("iid", "quantity"):
        parts = partition(LABELS / 3, 7, Partition(how), kind=kind, seed=0)
        assert torch.cat(parts).sort().values.equal(torch.arange(1000))
    owners = torch.arange(1000) % 4
    parts = partition(LABELS / 3, 4, Partition("natural"), owners=owners, kind=kind, seed=0)
    assert [part.tolist() for part in parts] == [[*range(n, 1000, 4)] for n in range(4)]
    for how in ("dirichlet", "shards", "dominant", "classes", "missing"):
        message = rf"task\.partition\.kind is `{how}`, which goes by classes, and .* `{kind}`"
        with pytest.raises(RecipeError, match=message) as caught:
            partition(LABELS / 3, 7, Partition(how), kind=kind, seed=0)
        assert "natural" in caught.value.hint
    with pytest.raises(RecipeError, match=r"task\.partition\.imbalance is 4, a long tail"):
        partition(LABELS / 3, 7, Partition(imbalance=4), kind=kind, seed=0)


def test_iid_shares_are_equal() -> None:
    sizes = [len(part) for part in partition(LABELS, 7, Partition("iid"), seed=0)]
    assert max(sizes) - min(sizes) <= 1


def test_two_shards_bring_at_most_three_classes_each_of_equal_size() -> None:
    parts = partition(LABELS, 10, Partition("shards"), seed=0)
    assert {len(part) for part in parts} == {100}
    table = count_labels(LABELS, parts, 10)
    assert int((table > 0).sum(1).max()) <= 2
    assert table.sum(0).tolist() == [100] * 10


def test_smaller_alpha_makes_clients_differ_more() -> None:
    def spread(alpha: float) -> float:
        parts = partition(LABELS, 10, Partition("dirichlet", alpha=alpha), seed=3)
        return count_labels(LABELS, parts, 10).float().std().item()

    assert spread(0.1) > spread(1.0) > spread(100.0)


def test_dirichlet_shares_follow_the_distribution() -> None:
    """Of Dir(alpha) over K clients one share has variance (K - 1) / (K^2 (K alpha + 1)).

    K = 4, alpha = 0.5: 3 / (16 * 3) = 0.0625; 400 classes of 200 samples estimate it.
    """
    labels = torch.arange(400).repeat(200)
    parts = partition(labels, 4, Partition("dirichlet", alpha=0.5), seed=0)
    shares = count_labels(labels, parts, 400) / 200
    assert shares.mean().item() == pytest.approx(0.25, abs=1e-3)
    assert shares.var().item() == pytest.approx(0.0625, rel=0.1)


def test_minimum_size_holds() -> None:
    parts = partition(LABELS, 10, Partition("dirichlet", alpha=0.3, min_size=40), seed=0)
    assert min(map(len, parts)) >= 40


def test_hopeless_dirichlet_ends_with_an_error() -> None:
    with pytest.raises(DataError, match=r"alpha 0\.001.* 50 clients") as caught:
        partition(LABELS, 50, Partition("dirichlet", alpha=0.001), seed=0)
    assert "alpha" in caught.value.hint


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(DataError, match="alpha must be above 0"):
        partition(LABELS, 2, Partition("dirichlet", alpha=alpha), seed=0)


def test_tiny_alpha_gives_whole_classes() -> None:
    parts = partition(LABELS, 2, Partition("dirichlet", alpha=1e-6), seed=0)
    assert set(count_labels(LABELS, parts, 10).flatten().tolist()) == {0, 100}


@pytest.mark.parametrize("kind", DRAWN)
def test_too_many_clients(kind: PartitionKind) -> None:
    with pytest.raises(DataError, match="there are 1000"):
        partition(LABELS, 1001, Partition(kind, shards_per_client=1), seed=0)


def test_too_many_shards() -> None:
    with pytest.raises(DataError, match="need 1100 samples, there are 1000"):
        partition(LABELS, 10, Partition("shards", shards_per_client=110), seed=0)


def test_label_table_counts() -> None:
    parts = (torch.tensor([0, 1, 2]), torch.tensor([3]))
    table = count_labels(torch.tensor([2, 0, 2, 1]), parts, 4)
    assert table.tolist() == [[1, 0, 2, 0], [0, 1, 0, 0]]
    assert table.dtype == torch.int64


def test_classes_that_are_too_small_for_the_smallest_size() -> None:
    labels = torch.tensor([0] * 60 + [1] * 3)
    how = Partition("classes", classes_per_client=1, min_size=4)
    with pytest.raises(DataError, match=r"client [01] would have 3 samples, fewer than 4"):
        partition(labels, 2, how, seed=0)


def test_digest_by_hand() -> None:
    """Two clients, with 2 and 1 samples: the numbers 2, 2, 1, then 0, 2 and 1."""
    parts = (torch.tensor([0, 2]), torch.tensor([1]))
    numbers = b"".join(n.to_bytes(8, "little") for n in (2, 2, 1, 0, 2, 1))
    assert split_digest(parts) == hashlib.sha256(numbers).hexdigest()
    assert split_digest(parts) != split_digest(parts[::-1])


@pytest.mark.parametrize("kind", [*DRAWN, "natural"])
def test_what_is_reserved_is_nobodys(kind: PartitionKind) -> None:
    """The rest is split as if there were nothing else."""
    reserved = torch.arange(0, 1000, 7)
    rest = torch.tensor([i for i in range(1000) if i % 7])
    how = Partition(kind, alpha=5.0, imbalance=2.0)
    owners = torch.arange(1000) // 100
    parts = partition(LABELS, 5, how, owners=owners, reserved=reserved, seed=2)
    alone = partition(LABELS[rest], 5, how, owners=owners[rest], seed=2)
    assert all(part.equal(rest[own]) for part, own in zip(parts, alone, strict=True))


def test_too_few_samples_beside_those_of_the_server() -> None:
    text = "3 clients with at least 1 samples each need 3 samples, there are 2 beside the 4 of the"
    with pytest.raises(DataError, match=text) as caught:
        partition(torch.arange(6) % 2, 3, Partition(), reserved=torch.arange(4), seed=0)
    assert "task.server_share" in caught.value.hint


def test_an_owner_whose_samples_are_all_reserved_is_no_client() -> None:
    owners = torch.tensor([0, 0, 1, 2, 2, 2])
    how, reserved = Partition("natural"), torch.tensor([2, 3])
    parts = partition(torch.arange(6) % 2, 2, how, owners=owners, reserved=reserved, seed=0)
    assert [part.tolist() for part in parts] == [[0, 1], [4, 5]]
    with pytest.raises(DataError, match="2 owners of samples are too few for 3 clients"):
        partition(torch.arange(6) % 2, 3, how, owners=owners, reserved=reserved, seed=0)
