"""Masks under a budget: the worked example, brute force, ties and limits."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
import torch
from torch import Tensor

from fpcli.models.build import build
from fpcli.structure.budget import keep_largest, list_masked_weights, reconfigure
from fpcli.structure.trace import trace
from fpcli.tasks.classify import Classify

W = {
    "w1": torch.tensor([[0.9, -0.1, 0.3], [-0.5, 0.2, 0.05]]),
    "w2": torch.tensor([[0.4, -0.8], [0.15, 0.6], [-0.25, 0.35]]),
}
M = {
    "w1": torch.tensor([[1, 1, 1], [1, 0, 1]]).bool(),
    "w2": torch.tensor([[1, 1], [0, 1], [1, 1]]).bool(),
}
IMPORTANCE = {
    "w1": torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.9, 0.02]]),
    "b1": torch.tensor([0.05, 0.15]),
    "w2": torch.tensor([[0.6, 0.2], [1.5, 0.7], [0.05, 0.45]]),
    "b2": torch.tensor([0.1, 0.0, 0.2]),
}
SECONDS = {"w1": 0.2, "w2": 0.5}


def test_worked_reconfiguration() -> None:
    """Cores .9 .3 -.5 and .4 -.8 .6: N = 2.9, D = 4.1. v = 4.5, 3.0, 2.0 enter, 0.9 does not."""
    new = reconfigure(W, M, IMPORTANCE, SECONDS, 2.0, share=0.4)
    assert new["w1"].int().tolist() == [[1, 1, 1], [1, 1, 0]]
    assert new["w2"].int().tolist() == [[1, 1], [1, 1], [0, 0]]


def test_scale_does_not_matter() -> None:
    want = reconfigure(W, M, IMPORTANCE, SECONDS, 2.0, share=0.4)
    more = {name: 8 * x for name, x in IMPORTANCE.items()}
    slower = {name: 4 * x for name, x in SECONDS.items()}
    got = reconfigure(W, M, more, slower, 8.0, share=0.4)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_limits() -> None:
    kept = reconfigure(W, M, IMPORTANCE, SECONDS, 2.0, share=0.0)
    assert all(not bool((M[name] & ~kept[name]).any()) for name in M)
    zero = {name: torch.zeros_like(x) for name, x in IMPORTANCE.items()}
    cores = reconfigure(W, M, zero, SECONDS, 2.0, share=0.4)
    assert [int(cores[name].sum()) for name in cores] == [3, 3]
    everything = reconfigure(W, M, IMPORTANCE, SECONDS, 1e12, share=0.4)
    assert all(bool(mask.all()) for mask in everything.values())


@pytest.mark.parametrize(("limit", "want"), [(0.75, 9), (0.7, 8), (0.5, 6), (0.1, 6)])
def test_density_limit_is_never_exceeded_by_what_enters(limit: float, want: int) -> None:
    new = reconfigure(W, M, IMPORTANCE, SECONDS, 2.0, share=0.4, max_density=limit)
    assert sum(int(mask.sum()) for mask in new.values()) == want


def test_tied_weights_stay_and_free_weights_enter() -> None:
    """Two of four equal weights may leave, but all tie; a weight without cost needs importance."""
    one, alive = {"w": torch.ones(4)}, {"w": torch.ones(4).bool()}
    assert reconfigure(one, alive, {"w": torch.zeros(4)}, {"w": 1.0}, 1.0, share=0.5)["w"].all()
    dead, gain = {"w": torch.zeros(3).bool()}, {"w": torch.tensor([0.0, 2.0, 0.0])}
    new = reconfigure({"w": torch.ones(3)}, dead, gain, {"w": 0.0}, 1.0, share=0.5)
    assert new["w"].tolist() == [False, True, False]


def gamma(
    masks: dict[str, Tensor], gain: dict[str, Tensor], t: dict[str, float], c: float
) -> float:
    total = float(gain["b"].sum()) + sum(float(gain[n][masks[n]].double().sum()) for n in masks)
    return total / (c + sum(t[n] * int(masks[n].sum()) for n in masks))


@pytest.mark.parametrize("seed", range(6))
def test_no_other_subset_of_the_candidates_is_better(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    w = {name: torch.randn(3, 3, generator=rng) for name in "xy"}
    m = {name: torch.rand(3, 3, generator=rng) < 0.6 for name in "xy"}
    gain = {name: torch.rand(3, 3, generator=rng) ** 3 for name in "xy"} | {"b": torch.ones(2)}
    t = {"x": 0.3, "y": 0.9}
    best = reconfigure(w, m, gain, t, 1.5, share=0.4)
    core = reconfigure(w, m, {n: torch.zeros_like(x) for n, x in gain.items()}, t, 1.5, share=0.4)
    free = [(name, int(i)) for name in "xy" for i in (~core[name]).flatten().nonzero()]
    assert len(free) <= 16
    top = gamma(best, gain, t, 1.5)
    for subset in chain.from_iterable(combinations(free, k) for k in range(len(free) + 1)):
        tried = {name: mask.clone() for name, mask in core.items()}
        for name, index in subset:
            tried[name].view(-1)[index] = True
        assert gamma(tried, gain, t, 1.5) <= top + 1e-9


def test_largest_ranks_over_all_tensors() -> None:
    masks = keep_largest({"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([3.0, 2.0, 4.0])}, 0.6)
    assert [masks["a"].tolist(), masks["b"].tolist()] == [[False, True], [True, False, True]]
    assert sum(int(mask.sum()) for mask in keep_largest({"a": torch.ones(9)}, 0.01).values()) == 1


def test_shortcuts_have_no_mask() -> None:
    layout = trace(build("resnet20", (3, 32, 32), Classify(10), seed=0), torch.zeros(1, 3, 32, 32))
    names = list_masked_weights(layout)
    assert len(names) == 20
    assert names[0] == "conv.weight"
    assert names[-1] == "fc.weight"
    assert not any("shortcut" in name for name in names)
