"""Random masks: one draw per round for everybody, with the counts of `uniform`."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import toy_recipe
from replies import plain, rounds

from fpcli.engine.planning import foresee
from fpcli.engine.types import ServerState, Support
from fpcli.methods.random_mask import Options, draw_support
from fpcli.structure.budget import list_masked_weights
from fpcli.train.setup import Setup, prepare_run

MASKED = {"method__pattern": "weights"}


def support_of(setup: Setup, round: int, client: int) -> Support:
    state = ServerState(round - 1, setup.values, Support())
    return foresee(setup.fed, state, round)[client].support


def test_everybody_gets_the_draw_of_the_round(tmp_path: Path) -> None:
    setup = prepare_run(toy_recipe("random-mask", method__ratio=0.5), tmp_path / "memory")
    first = [support_of(setup, 1, client) for client in range(4)]
    assert all(plain(one) == plain(first[0]) for one in first)
    assert plain(support_of(setup, 2, 0)) != plain(first[0])
    other = prepare_run(toy_recipe("random-mask", method__ratio=0.5, seed=8), tmp_path / "memory")
    assert plain(support_of(other, 1, 0)) != plain(first[0])


def test_counts_are_those_of_uniform(tmp_path: Path) -> None:
    kept = []
    for method in ("random-mask", "uniform"):
        setup = prepare_run(toy_recipe(method, method__ratio=0.3, rounds=1), tmp_path / method)
        _, record = next(rounds(setup))
        kept.append([(client.params, client.macs) for client in record.clients])
    assert kept[0] == kept[1]


def test_every_channel_has_the_same_chance(tmp_path: Path) -> None:
    """Of 8 channels 4 stay; in 400 rounds each stays 200 times, give or take 40 (4 sigma)."""
    setup = prepare_run(toy_recipe("random-mask"), tmp_path / "memory")
    counts = torch.zeros(8)
    for seed in range(400):
        rng = torch.Generator().manual_seed(seed)
        counts[draw_support(setup.fed.layout, Options(0.5), rng).keep["stem"]] += 1
    assert counts.sum() == 1600
    assert (counts - 200).abs().max() < 40


def test_single_weights(tmp_path: Path) -> None:
    """Every masked tensor keeps three quarters of its weights, rounded; what is off stays."""
    flags = {"method__ratio": 0.25, "method__pattern": "weights", "rounds": 1}
    setup = prepare_run(toy_recipe("random-mask", **flags), tmp_path / "memory")
    masks = support_of(setup, 1, 0).mask
    assert list(masks) == list_masked_weights(setup.fed.layout) != []
    for mask in masks.values():
        assert int(mask.sum()) == round(0.75 * mask.numel())
    state, record = next(rounds(setup))
    for name, mask in masks.items():
        changed = state.values[name] != setup.values[name]
        assert not bool((changed & ~mask).any())
        assert bool((changed & mask).any())
    assert all(client.pruning_error > 0 for client in record.clients)


def test_ratio_zero_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    ends = []
    for name in ("fedavg", "random-mask channels", "random-mask weights"):
        method, _, pattern = name.partition(" ")
        flags = {"method__ratio": 0.0, "method__pattern": pattern} if pattern else {}
        *_, (state, _) = rounds(prepare_run(toy_recipe(method, rounds=2, **flags), tmp_path / name))
        ends.append(plain(state.values))
    assert ends[0] == ends[1] == ends[2]
