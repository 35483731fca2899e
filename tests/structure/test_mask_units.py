"""Units: their numbers, their scores and which of them leave, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fpcli.structure.mask_units import (
    average_units,
    drop_by_layer,
    drop_over_layers,
    let_return,
    list_kept_units,
    number_units,
    turn_pattern,
)

W = torch.tensor(
    [
        [0.9, -0.1, 0.4, 0.2],
        [-0.3, 0.8, -0.05, 0.6],
        [0.1, -0.2, 0.7, -0.9],
        [0.05, 0.3, -0.6, 0.15],
    ]
)
B = torch.tensor([[0.02, 0.01, 0.03, 0.05], [0.06, 0.05, 0.01, 0.02]])


def dropped(kept: Tensor) -> set[int]:
    return set((~kept).nonzero().flatten().tolist())


def score(weight: Tensor, pattern: str) -> Tensor:
    return average_units(weight.abs(), number_units(weight.shape, pattern))


@pytest.mark.parametrize(
    ("pattern", "scores", "quarter", "half", "left"),
    [
        ("row", [0.4, 0.4375, 0.475, 0.275], {3}, {0, 3}, (5.25, 3.65)),
        ("column", [0.3375, 0.35, 0.4375, 0.4625], {0}, {0, 1}, (5.0, 3.6)),
        ("half-row", [0.5, 0.3, 0.55, 0.325, 0.15, 0.8, 0.175, 0.375], {4, 6}, {4, 6, 1, 3},
         (5.7, 4.45)),
        ("half-column", [0.6, 0.075, 0.45, 0.25, 0.225, 0.65, 0.4, 0.525], {1, 4}, {1, 4, 3, 6},
         (5.75, 4.45)),
        ("element", W.abs().flatten().tolist(), None, None, (6.05, 5.2)),
    ],
)  # fmt: skip
def test_worked_units(
    pattern: str,
    scores: list[float],
    quarter: set[int] | None,
    half: set[int] | None,
    left: tuple[float, float],
) -> None:
    """Of 6.35 in all, finer units keep more at the same share."""
    found = score(W, pattern)
    torch.testing.assert_close(found, torch.tensor(scores).double())
    for share, want, size in zip((0.25, 0.5), (quarter, half), left, strict=True):
        kept = drop_by_layer({"w": found}, share)["w"]
        assert want is None or dropped(kept) == want
        rest = W.abs()[kept[number_units(W.shape, pattern)]].sum()
        assert float(rest) == pytest.approx(size, abs=1e-6)


def test_the_mean_square_ranks_otherwise() -> None:
    scores = average_units(W.square(), number_units(W.shape, "column")).sqrt()
    want = [0.477624, 0.441588, 0.503115, 0.555090]
    assert scores.tolist() == pytest.approx(want, abs=1e-6)
    assert dropped(drop_by_layer({"w": scores}, 0.25)["w"]) == {1}


def test_mask_of_half_columns() -> None:
    units = number_units(W.shape, "half-column")
    kept = drop_by_layer({"w": average_units(W.abs(), units)}, 0.5)["w"]
    want = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert kept[units].int().tolist() == want
    assert torch.equal(list_kept_units(units, kept[units]), kept)


@pytest.mark.parametrize(
    ("share", "want"),
    [
        (0.0, {"a": set(), "b": set()}),
        (0.25, {"a": {0}, "b": {2}}),
        (0.5, {"a": {0, 1}, "b": {1, 2}}),
        (0.6, {"a": {0, 1, 2}, "b": {1, 2, 3}}),
    ],
)
def test_units_of_all_layers_compete(share: float, want: dict[str, set[int]]) -> None:
    """24 weights: 6, 12 and 18 leave; of 4 units 3 at most. Without the root mean square B, whose
    values are small, would lose three units at a quarter."""
    weights = {"a": W, "b": B}
    scores = {name: score(x, "column") for name, x in weights.items()}
    sizes = {n: number_units(x.shape, "column").flatten().bincount() for n, x in weights.items()}
    kept = drop_over_layers(scores, sizes, share, 0.75)
    assert {name: dropped(bits) for name, bits in kept.items()} == want


def test_a_layer_loses_no_more_than_its_cap() -> None:
    """Its other units stay, though nearly all weights should leave."""
    scores = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([5.0, 5.0])}
    sizes = {"a": torch.full((4,), 10), "b": torch.tensor([1, 1])}
    kept = drop_over_layers(scores, sizes, 0.9, 0.5)
    assert {name: dropped(bits) for name, bits in kept.items()} == {"a": {0, 1}, "b": {0}}


def test_scores_that_are_all_0_drop_the_first() -> None:
    kept = drop_over_layers({"a": torch.zeros(4)}, {"a": torch.ones(4).long()}, 0.5, 0.9)
    assert dropped(kept["a"]) == {0, 1}


def test_what_has_left_returns_by_the_draw_alone() -> None:
    scores = {"a": torch.arange(10.0)}
    stays = {"a": torch.arange(10) >= 4}
    rng = torch.Generator().manual_seed(0)
    new = let_return(scores, stays, 0.5, rng)["a"]
    assert torch.equal(new[4:], scores["a"][4:])
    assert sorted(new[:4].tolist()) == [-math.inf, -math.inf, math.inf, math.inf]
    # Who returns takes the places of the lowest that were there.
    kept = drop_by_layer({"a": new}, 0.4)["a"]
    assert dropped(kept) == {*(new == -math.inf).nonzero().flatten().tolist(), 4, 5}
    sizes = {"a": torch.ones(10).long()}
    assert torch.equal(drop_over_layers({"a": new}, sizes, 0.4, 0.9)["a"], kept)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (7, 3), (4, 3, 2, 2)])
@pytest.mark.parametrize(
    "pattern", ["row", "column", "half-row", "half-column", "element", "block:2x3"]
)
def test_every_unit_has_entries_and_turns_with_the_matrix(
    shape: tuple[int, ...], pattern: str
) -> None:
    units = number_units(shape, pattern)
    assert tuple(units.shape) == (shape[0], math.prod(shape[1:]))
    assert bool((units.flatten().bincount() > 0).all())
    if pattern.startswith(("row", "half", "column")):
        assert torch.equal(number_units(units.t().shape, turn_pattern(pattern)).t(), units)


@pytest.mark.parametrize("pattern", ["rows", "block:0x4", "block:4", "block:ax1", ""])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(ValueError, match="block:AxB"):
        turn_pattern(pattern)
