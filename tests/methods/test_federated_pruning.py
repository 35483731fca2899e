"""Federated Pruning: the schedule, what returns, what stays on the server, and the wire."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe

from fpcli.engine import server
from fpcli.engine.exchange import make_job
from fpcli.engine.executors.inline import Inline
from fpcli.engine.planning import foresee
from fpcli.engine.types import ServerState, Support
from fpcli.errors import RecipeError
from fpcli.methods.federated_pruning import Options, choose_unit_masks, list_prunable
from fpcli.recipe.idle import find_idle
from fpcli.structure.mask_units import list_kept_units, number_units, read_bits
from fpcli.train.setup import Setup, prepare_run

AT_ONCE = {
    "method__ramp_start": 1, "method__ramp_end": 2, "method__ramp_every": 1,
    "method__refine_every": 1,
}  # fmt: skip
MASKED = {"method__ramp": "one-shot", "method__ramp_start": 1, "method__refine_every": 1}
PLAIN = {"local__momentum": 0.0, "local__weight_decay": 0.0}


def play(
    tmp_path: Path, method: str = "federated-pruning", **changes: Any
) -> tuple[Setup, list[tuple[ServerState, Any]]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    return setup, [(state, None), *server.play(setup.fed, state, executor, totals)]


def have_same_masks(one: ServerState, other: ServerState) -> bool:
    first, second = one.support.mask, other.support.mask
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_the_share_of_a_cubic_ramp() -> None:
    options = Options(ramp_start=10, ramp_end=110, ramp_every=10)
    shares = [options.share(r) for r in (10, 20, 30, 60, 100, 110, 300)]
    assert shares == pytest.approx([0, 0.1355, 0.244, 0.4375, 0.4995, 0.5, 0.5], abs=1e-9)
    assert Options(ramp="one-shot").share(3) == 0.5


def test_rounds_in_which_units_are_ranked() -> None:
    """A step of the ramp at its end too, and none after the last refinement."""
    options = Options(ramp_start=2, ramp_end=7, ramp_every=2, refine_every=3, refine_end=14)
    assert [r for r in range(40) if options.is_due(r)] == [2, 4, 6, 7, 10, 13]
    once = Options(ramp="one-shot", ramp_start=4, refine_every=5, refine_end=14)
    assert [r for r in range(40) if once.is_due(r)] == [4, 9, 14]
    assert [r for r in range(40) if Options(refine_every=0).is_due(r)] == [3, 5, 7, 9, 11, 13, 15]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "diagonal"}, "block:AxB"),
        ({"regrow": "random"}, "random:SHARE"),
        ({"regrow": "random:1.5"}, "random:SHARE"),
        ({"ramp_start": 15}, "after ramp_start"),
        ({"score": "taylor", "ramp": "one-shot", "ramp_start": 1}, "needs changes"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_names_of_patterns_turn_with_the_kernels_of_tensorflow() -> None:
    turned = {p: Options(pattern=p, kernel_layout="tf").units for p in ("half-column", "block:2x3")}
    assert turned == {"half-column": "half-row", "block:2x3": "block:3x2"}
    assert Options().units == "half-column"


@pytest.mark.parametrize("codec", ["sparse", "dense"])
def test_without_sparsity_it_is_fedavg_bit_for_bit_and_byte_for_byte(
    codec: str, tmp_path: Path
) -> None:
    _, ours = play(tmp_path / "a", wire__codec=codec, method__sparsity=0, **AT_ONCE, rounds=2)
    _, plain = play(tmp_path / "b", "fedavg", wire__codec=codec, rounds=2)
    for name, value in plain[-1][0].values.items():
        assert torch.equal(ours[-1][0].values[name], value)
    for (_, mine), (_, theirs) in zip(ours[1:], plain[1:], strict=True):
        for one, other in zip(mine.clients, theirs.clients, strict=True):
            longer = len("federated-pruning") - len("fedavg")  # the job names its method
            assert one.down_bytes == other.down_bytes + longer
            assert one.up_bytes == other.up_bytes


@pytest.mark.parametrize("pattern", ["row", "column", "half-row", "half-column", "block:2x3"])
def test_what_is_dropped_stays_on_the_server_as_it_was(pattern: str, tmp_path: Path) -> None:
    setup, played = play(tmp_path, method__pattern=pattern, **MASKED, **PLAIN, rounds=2)
    for (before, _), (after, record) in pairwise(played):
        assert before.support.mask
        for name, mask in before.support.mask.items():
            assert torch.equal(after.values[name][~mask], before.values[name][~mask])
            assert not torch.equal(after.values[name][mask], before.values[name][mask])
            kept = list_kept_units(number_units(mask.shape, pattern), mask)
            assert torch.equal(kept[number_units(mask.shape, pattern)].view(mask.shape), mask)
        sizes = {client.params for client in record.clients}
        assert sizes == {before.support.num_alive(setup.fed.layout)}, "peak of every client"


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        # Units are whole: `uniform` drops a little less, `adaptive` a little more.
        ({"method__budget": "uniform", "method__sparsity": 0.4}, 0.6, 0.65),
        ({"method__sparsity": 0.4}, 0.52, 0.6),
        ({"method__cap": 0.25}, 0.75, 0.8),
    ],
)
def test_the_share_that_is_kept(
    options: dict[str, Any], low: float, high: float, tmp_path: Path
) -> None:
    setup, played = play(tmp_path, **MASKED, **options, method__pattern="row", rounds=1)
    sizes = {name: setup.values[name].numel() for name in list_all(setup)}
    dead = sum(int((~mask).sum()) for mask in played[0][0].support.mask.values())
    assert low <= 1 - dead / sum(sizes.values()) <= high


def list_all(setup: Setup) -> list[str]:
    return list_prunable(setup.fed.context(1, "round", lambda *a, **k: None))


def test_first_and_last_layer_stay_whole_unless_asked_for(tmp_path: Path) -> None:
    names = {}
    for protect in ("both", "first", "last", "none"):
        recipe = toy_recipe("federated-pruning", method__protect=protect)
        names[protect] = list_all(prepare_run(recipe, tmp_path / protect))
    assert names["none"] == [names["last"][0], *names["both"], names["first"][-1]]
    assert all(len(names["none"]) - len(names[p]) == n for p, n in (("both", 2), ("first", 1)))


@pytest.mark.parametrize(
    ("regrow", "later"),
    [("memory", [0, 2]), ("none", [0, 1]), ("random:1", [2, 3])],
)
def test_dropped_columns_return_when_live_ones_have_shrunk(
    regrow: str, later: list[int], tmp_path: Path
) -> None:
    """Of magnitudes .50, .40, .30, .20 two are kept; after training the first are .55 and .25. All
    that have left return under `random:1`, and as many of the others leave."""
    flags = {**MASKED, "method__pattern": "column", "method__budget": "uniform"}
    setup = prepare_run(toy_recipe("federated-pruning", method__regrow=regrow, **flags), tmp_path)
    ctx = setup.fed.context(1, "round", lambda *a, **k: None)
    tail = torch.cat([torch.full((14,), 9.0), torch.full((14,), 0.01)])  # stays, and leaves

    def choose(*sizes: float, support: Support) -> Support:
        columns = torch.cat([torch.tensor(sizes), tail]).expand(12, 32)
        state = ServerState(0, {**setup.values, "hidden.weight": columns}, support)
        return Support(mask=choose_unit_masks(ctx, state, {}, 1))

    def list_first(support: Support) -> list[int]:
        bits = support.mask["hidden.weight"]
        assert bool((bits == bits[0]).all())
        assert int(bits[0].sum()) == 16
        return bits[0, :4].nonzero().flatten().tolist()

    first = choose(0.5, 0.4, 0.3, 0.2, support=Support())
    assert list_first(first) == [0, 1]
    assert list_first(choose(0.55, 0.25, 0.3, 0.2, support=first)) == later


@pytest.mark.parametrize("budget", ["adaptive", "uniform"])
def test_masks_never_change_when_nothing_returns(budget: str, tmp_path: Path) -> None:
    flags = {"method__regrow": "none", "method__budget": budget, "local__lr": 0.3}
    _, fixed = play(tmp_path / "a", **MASKED, **flags, rounds=3)
    assert fixed[0][0].support.mask
    assert all(have_same_masks(fixed[0][0], state) for state, _ in fixed)
    _, free = play(tmp_path / "b", **MASKED, **flags | {"method__regrow": "memory"}, rounds=3)
    assert not all(have_same_masks(free[0][0], state) for state, _ in free)
    assert sum(record.notes["returned"] for _, record in free[1:]) > 0


def test_masks_along_a_ramp_are_nested_without_return(tmp_path: Path) -> None:
    _, played = play(tmp_path, **AT_ONCE | {"method__ramp_end": 4}, method__regrow="none", rounds=3)
    masks = [state.support.mask for state, _ in played]
    assert not masks[0]
    for before, after in pairwise(masks[1:]):
        assert not any(bool((after[name] & ~mask).any()) for name, mask in before.items())
    sizes = [sum(int((~mask).sum()) for mask in some.values()) for some in masks]
    assert sizes == sorted(set(sizes))


def test_the_running_mean_of_changes(tmp_path: Path) -> None:
    """beta V + (1 - beta) |change| of what was trained; of the dropped it stands still."""
    flags = {"method__score": "momentum", "method__decay": 0.75, "method__ramp": "one-shot"}
    flags |= {"method__ramp_start": 2, "method__refine_every": 0}
    _, played = play(tmp_path, **flags, **PLAIN, rounds=2)
    values = [state.values["hidden.weight"] for state, _ in played]
    means = [state.method.momentum.get("hidden.weight") for state, _ in played]
    assert means[0] is None
    torch.testing.assert_close(means[1], 0.25 * (values[1] - values[0]).abs())
    mask = played[1][0].support.mask["hidden.weight"]
    want = torch.where(mask, 0.75 * means[1] + 0.25 * (values[2] - values[1]).abs(), means[1])
    torch.testing.assert_close(means[2], want)
    assert play(tmp_path / "other", **MASKED, rounds=1)[1][-1][0].method.momentum == {}


@pytest.mark.parametrize("score", ["magnitude", "l2", "momentum", "taylor", "random"])
def test_scores_drop_the_lowest(score: str, tmp_path: Path) -> None:
    flags = {"method__score": score, "method__ramp": "one-shot", "method__ramp_start": 2}
    flags |= {"method__budget": "uniform", "method__pattern": "row", "method__protect": "both"}
    _, played = play(tmp_path, **flags, rounds=1)
    (state, _), mask = played[-1], played[-1][0].support.mask["hidden.weight"][:, 0]
    assert int(mask.sum()) == 6
    w, v = state.values["hidden.weight"], state.method.momentum.get("hidden.weight")
    if score == "random":
        return
    sizes = {"magnitude": w.abs(), "l2": w.square(), "momentum": v}
    rows = (sizes[score] if score != "taylor" else (w * v).abs()).mean(1)
    assert float(rows[mask].min()) > float(rows[~mask].max())


def test_chance_is_the_same_in_all_rounds(tmp_path: Path) -> None:
    _, played = play(tmp_path, **MASKED, method__score="random", rounds=2)
    assert all(have_same_masks(played[0][0], state) for state, _ in played)


def test_dense_rounds_train_what_has_left(tmp_path: Path) -> None:
    setup, played = play(tmp_path, **MASKED, **PLAIN, method__dense_every=2, rounds=3)
    (one, _), (two, dense), (three, sparse) = played[1:]
    dead = ~one.support.mask["hidden.weight"]
    assert not torch.equal(two.values["hidden.weight"][dead], one.values["hidden.weight"][dead])
    dead = ~two.support.mask["hidden.weight"]
    assert torch.equal(three.values["hidden.weight"][dead], two.values["hidden.weight"][dead])
    whole = sum(s.numel() for s in setup.values.values()) - 16  # statistics are no parameters
    assert {client.params for client in dense.clients} == {whole}
    assert all(client.params < whole for client in sparse.clients)


def test_values_and_masks_on_the_wire(tmp_path: Path) -> None:
    """Up 4 bytes a kept value; down the same, and masks only where they are new to a client."""
    flags = {**MASKED, **PLAIN, "method__refine_every": 0, "rounds": 2}
    setup, played = play(tmp_path / "a", **flags)
    _, whole = play(tmp_path / "b", "fedavg", **PLAIN, wire__codec="sparse", rounds=2)
    state, first, second = played[0][0], played[1][1].clients[0], played[2][1].clients[0]
    dead = sum(int((~mask).sum()) for mask in state.support.mask.values())
    gain = whole[2][1].clients[0].up_bytes - second.up_bytes
    assert gain == pytest.approx(4 * dead, abs=16)
    assert second.down_bytes < first.down_bytes
    (ask, *_) = foresee(setup.fed, state, 1)
    job = make_job(setup.fed, state, ask, 1)
    assert not job.is_mask_known
    assert job.mask.keys() == state.support.mask.keys()
    (ask, *_) = foresee(setup.fed, played[1][0], 2)
    assert make_job(setup.fed, played[1][0], ask, 2).is_mask_known


def test_a_round_notes_what_is_kept(tmp_path: Path) -> None:
    _, played = play(tmp_path, **MASKED, rounds=1)
    notes, state = played[1][1].notes, played[1][0]
    sizes = {name: mask.numel() for name, mask in state.support.mask.items()}
    kept = sum(int(mask.sum()) for mask in state.support.mask.values())
    assert notes["sparsity"] == pytest.approx(1 - kept / sum(sizes.values()))
    assert notes["units"] == "an input of half of the outputs"
    assert notes["kept_units"]["pattern"] == "half-column"
    for name, layer in notes["kept_units"]["layers"].items():
        units = number_units(layer["shape"], "half-column")
        bits = read_bits(layer["kept"], int(units.max()) + 1)
        assert torch.equal(bits[units].view(layer["shape"]), state.support.mask[name])


def test_a_network_with_nothing_to_prune_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no weights that may be pruned"):
        play(tmp_path, task__model="mnist-mlp", rounds=1)
    play(tmp_path / "asked", task__model="mnist-mlp", method__protect="first", rounds=1)


@pytest.mark.parametrize(
    ("options", "rounds", "told"),
    [
        ({}, 30, []),
        ({}, 2, ["nothing is pruned"]),
        ({}, 10, ["`method.sparsity` is not reached"]),
        ({"method__dense_every": 40}, 30, ["no round trains the whole model"]),
        ({"method__sparsity": 0}, 2, []),
    ],
)
def test_what_cannot_happen_is_told(options: dict[str, Any], rounds: int, told: list[str]) -> None:
    found = find_idle(toy_recipe("federated-pruning", rounds=rounds, **options))
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))


@pytest.mark.parametrize("optimizer", ["none", "adam"])
def test_a_server_optimiser_moves_what_is_kept_alone(optimizer: str, tmp_path: Path) -> None:
    """eta_s is `server.lr`."""
    flags = {**MASKED, **PLAIN, "server__optimizer": optimizer, "server__lr": 0.5, "rounds": 1}
    _, played = play(tmp_path / "a", **flags)
    (before, _), (after, _) = played
    mask = before.support.mask["hidden.weight"]
    change = after.values["hidden.weight"] - before.values["hidden.weight"]
    assert not bool(change[~mask].any())
    assert bool(change[mask].all())
    if optimizer == "none":
        _, plain = play(tmp_path / "b", **flags | {"server__lr": 1.0})
        whole = plain[1][0].values["hidden.weight"] - before.values["hidden.weight"]
        torch.testing.assert_close(change, 0.5 * whole, rtol=1e-4, atol=1e-6)
