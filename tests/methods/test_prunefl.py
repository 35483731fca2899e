"""PruneFL: stage 1, importance, reconfigurations and what they put on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_recipe
from torch import Tensor

from fpcli.engine import server
from fpcli.engine.exchange import exchange, make_job, note_masks
from fpcli.engine.executors.inline import Inline
from fpcli.engine.measure import measure_gradients
from fpcli.engine.planning import foresee, plan_round
from fpcli.engine.types import Answer, ServerState, Support
from fpcli.fleet.clock import train_seconds
from fpcli.methods.prunefl import Options, State, round_time
from fpcli.pruning.importance import collect
from fpcli.recipe.idle import find_idle
from fpcli.recipe.load import load_recipe
from fpcli.structure.budget import list_masked_weights
from fpcli.structure.cost import count_cost
from fpcli.structure.shrink import shrink
from fpcli.tasks.classify import cross_entropy
from fpcli.train.setup import Setup, prepare_run

PLAIN = {"local__momentum": 0.0, "local__weight_decay": 0.0, "wire__codec": "sparse"}
FAST = {"local__batch_size": 16, "local__lr": 0.1}
STEEP = {"method__c": 1e-9, "method__comp": [1.0] * 4, "method__comm": 0.0}
QUICK = {"method__interval": 1, "method__ip_passes": 21, "method__ip_interval": 5}

AT_ONCE = {"method__ip_passes": 3, "method__ip_interval": 1, "method__interval": 1}
MASKED = AT_ONCE


def play(
    tmp_path: Path, method: str = "prunefl", **changes: Any
) -> tuple[Setup, list[tuple[ServerState, Any]]]:
    setup = prepare_run(toy_recipe(method, **changes), tmp_path / "memory")
    executor = Inline(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    return setup, [(state, None), *server.play(setup.fed, state, executor, totals)]


def alive(state: ServerState) -> int:
    return sum(int(mask.sum()) for mask in state.support.mask.values())


def test_the_share_halves() -> None:
    options = Options()
    shares = [options.share(elapsed) for elapsed in (50, 1000, 10000)]
    assert shares == pytest.approx([0.298962, 0.279910, 0.15], abs=1e-6)


def test_reconfigurations_are_due_after_every_interval() -> None:
    assert [r for r in range(160) if Options(interval=50).is_due(r)] == [50, 100, 150]
    assert not any(Options(interval=0).is_due(r) for r in range(200))


def test_an_interval_of_importance_begins_after_a_reconfiguration() -> None:
    """Every 2: rounds 3, 5 and 7 reconfigure, so that rounds 4, 6 and 8 begin anew."""
    starts = [Options(interval=2).window_start(elapsed) for elapsed in range(8)]
    assert starts == [0, 0, 0, 4, 4, 6, 6, 8]
    assert [Options(interval=1).window_start(elapsed) for elapsed in range(4)] == [0, 0, 3, 4]
    assert Options(interval=0).window_start(9) == 0


def test_impossible_options() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Options(c=1.0)
    with pytest.raises(ValueError, match="belong together"):
        Options(comp=(1.0,))


@pytest.mark.parametrize("changes", [{"method__control": "conventional"}, {"method__ip_passes": 0}])
def test_without_masks_it_is_fedavg_bit_for_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    _, ours = play(tmp_path / "a", **changes)
    _, plain = play(tmp_path / "b", "fedavg")
    for name, value in plain[-1][0].values.items():
        assert torch.equal(ours[-1][0].values[name], value)


def test_stage_1_only_shrinks_and_its_answer_is_sparse(tmp_path: Path) -> None:
    """It beats guessing in pass 1 or 11, and reconfigures 5 and 10 passes later again."""
    sizes, ups = [], []
    for passes in (11, 16, 21):
        steep = {"method__c": 1e-6, "method__comp": [1.0] * 4, "method__ip_interval": 5}
        recipe = toy_recipe("prunefl", **PLAIN, **steep, **FAST, method__ip_passes=passes)
        setup = prepare_run(recipe, tmp_path / str(passes))
        state, totals = server.begin_training(setup.fed, setup.values, Inline(setup.site))
        sizes.append(alive(state))
        ups.append(totals.up_bytes)
        for name, mask in state.support.mask.items():  # what is dead kept its initial value
            assert torch.equal(state.values[name][~mask], setup.values[name][~mask])
            assert not torch.equal(state.values[name][mask], setup.values[name][mask])
    assert sizes[0] > sizes[1] > sizes[2] > 0
    assert [a - b for a, b in pairwise(ups)] == pytest.approx(
        [4 * (a - b) for a, b in pairwise(sizes)], abs=40
    )


def test_stage_1_stops_when_its_size_settles(tmp_path: Path) -> None:
    """Where nothing may leave, every change is small: 1 + 5 reconfigurations, 5 passes apart."""
    changes = {"method__ip_passes": 100, "method__ip_interval": 5, "method__drop_share": 0.0}
    changes |= {"method__c": 1.0, "method__comp": [0.0] * 4}  # so that seconds count steps
    setup = prepare_run(toy_recipe("prunefl", **changes, **FAST), tmp_path)
    start = ServerState(0, setup.values, Support())
    ctx = setup.fed.context(0, "start", lambda *a, **k: None)
    asks = setup.fed.method.ask(ctx, start)
    assert [(ask.client, ask.op) for ask in asks] == [(0, "prune")]
    (answer,) = exchange(setup.fed, start, asks, Inline(setup.site), round=0).answers
    assert answer.time.compute_s in (260.0, 360.0)  # 1 or 11 passes, and 25
    assert setup.fed.method.ask(replace(ctx, phase="round"), start) == []


def test_regrowth_in_stage_1(tmp_path: Path) -> None:
    """When time is all constant, whatever has a gradient returns, in stage 1 only if it may."""
    free = {"method__c": 1e9, "method__comp": [0.0] * 4, "method__comm": 0.0, **PLAIN}
    setup, kept = play(tmp_path / "a", **free, method__ip_regrow=True, rounds=1)
    assert alive(kept[0][0]) == sum(
        setup.values[name].numel() for name in list_masked_weights(setup.fed.layout)
    )
    steep = {**free, "method__c": 1e-9, "method__comp": [1.0] * 4}
    _, cut = play(tmp_path / "b", **steep, rounds=1)
    assert alive(cut[0][0]) < alive(kept[0][0])


def test_measured_bytes_fall_with_density_and_masks_travel_once(tmp_path: Path) -> None:
    _, played = play(tmp_path, **PLAIN, **{**QUICK, "method__interval": 0}, rounds=3)
    dead = sum(mask.numel() for mask in played[-1][0].support.mask.values()) - alive(played[-1][0])
    _, dense = play(tmp_path / "dense", "fedavg", **PLAIN, rounds=3)
    first, second = played[1][1].clients[0], played[2][1].clients[0]
    bitmaps = sum((m.numel() + 7) // 8 for m in played[-1][0].support.mask.values())
    assert first.down_bytes - second.down_bytes == pytest.approx(bitmaps, abs=600)  # and headers
    whole = dense[2][1].clients[0]
    assert whole.up_bytes - second.up_bytes == pytest.approx(4 * dead, abs=16)
    assert whole.down_bytes - second.down_bytes == pytest.approx(4 * dead, abs=200)


def test_the_server_knows_who_has_the_masks(tmp_path: Path) -> None:
    setup, played = play(
        tmp_path, **PLAIN, **{**QUICK, "method__interval": 3}, clients_per_round=2, rounds=4
    )
    seen: set[int] = set()
    for state, record in played[1:]:
        seen |= set(record.cohort)
        assert set(state.masks_held) == seen
        if state.round == 4:  # it has chosen other masks
            seen = set()
        for client in range(4):
            assert knows_masks(setup, state, client) == (client in seen)
    assert alive(played[3][0]) != alive(played[4][0])


def knows_masks(setup: Setup, state: ServerState, client: int) -> bool:
    """Tell whether a client of the next round gets its job without masks."""
    asks = foresee(setup.fed, state, state.round + 1, client=client)
    (ask,) = (ask for ask in asks if ask.client == client)
    job = make_job(setup.fed, state, ask, state.round + 1)
    assert job.mask.keys() == state.support.mask.keys()
    return job.is_mask_known


def gathered(
    setup: Setup, state: ServerState, number: int
) -> tuple[Mapping[str, Tensor], list[Answer], Any]:
    ctx = setup.fed.context(number, "round", lambda *a, **k: None)
    asks = foresee(setup.fed, state, number)
    answers = exchange(setup.fed, state, asks, Inline(setup.site), round=number).answers
    return collect(ctx, setup.fed.options.importance, {}, answers), answers, ctx


def test_a_client_whose_reply_is_lost_gets_the_masks_again(tmp_path: Path) -> None:
    setup, played = play(tmp_path, **PLAIN, **{**QUICK, "method__interval": 0}, rounds=1)
    state = played[1][0]
    assert set(state.masks_held) == {0, 1, 2, 3}
    _, answers, _ = gathered(setup, state, 2)
    asks = [answer.ask for answer in answers[1:]]
    new = note_masks(setup.fed, state, asks, answers[1:3])
    assert [knows_masks(setup, new, client) for client in range(4)] == [True] * 3 + [False]


def test_importance_from_changes_is_that_of_the_clients(tmp_path: Path) -> None:
    """`last` of a single step is the sum of it; but then clients send it for all parameters."""
    both = []
    for rule in ("sum", "last"):
        changes = {**PLAIN, **QUICK, "local__batch_size": 1000, "method__importance": rule}
        changes["method__window"] = "round"
        setup, played = play(tmp_path / rule, **changes, rounds=1)
        found, answers, _ = gathered(setup, played[-1][0], 2)
        both.append(found)
        assert all(answer.work.num_steps == 1 for answer in answers)
        masks = played[-1][0].support.mask
        sent = {name: x.numel() for name, x in answers[0].work.stats.items()}
        if rule == "sum":
            assert sent == {name: int((~mask).sum()) for name, mask in masks.items()}
            assert all(x.dim() == 1 for x in answers[0].work.stats.values())
            assert sum(sent.values()) > 0
        else:
            assert sent == {name: x.numel() for name, x in found.items()}
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=2e-3, atol=1e-4)


def test_a_codec_that_rounds_leaves_importance_alone(tmp_path: Path) -> None:
    """The server would square the noise: by qsgd4 there is several times the true importance."""
    found = {}
    for codec in ("sparse", "qsgd4"):
        changes = {**PLAIN, **QUICK, "method__window": "round", "rounds": 1}
        setup, played = play(tmp_path / codec, **changes)
        fed = replace(setup.fed, up_codec=codec)
        setup = replace(setup, fed=fed, site=replace(setup.site, up_codec=codec))
        found[codec], _, _ = gathered(setup, played[-1][0], 2)
    for name, value in found["sparse"].items():
        torch.testing.assert_close(found["qsgd4"][name], value, rtol=1e-3, atol=1e-6)


def test_stats_travel_in_reconfiguring_rounds_only(tmp_path: Path) -> None:
    changes = {**PLAIN, **QUICK, "method__interval": 2}
    setup, played = play(tmp_path, **changes, rounds=1)
    _, answers, _ = gathered(setup, played[1][0], 2)
    assert all(answer.work.stats == {} for answer in answers)
    _, played = play(tmp_path, **changes, rounds=2)
    _, answers, _ = gathered(setup, played[2][0], 3)
    assert all(answer.work.stats for answer in answers)


def test_the_long_window_adds_rounds(tmp_path: Path) -> None:
    """Both windows see the same third round; the long one has two more."""
    sent = {}
    for window in ("interval", "round"):
        changes = {**PLAIN, **QUICK, "method__interval": 2, "method__window": window}
        setup, played = play(tmp_path / window, **changes, rounds=2)
        assert bool(played[2][0].method.importance) == (window == "interval")
        _, answers, _ = gathered(setup, played[2][0], 3)
        sent[window] = [answer.work.stats for answer in answers]
    for long, short in zip(sent["interval"], sent["round"], strict=True):
        assert all(bool((long[name] >= short[name]).all()) for name in short)
        assert sum(float((long[name] - short[name]).sum()) for name in short) > 0


@pytest.mark.parametrize("away", [(), (3,), (2, 3), (1, 3, 4)])
def test_importance_is_of_one_interval_whatever_a_client_has_missed(
    away: tuple[int, ...], tmp_path: Path
) -> None:
    """Nothing moves and a round is one step, so every round has the same importance n g^2."""
    fixed = {"local__lr": 0.0, "local__batch_size": 1000, "method__interval": 2}
    recipe = toy_recipe("prunefl", **fixed, method__ip_passes=0, task__model="digits-cnn")
    setup = prepare_run(recipe, tmp_path)
    executor = Inline(setup.site)
    state = ServerState(0, setup.values, Support())
    sent: dict[int, dict[str, Tensor]] = {}
    for number in range(1, 6):
        ctx = setup.fed.context(number, "round", lambda *a, **k: None)
        now = replace(state, round=number - 1)
        ctx = replace(ctx, cohort=() if number in away else (0,))
        asks = plan_round(setup.fed, ctx, now)
        for answer in exchange(setup.fed, now, asks, executor, round=number).answers:
            sent[number] = dict(answer.work.stats)
            assert bool(answer.work.stats) == (number in (3, 5))
    data, part = setup.site.dataset, setup.site.parts[0]
    model = shrink(setup.fed.template, {name: x.clone() for name, x in setup.values.items()})
    batch = data.normalise(data.train.images[part]), data.train.labels[part]
    once = {
        n: len(part) * g.square()
        for n, g in measure_gradients(model, cross_entropy(model, batch)).items()
    }
    rounds = {3: (1, 2, 3), 5: (4, 5)}
    for number, stats in sent.items():
        times = len(set(rounds.get(number, ())) - set(away))
        for name, value in stats.items():
            torch.testing.assert_close(value, times * once[name].flatten(), rtol=1e-3, atol=1e-6)


def test_seconds_by_hand_are_those_of_the_clock(tmp_path: Path) -> None:
    """E (c + sum of comp_l z_l) + comm z for each client, and the slowest ends the round."""
    comp, changes = [0.1, 0.2, 0.3, 0.4], {"method__c": 2.0, "method__comm": 0.5}
    _, played = play(tmp_path, **PLAIN, **QUICK, **changes, method__comp=comp, fleet__variation=1)
    sizes = [72, 576, 384, 120]  # weights of the toy network
    for before, (state, record) in pairwise(played):
        alive = [int(mask.sum()) for mask in before[0].support.mask.values()]
        assert all(z <= n for z, n in zip(alive, sizes, strict=True))
        wanted = []
        for client in record.clients:
            per_step = 2.0 + sum(a * z for a, z in zip(comp, alive, strict=True))
            assert client.compute_s == pytest.approx(client.num_steps * per_step)
            assert client.down_s == client.up_s == pytest.approx(0.25 * sum(alive))
            wanted.append(client.num_steps * per_step + 0.5 * sum(alive))
        assert record.clock_s == pytest.approx(max(wanted))
        assert state.round == record.round


def begun(tmp_path: Path, **changes: Any) -> tuple[ServerState, Any]:
    setup = prepare_run(toy_recipe("prunefl", **PLAIN, **FAST, **changes), tmp_path)
    return server.begin_training(setup.fed, setup.values, Inline(setup.site))


def test_stage_1_takes_the_seconds_of_what_is_alive(tmp_path: Path) -> None:
    """By hand, one second per alive weight and step: the sum over all steps of what they train."""
    seconds, sizes = [], []
    for passes in range(11, 18):  # reconfigures after pass 11 at the latest, and then after 16
        options = {**STEEP, "method__ip_passes": passes, "method__ip_interval": 5}
        state, totals = begun(tmp_path / str(passes), **options)
        seconds.append(totals.clock_s)
        sizes.append(alive(state))
    steps = [round((b - a) / 10, 3) for a, b in pairwise(seconds)]
    assert steps == sizes[:-1]  # a pass of 10 steps costs 10 times what the one before it left
    assert len(set(sizes)) > 1


def test_stage_1_on_devices_costs_less_than_with_the_whole_model(tmp_path: Path) -> None:
    """21 passes over 10 batches of 16: where nothing leaves, as many samples of the whole model."""
    found = {}
    for share in (0.0, 0.6):
        changes = {**QUICK, **FAST, "method__drop_share": share}
        setup = prepare_run(toy_recipe("prunefl", **changes), tmp_path / str(share))
        start = ServerState(0, setup.values, Support())
        ctx = setup.fed.context(0, "start", lambda *a, **k: None)
        asks = setup.fed.method.ask(ctx, start)
        (answer,) = exchange(setup.fed, start, asks, Inline(setup.site), round=0).answers
        found[share] = answer.time.compute_s
    macs, device = count_cost(setup.fed.layout, Support()).macs, setup.fed.fleet.at(0, 0)
    assert found[0.0] == pytest.approx(train_seconds(macs, 21 * 160, device))
    assert 0 < found[0.6] < 0.9 * found[0.0]


@pytest.mark.parametrize("control", ["adaptive", "snip", "random"])
def test_a_free_start_costs_bytes_but_no_seconds(control: str, tmp_path: Path) -> None:
    options = {**QUICK, "method__control": control}
    paid = begun(tmp_path / "a", **options)
    free = begun(tmp_path / "b", **options, method__free_ip=True)
    assert free[1].clock_s == 0.0 < paid[1].clock_s
    assert free[1].down_bytes == paid[1].down_bytes > 0
    for name, value in paid[0].values.items():
        assert torch.equal(free[0].values[name], value)


def test_defaults_adapt_within_the_default_rounds(tmp_path: Path) -> None:
    """Masks shrink in stage 1, and weights return and leave later; bytes fall with them."""
    recipe = load_recipe(None, flags={"method.name": "prunefl", "executor.kind": "inline"})
    assert recipe.wire.codec == "sparse"
    assert find_idle(recipe) == []
    options = Options()
    due = [elapsed for elapsed in range(recipe.rounds) if options.is_due(elapsed)]
    assert len(due) == 5
    setup = prepare_run(replace(recipe, rounds=6, eval_every=6), tmp_path)
    executor = Inline(setup.site)
    first, totals = server.begin_training(setup.fed, setup.values, executor)
    played = [first, *(state for state, _ in server.play(setup.fed, first, executor, totals))]
    whole = sum(setup.values[name].numel() for name in list_masked_weights(setup.fed.layout))
    assert alive(played[0]) < 0.5 * whole
    old, new = played[5].support.mask, played[6].support.mask
    assert all(torch.equal(played[0].support.mask[name], old[name]) for name in old)
    assert any(bool((new[name] & ~old[name]).any()) for name in old), "nothing returned"
    assert any(bool((old[name] & ~new[name]).any()) for name in old), "nothing left"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method__interval": 50}, "below 30, or rounds above 50"),
        ({"method__interval": 30}, "below 30, or rounds above 30"),
        ({"method__interval": 29}, ""),
        ({"method__interval": 0}, ""),
        ({"method__interval": 50, "method__control": "snip"}, ""),
        ({"method__interval": 50, "method__control": "iterative"}, "above 50"),
        ({"method__interval": 5, "method__control": "iterative"}, "rounds above 100"),
        ({"method__interval": 1, "method__control": "iterative"}, ""),
    ],
)
def test_an_interval_that_never_comes_is_told(options: dict[str, Any], words: str) -> None:
    told = find_idle(toy_recipe("prunefl", rounds=30, **options))
    assert bool(told) == bool(words)
    assert all(text.startswith("F302: `method.") and words in text for text in told)


def test_a_part_of_the_wrong_size_does_not_count(tmp_path: Path) -> None:
    setup, played = play(tmp_path, **PLAIN, **QUICK, rounds=1)
    found, answers, ctx = gathered(setup, played[1][0], 2)
    stats = {name: torch.ones(7777) for name in answers[0].work.stats}
    bad = [replace(answer, work=replace(answer.work, stats=stats)) for answer in answers]
    less = collect(ctx, setup.fed.options.importance, {}, bad)
    assert less.keys() == found.keys()
    assert sum(float(x.sum()) for x in less.values()) < sum(float(x.sum()) for x in found.values())


@pytest.mark.parametrize("init", ["keep", "zero"])
def test_values_of_returning_weights(init: str, tmp_path: Path) -> None:
    """What left in stage 1 returns in stage 2, where all time is made constant; as it was, or 0."""
    changes = {**PLAIN, **QUICK, "method__regrow_init": init}
    setup = prepare_run(toy_recipe("prunefl", **changes), tmp_path)
    executor = Inline(setup.site)
    before, totals = server.begin_training(setup.fed, setup.values, executor)
    options = replace(setup.fed.options, c=1e9, comp=(0.0,) * 4, comm=0.0)
    fed = replace(setup.fed, options=options)
    play = server.play(fed, before, executor, totals)
    (_, _), (after, _) = next(play), next(play)
    returned = {n: after.support.mask[n] & ~mask for n, mask in before.support.mask.items()}
    assert sum(int(x.sum()) for x in returned.values()) > 0
    for name, place in returned.items():
        want = setup.values[name][place] if init == "keep" else torch.zeros(int(place.sum()))
        assert torch.equal(after.values[name][place], want)


def test_dead_weights_do_not_influence_the_model(tmp_path: Path) -> None:
    setup, played = play(tmp_path, **PLAIN, **QUICK, rounds=1)
    state = played[1][0]
    block = state.support.gather(setup.fed.layout, state.values)
    for name, mask in state.support.mask.items():
        assert not bool(block[name][~mask].any())
    assert set(state.support.mask) == set(list_masked_weights(setup.fed.layout))


def test_density_is_logged_and_limited(tmp_path: Path) -> None:
    changes = {**PLAIN, **QUICK, "method__max_density": 0.3, "method__drop_share": 0.6}
    _, played = play(tmp_path, **changes, rounds=3)
    for state, record in played[1:]:
        want = {n: float(mask.float().mean()) for n, mask in state.support.mask.items()}
        assert record.notes["density"] == pytest.approx(want)
    last = played[-1][0].support.mask
    assert alive(played[-1][0]) <= 0.3 * sum(mask.numel() for mask in last.values())


def test_times_by_hand(tmp_path: Path) -> None:
    """The largest client makes one epoch in batches of 64; comm counts once per round."""
    changes = {"method__c": 2.0, "method__comp": [0.1, 0.2, 0.3, 0.4], "method__comm": 0.5}
    setup = prepare_run(toy_recipe("prunefl", **changes), tmp_path)
    ctx = setup.fed.context(1, "round", lambda *a, **k: None)
    time = round_time(ctx, list_masked_weights(setup.fed.layout))
    steps = -(-max(setup.fed.num_examples) // 64)
    assert time.constant_s == 2.0 * steps
    assert list(time.weight_s.values()) == pytest.approx(
        [x * steps + 0.5 for x in (0.1, 0.2, 0.3, 0.4)]
    )


@pytest.mark.parametrize("control", ["snip", "random", "iterative"])
def test_rivals_reach_their_density(control: str, tmp_path: Path) -> None:
    changes = {"method__control": control, "method__density": 0.25, "method__interval": 1}
    _, played = play(tmp_path, **changes, rounds=22 if control == "iterative" else 1)
    total = sum(mask.numel() for mask in played[-1][0].support.mask.values())
    assert alive(played[-1][0]) == round(0.25 * total)
    if control == "iterative":
        sizes = [alive(state) for state, _ in played[2:]]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[9] == round(0.25**0.5 * total)
        assert sizes[-1] == sizes[-2]


def test_momentum_and_one_hot_loss_train_too(tmp_path: Path) -> None:
    _, played = play(tmp_path, **QUICK, method__loss="one_hot", method__importance="step_sq")
    assert isinstance(played[-1][0].method, State)
    assert played[-1][1].evaluation.test.metrics["accuracy"] > 0.1
