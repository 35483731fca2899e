"""Clients that are away or drop out: rounds, bytes, seconds and states stay what they must be."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import toy_recipe
from replies import plain, rounds

from fpcli.engine import server
from fpcli.engine.executors.inline import Inline, Outcome
from fpcli.engine.method import Method, sample_cohort
from fpcli.engine.planning import choose_cohort
from fpcli.engine.round_context import RoundContext
from fpcli.engine.types import ServerState, Support
from fpcli.errors import ClientError
from fpcli.fleet.clock import train_seconds
from fpcli.fleet.devices import Point
from fpcli.train.setup import Setup, prepare_run

CODES = {"before": "F411", "training": "F412", "after": "F413"}
QUICK = {"eval_every": 100, "local__batch_size": 512, "fleet__variation": 0.0}


@functools.cache
def built(method: str) -> Setup:
    return prepare_run(toy_recipe(method, **QUICK), Path("unused"))


def toy(tmp_path: Path, method: str = "fedavg", **changes: Any) -> Setup:
    """Return the toy federation with other rules or another fleet."""
    setup = built(method)
    rules = {key: changes.pop(key) for key in list(changes) if hasattr(setup.fed.rules, key)}
    fed = replace(
        setup.fed,
        rules=replace(setup.fed.rules, **rules),
        fleet=replace(setup.fed.fleet, **changes),
    )
    return replace(setup, fed=fed, site=replace(setup.site, home=tmp_path / "memory"))


class Counting(Inline):
    """Counts the jobs it was handed."""

    num_jobs = 0

    def run(self, jobs: Iterable[bytes]) -> Iterator[Outcome]:
        for outcome in super().run(jobs):
            self.num_jobs += 1
            yield outcome


@pytest.mark.parametrize("num_rounds", [6, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", CODES)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 1.0])
def test_a_round_counts_if_and_only_if_enough_replies_remain(
    tmp_path: Path, share: float, point: Point, num_rounds: int
) -> None:
    rules = {"rounds": num_rounds, "min_clients": 2, "round_retries": 1}
    setup = toy(tmp_path, dropout=share, dropout_when=point, **rules)
    executor = Counting(setup.site)
    state, totals = server.begin_training(setup.fed, setup.values, executor)
    playing = server.play(setup.fed, state, executor, totals)
    for number in range(1, num_rounds + 1):
        stay = [
            [i for i in range(4) if not setup.fed.fleet.drops_out(number, i, attempt)]
            for attempt in (0, 1)
        ]
        enough = [attempt for attempt in (0, 1) if len(stay[attempt]) >= 2]
        before, executor.num_jobs = plain(state), 0
        if not enough:
            with pytest.raises(ClientError, match=f"round {number}: . usable replies, 2 needed"):
                next(playing)
            assert plain(state) == before
            break
        state, record = next(playing)
        assert record.attempts == enough[0] + 1
        assert [client.client for client in record.clients] == stay[enough[0]]
        lost = [i for attempt in range(record.attempts) for i in range(4) if i not in stay[attempt]]
        assert [refusal.client for refusal in record.refusals] == lost
        assert {refusal.code for refusal in record.refusals} <= {CODES[point]}
        assert all(refusal.is_dropped for refusal in record.refusals)
        check_bytes(record, point, executor.num_jobs)
    assert (share == 1.0) <= (state.round == 0)


def check_bytes(record: Any, point: Point, num_jobs: int) -> None:
    """Every job is equally long here; only what was really sent counts."""
    (length,) = {client.down_bytes for client in record.clients}
    asked = 4 * record.attempts
    received = asked - (len(record.refusals) if point == "before" else 0)
    assert record.down_bytes == received * length
    assert num_jobs == asked - (len(record.refusals) if point != "after" else 0)
    used = sum(client.up_bytes for client in record.clients)
    if point == "after" or record.attempts > 1:
        assert (record.up_bytes > used) == (num_jobs > len(record.clients))
    else:
        assert record.up_bytes == used


def test_all_clients_lost_is_exit_4_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="client 3: dropped out during training") as caught:
        next(rounds(toy(tmp_path, dropout=1.0, dropout_when="training")))
    assert caught.value.exit_status == 4
    assert "fleet.dropout" in caught.value.hint


def test_a_lost_reply_is_as_if_it_had_never_been_sent(tmp_path: Path) -> None:
    lossy = toy(tmp_path, dropout=0.5, dropout_when="after", rounds=1)
    state, record = next(rounds(lossy))
    others = toy(tmp_path, dropout=0.5, dropout_when="before", rounds=1)
    assert 0 < len(record.refusals) < 4
    assert plain(next(rounds(others))[0]) == plain(state)


@pytest.mark.parametrize("point", CODES)
def test_seconds_until_a_client_is_lost(tmp_path: Path, point: Point) -> None:
    """A server without a deadline waits until it notices; with one, until then."""
    changes = {"dropout": 0.5, "dropout_when": point, "rounds": 1}
    setup = toy(tmp_path, **changes)
    whole = {c.client: c for c in next(rounds(toy(tmp_path, rounds=1)))[1].clients}
    _, record = next(rounds(setup))
    gone = {refusal.client for refusal in record.refusals}
    assert gone and gone != set(whole)
    seconds = []
    for client, told in whole.items():
        device = setup.fed.fleet.at(1, client)
        compute_s = train_seconds(told.macs, told.num_examples, device)
        assert told.compute_s == compute_s
        steps = [compute_s + told.down_s, told.up_s]
        is_lost = client in gone and point != "after"
        seconds.append(sum(steps[:1]) if is_lost else sum(steps))
        if client in gone and point == "before":
            seconds[-1] = 0.0
    assert record.clock_s == pytest.approx(max(seconds))
    late = toy(tmp_path, **changes, deadline_s=60.0)
    assert next(rounds(late))[1].clock_s == 60.0


def test_absent_clients_keep_their_bandits(tmp_path: Path) -> None:
    setup = toy(tmp_path, "fedmp", dropout=0.5, rounds=4)
    state, _ = server.begin_training(setup.fed, setup.values, Inline(setup.site))
    moved = 0
    for new, record in rounds(setup):
        gone = {refusal.client for refusal in record.refusals}
        there = {client.client for client in record.clients}
        for client in gone - there:
            assert new.method.agents[client] == state.method.agents[client]
        moved += sum(new.method.agents[c] != state.method.agents[c] for c in there)
        state = new
    assert moved > 0


def test_same_seed_same_bits_and_cohorts_of_those_who_are_there(tmp_path: Path) -> None:
    changes = {"availability": 0.6, "dropout": 0.3, "clients_per_round": 2, "rounds": 6}
    ends = []
    for _ in range(2):
        setup = toy(tmp_path, **changes, round_retries=9)
        *_, (state, _) = played = list(rounds(setup))
        ends.append(plain(state))
        for _, record in played:
            attempt, fleet = record.attempts - 1, setup.fed.fleet
            assert all(fleet.is_available(record.round, i, attempt) for i in record.cohort)
            assert len(record.cohort) <= 2
    assert ends[0] == ends[1]


class Stubborn(Method):
    """Wants the same clients in every round, whether they are there or not."""

    def select(self, ctx: RoundContext, state: ServerState) -> list[int]:
        return [3, 0, 1]


def test_a_method_that_selects_gets_those_who_are_there(tmp_path: Path) -> None:
    fed = replace(toy(tmp_path, availability=0.5).fed, method=Stubborn())
    seen = set()
    for number in range(1, 9):
        ctx = fed.context(number, "round", lambda *_, **__: None)
        chosen = choose_cohort(fed, ctx, ServerState(0, {}, Support()))
        assert chosen == tuple(i for i in (0, 1, 3) if fed.fleet.is_available(number, i))
        assert sample_cohort(ctx) == list(ctx.available)
        seen.add(chosen)
    assert len(seen) > 2


def test_a_round_without_anybody_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    setup = toy(tmp_path, availability=1e-9, round_retries=1)
    with pytest.raises(ClientError, match="0 usable replies, 1 needed: no client") as caught:
        next(rounds(setup))
    assert "fleet.availability" in caught.value.hint
    rare = toy(tmp_path, availability=0.15, round_retries=50, rounds=8)
    assert any(record.attempts > 1 for _, record in rounds(rare))
