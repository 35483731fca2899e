"""Masks of a given density: SNIP by hand, chance by its stream, and the steps of magnitude."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fpcli.pruning.at_density import prune_once, shrink_towards


def two_weights() -> nn.Module:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    return model


def test_snip_keeps_what_the_loss_hangs_on() -> None:
    """The loss is the sum of outputs: gradient (4, 1) in each row, scores (4, 2) and (12, .5)."""
    batches = [
        (torch.tensor([[1.0, 1.0]]), torch.zeros(1)),
        (torch.tensor([[3.0, 0.0]]), torch.zeros(1)),
    ]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0]).sum()

    def no_rng(name: str) -> torch.Generator:
        raise AssertionError(f"SNIP draws nothing for {name}")

    model, names = two_weights(), ["weight"]
    masks = prune_once(model, batches, loss, names=names, score="snip", density=0.5, rng=no_rng)
    assert masks["weight"].tolist() == [[True, False], [True, False]]
    masks = prune_once(model, batches, loss, names=names, score="snip", density=0.75, rng=no_rng)
    assert masks["weight"].tolist() == [[True, True], [True, False]]


def test_chance_needs_no_data_and_depends_on_its_stream_only() -> None:
    found = []
    for seed in (1, 1, 2):
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        masks = prune_once(
            model,
            [],
            lambda model, batch: torch.zeros(()),
            names=["0.weight", "1.weight"],
            score="random",
            density=0.25,
            rng=lambda name, seed=seed: torch.Generator().manual_seed(10 * seed + int(name[0])),
        )
        assert sum(int(mask.sum()) for mask in masks.values()) == 32
        found.append(torch.stack(list(masks.values())))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_every_step_leaves_the_same_share_and_none_comes_after_the_last() -> None:
    values = {"w": torch.arange(1.0, 65.0)}
    masks, sizes = {"w": torch.ones(64, dtype=torch.bool)}, []
    for step in range(1, 6):
        masks = shrink_towards(values, masks, 1 / 8, step / 3)
        sizes.append(int(masks["w"].sum()))
        assert bool(masks["w"][-sizes[-1] :].all())
    assert sizes == [32, 16, 8, 8, 8]


def test_what_is_dead_never_returns() -> None:
    values = {"w": torch.tensor([9.0, 1.0, 2.0, 3.0])}
    masks = {"w": torch.tensor([False, True, True, True])}
    assert shrink_towards(values, masks, 0.5, 1.0)["w"].tolist() == [False, False, True, True]
