"""fmlp: shares by the clients' losses, rows of embeddings and pairs of parts, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline
from fpcli.engine.federation import RoundRecord
from fpcli.engine.types import ServerState, Support
from fpcli.methods.fmlp import adapt_ratios, measure_spectra
from fpcli.recipe.load import load_recipe
from fpcli.structure.budget import find_embeddings
from fpcli.structure.layout import Layout, TensorSpec
from fpcli.train.setup import Setup, prepare_run

AT_ONCE = {"method__ip_passes": 3, "method__ip_interval": 1, "method__interval": 1}
MASKED = AT_ONCE

SMALL: dict[str, Any] = {
    "method.name": "fmlp", "task.data": "markov", "task.model": "fmlp@0.25", "task.clients": 6,
    "task.partition.kind": "natural", "rounds": 2, "eval_every": 9, "executor.kind": "inline",
    "local.batch_size": 512, "local.lr": 0.01, "clients_per_round": 3,
    "method.ip_passes": 2, "method.ip_batches": 1, "method.ip_interval": 1, "method.interval": 1,
}  # fmt: skip
TABLE = "item.weight"


def play(
    tmp_path: Path, **changes: Any
) -> tuple[Setup, ServerState, list[tuple[ServerState, RoundRecord]]]:
    """Play the rounds of a small run; also return the state that it begins with."""
    flags = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    setup = prepare_run(load_recipe(None, flags=flags), tmp_path / "memory")
    executor = Inline(setup.site)
    begun, totals = server.begin_training(setup.fed, setup.values, executor)
    return setup, begun, list(server.play(setup.fed, begun, executor, totals))


def test_shares_follow_the_losses() -> None:
    """The numbers of the rule: every loss above the median raises a share, the others lower it."""
    losses = dict(enumerate([1.0, 2.0, 3.0, 4.0]))
    ratios: dict[int, float] = dict.fromkeys(losses, 0.5)
    expected = [(0.25, 0.75), (1 / 6, 5 / 6), (0.125, 0.875)]
    for elapsed, (low, high) in enumerate(expected):
        ratios = adapt_ratios(ratios, losses, elapsed, 0.5)
        assert list(ratios.values()) == pytest.approx([low, low, high, high])


def test_who_was_not_there_keeps_its_share() -> None:
    ratios = adapt_ratios({0: 0.5, 1: 0.5, 2: 0.3}, {0: 1.0, 1: 2.0}, 0, 0.5)
    assert ratios == pytest.approx({0: 0.25, 1: 0.75, 2: 0.3})


def test_without_pruning_and_with_means_over_all_it_is_fedavg(tmp_path: Path) -> None:
    plain = {"method__control": "conventional", "method__embed_agg": "fedavg"}
    dense = {"wire__codec": "dense"}
    ours = play(tmp_path / "a", **plain, method__embed_upload="full")[2][-1][0]
    rows = play(tmp_path / "b", **plain)[2][-1][0]
    options = {key: None for key in SMALL if key.startswith("method.")}
    theirs = play(
        tmp_path / "c", **options, **dense, method__name="fedavg", local__optimizer="adam"
    )[2][-1][0]
    for name, value in theirs.values.items():
        assert torch.equal(ours.values[name], value), name
        assert torch.equal(rows.values[name], value), name


def test_dead_entries_stay_zero_and_pairs_go_together(tmp_path: Path) -> None:
    setup, begun, played = play(tmp_path, method__regrow_init="zero")
    layout = setup.fed.layout
    for state in (begun, *(state for state, _ in played)):
        mask = state.support.mask
        assert TABLE in mask
        for name, alive in mask.items():
            assert not state.values[name][~alive].any()
            spec = layout.tensors[name]
            if spec.is_complex:
                others = [row for row in range(len(alive)) if row not in spec.real_rows]
                assert torch.equal(alive[others][..., 0], alive[others][..., 1])
                assert not alive[list(spec.real_rows)][..., 1].any()
        assert not state.values[TABLE][0].any()
    assert played[-1][1].cost.params < sum(v.numel() for v in begun.values.values())


def test_embeddings_can_stay_whole(tmp_path: Path) -> None:
    setup, _, played = play(tmp_path, method__prune_embeddings=False)
    assert find_embeddings(setup.fed.template) == [TABLE]
    assert all(TABLE not in state.support.mask for state, _ in played)
    assert any(not mask.all() for mask in played[-1][0].support.mask.values())


def test_rows_that_nobody_changed_stay_and_the_others_are_means_of_those_who_did(
    tmp_path: Path,
) -> None:
    """Half of the clients changed a row by d: a mean over all moves it by d / 2, ours by d."""
    whole = {"method__control": "conventional", "rounds": 1, "clients_per_round": 2}
    _, begun, touched = play(tmp_path / "a", **whole)
    _, _, diluted = play(tmp_path / "b", **whole, method__embed_agg="fedavg")
    ours = touched[0][0].values[TABLE] - begun.values[TABLE]
    theirs = diluted[0][0].values[TABLE] - begun.values[TABLE]
    is_still = (ours == 0).all(1)
    assert torch.equal(is_still, (theirs == 0).all(1))
    assert (ours.norm(dim=1) >= theirs.norm(dim=1) - 1e-7).all()
    for name in begun.values.keys() - {TABLE}:
        assert torch.equal(touched[0][0].values[name], diluted[0][0].values[name])


def test_uploads_hold_no_more_rows_than_a_client_can_have_met(tmp_path: Path) -> None:
    """Rows travel as their numbers and values, so that few items cost few bytes."""
    one = {"task__clients": 300, "clients_per_round": 1, "method__control": "conventional"}
    setup, _, rows = play(tmp_path / "a", **one, rounds=1)
    _, _, full = play(
        tmp_path / "b", **one, rounds=1, method__embed_upload="full", method__embed_agg="fedavg"
    )
    (client,) = rows[0][1].clients
    part = setup.parts[client.client]
    train = setup.fed.dataset.train
    met = {*train.images[part].flatten().tolist()} | {*(train.labels[part] + 1).tolist()}
    most = len(met - {0}) + len(part)  # a drawn item for every sample
    width = setup.fed.layout.tensors[TABLE].shape[1]
    saved = full[0][1].clients[0].up_bytes - client.up_bytes
    least = 4 * width * (101 - most) - 4 * most - 200
    assert saved >= least


def test_shares_are_kept_and_what_nobody_keeps_is_no_part_of_the_model(tmp_path: Path) -> None:
    _, _, played = play(tmp_path, method__adapt="loss-quantile", rounds=3, eval_every=1)
    state, record = played[-1]
    ratios = state.method.ratios
    assert set(ratios) >= set(record.cohort)
    assert any(ratio != 0.5 for ratio in ratios.values())
    for name, alive in state.support.mask.items():
        assert torch.equal(alive, state.values[name].ne(0))
    first = played[0][1]
    assert {client.notes["kept"] for client in first.clients} == {0.5}
    # Half of what can be pruned comes back, as values and a bit or more each.
    assert all(client.up_bytes < 0.75 * client.down_bytes for client in first.clients)


def test_a_run_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    setup, _, whole = play(tmp_path / "a", method__adapt="loss-quantile", rounds=3)
    _, _, again = play(tmp_path / "b", method__adapt="loss-quantile", rounds=2)
    executor = Inline(setup.site)
    fed = replace(setup.fed, rules=replace(setup.fed.rules, rounds=3))
    state, record = again[-1]
    ((last, _),) = server.play(fed, state, executor, record.totals)
    for name, value in whole[-1][0].values.items():
        assert torch.equal(last.values[name], value)


def test_spectra_are_means_over_channels_of_what_is_alive_and_has_an_effect() -> None:
    """|3 + 4i| and |6 + 8i| have the mean 7.5; of frequency 0 only real parts count."""
    layout = Layout({"w": TensorSpec((2, 2, 2), True, 2.0, real_rows=(0,))}, {})
    values = {"w": torch.tensor([[[3.0, 4.0], [6.0, 8.0]], [[3.0, 4.0], [6.0, 8.0]]])}
    assert measure_spectra(layout, values, Support()) == {"w": [4.5, 7.5]}
    alive = torch.ones(2, 2, 2, dtype=torch.bool)
    alive[1, 0] = False
    assert measure_spectra(layout, values, Support(mask={"w": alive})) == {"w": [4.5, 5.0]}


def test_rounds_note_the_spectra_of_both_filters(tmp_path: Path) -> None:
    _, _, played = play(tmp_path)
    first, last = (record.notes for _, record in played)
    assert first["spectra_before"].keys() == last["spectra"].keys()
    assert [len(means) for means in last["spectra"].values()] == [26, 26]
    assert "spectra_before" not in last
