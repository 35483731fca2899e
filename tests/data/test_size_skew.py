from __future__ import annotations

import pytest
import torch

from fpcli.data.partition import count_labels, partition
from fpcli.errors import DataError
from fpcli.settings.tasks import Partition

LABELS = torch.arange(1100).remainder(10)


def sizes(how: Partition, clients: int, seed: int = 0) -> list[int]:
    return [len(part) for part in partition(LABELS, clients, how, seed=seed)]


def test_given_sizes_are_proportions_in_the_clients_order() -> None:
    """1,100 samples as 1 : 2 : 8 are 100, 200 and 800."""
    assert sizes(Partition("quantity", sizes=(1, 2, 8)), 3) == [100, 200, 800]


def test_a_power_law_by_hand() -> None:
    """1 + 1/2 + 1/3 = 11/6, so 1,100 samples are 600, 300 and 200, in an order that is drawn."""
    how = Partition("quantity", size_law="power", exponent=1.0)
    assert sorted(sizes(how, 3)) == [200, 300, 600]
    assert len({tuple(sizes(how, 3, seed)) for seed in range(9)}) > 1


def test_dirichlet_sizes_differ_more_with_a_small_alpha_but_labels_do_not() -> None:
    def spread(alpha: float) -> float:
        return torch.tensor(sizes(Partition("quantity", alpha=alpha), 10)).float().std().item()

    assert spread(0.5) > 2 * spread(10.0)
    parts = partition(LABELS, 3, Partition("quantity", alpha=5.0), seed=0)
    table = count_labels(LABELS, parts, 10)
    shares = table / table.sum(1, keepdim=True)
    assert shares.sub(0.1).abs().max() < 0.06


def test_hopeless_sizes_end_with_an_error() -> None:
    with pytest.raises(DataError, match=r"sizes of 100 clients .* one below 5 of 1100"):
        sizes(Partition("quantity", alpha=0.05, min_size=5), 100)


@pytest.mark.parametrize("given", [(1.0, 2.0), (1.0, 2.0, 0.0), (1.0, 2.0, float("inf"))])
def test_sizes_must_fit_the_clients(given: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="numbers for 3 clients"):
        sizes(Partition("quantity", sizes=given), 3)


def test_owners_are_clients_or_stay_together() -> None:
    """Seven owners on three clients: two each, and the last has the seventh too."""
    owners = torch.arange(1100).remainder(7) * 5
    each = partition(LABELS, 7, Partition("natural"), owners=owners, seed=0)
    assert [owners[part].unique().tolist() for part in each] == [[5 * n] for n in range(7)]
    few = partition(LABELS, 3, Partition("natural"), owners=owners, seed=0)
    assert [owners[part].unique().tolist() for part in few] == [[0, 5], [10, 15], [20, 25, 30]]
    assert torch.cat(few).sort().values.equal(torch.arange(1100))


def test_193_writers_on_ten_clients_are_19_each_and_22() -> None:
    owners = torch.arange(193)
    parts = partition(torch.zeros(193, dtype=torch.int64), 10, Partition("natural"), owners=owners,
                      seed=0)  # fmt: skip
    assert [len(part) for part in parts] == [19] * 9 + [22]


def test_natural_needs_enough_owners() -> None:
    with pytest.raises(DataError, match="data `x` does not say who owns"):
        partition(LABELS, 3, Partition("natural"), data="x", seed=0)
    with pytest.raises(DataError, match="2 owners of samples are too few for 3 clients"):
        partition(LABELS, 3, Partition("natural"), owners=LABELS % 2, seed=0)


def test_the_long_tail_has_the_known_numbers_of_cifar10_lt() -> None:
    """Ten classes of 5,000 with factor 100, as long-tailed CIFAR-10 is usually made."""
    labels = torch.arange(50_000).remainder(10)
    parts = partition(labels, 4, Partition(imbalance=100.0), seed=0)
    counts = count_labels(labels, parts, 10).sum(0).tolist()
    assert counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert len(torch.cat(parts).unique()) == sum(counts)


def test_a_long_tail_goes_with_every_kind_and_depends_on_the_seed() -> None:
    """Factor 11 leaves 110 samples of class 0 and 10 of class 9."""
    how = Partition("dirichlet", alpha=1.0, imbalance=11.0)
    first, again, other = (partition(LABELS, 5, how, seed=seed) for seed in (0, 0, 1))
    table = count_labels(LABELS, first, 10)
    assert (table[:, 0].sum(), table[:, 9].sum()) == (110, 10)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not torch.cat(first).sort().values.equal(torch.cat(other).sort().values)
    owners = torch.arange(1100).remainder(5)
    own = partition(LABELS, 5, Partition("natural", imbalance=11.0), owners=owners, seed=0)
    assert [owners[part].unique().tolist() for part in own] == [[n] for n in range(5)]


def test_the_tail_keeps_one_sample_of_every_class() -> None:
    """Two classes of 4 with factor 100: 4 remain, and 4 / 100 is rounded up to 1."""
    labels = torch.tensor([0] * 4 + [1] * 4)
    (part,) = partition(labels, 1, Partition(imbalance=100.0), seed=0)
    assert labels[part].tolist() == [0, 0, 0, 0, 1]
